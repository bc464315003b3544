"""A page cut into requests that the target takes: how many values, and how many bytes, one may hold."""

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

from runmirror.entities import Batch, Metric, Param, Tag
from runmirror.mirror.limits import Limits

# MLflow's own servers refuse bodies above 1 MB.
_TEXT_BYTES = 400_000
_Pair = TypeVar("_Pair", Param, Tag)


def cut(metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[Tag], limits: Limits) -> Iterator[Batch]:
    """As few batches as the limits allow; order is kept within each kind."""
    points = [
        tuple(metrics[at : at + limits.metrics_per_request])
        for at in range(0, len(metrics), limits.metrics_per_request)
    ]
    yield from (
        Batch(some_metrics or (), some_params or (), some_tags or ())
        for some_metrics, some_params, some_tags in zip_longest(
            points,
            _by_count_and_size(params, limits.params_per_request),
            _by_count_and_size(tags, limits.tags_per_request),
        )
    )


def _by_count_and_size(pairs: Sequence[_Pair], most: int) -> Iterator[tuple[_Pair, ...]]:
    """Groups of at most `most`, each small enough to share a request with the others."""
    group: list[_Pair] = []
    size = 0
    for pair in pairs:
        length = len(json.dumps([pair.key, pair.value], ensure_ascii=False).encode())
        if group and (len(group) == most or size + length > _TEXT_BYTES):
            yield tuple(group)
            group, size = [], 0
        group.append(pair)
        size += length
    if group:
        yield tuple(group)

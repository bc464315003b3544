"""Answers with many rows, as the bytes that leave: no object of the wire models lives in between.

What they hold is what `wire` says; the routes declare that as their response model.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any
from uuid import UUID

import msgspec
from fastapi import Response
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from runmirror.runs.history import Points

InputsOutputs = dict[UUID, tuple[dict[str, Any], dict[str, Any]]]


class _Metric(msgspec.Struct, gc=False):
    key: str
    value: float | str
    timestamp: int
    step: int


class _HistoryPage(msgspec.Struct):
    metrics: list[_Metric] | UnsetType
    next_page_token: str | UnsetType


_encode = msgspec.json.Encoder().encode
_NEITHER: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
_ENDED = b',"inputs":{},"outputs":{}}'


def json_answer(body: bytes) -> Response:
    """A 200 with this body."""
    return Response(body, media_type="application/json")


def run(row: Row[Any], inputs_outputs: InputsOutputs) -> bytes:
    """`Run`, from a row of `queries.load_json`."""
    inputs, outputs = inputs_outputs.get(row.run_id, _NEITHER)
    end = _ENDED if not (inputs or outputs) else b',"inputs":%b,"outputs":%b}' % (_encode(inputs), _encode(outputs))
    return str(row.json).encode() + end


def run_answer(row: Row[Any], inputs_outputs: InputsOutputs) -> Response:
    """`RunAnswer`."""
    return json_answer(b'{"run":%b}' % run(row, inputs_outputs))


def runs_page(runs: Sequence[bytes], next_page_token: str | None) -> bytes:
    """`RunsPage`."""
    more = [b'"next_page_token":%b' % _encode(next_page_token)] if next_page_token else []
    if not runs:
        return b"{%b}" % b"".join(more)
    # Joined in one go: a page has megabytes.
    parts = [b"," for _ in range(2 * len(runs) - 1)]
    parts[::2] = runs
    return b"".join([b'{"runs":[', *parts, b"]", *(b"," + field for field in more), b"}"])


def history_page(key: str, points: Points, next_page_token: str | None) -> Response:
    """`HistoryPage`."""
    values = points.values if all(map(math.isfinite, points.values)) else _shown(points.values)
    metrics = list(map(_Metric, repeat(key), values, points.timestamps_ms, points.steps))
    return json_answer(_encode(_HistoryPage(metrics or UNSET, next_page_token or UNSET)))


def _shown(values: Iterable[float]) -> list[float | str]:
    return [value if math.isfinite(value) else "NaN" for value in values]

"""Sends batches; when the target refuses one, finds out what of it is refused, so that the rest goes through."""

import math
from collections.abc import Awaitable, Callable, Sequence

from runmirror.entities import Batch, Metric, Param, Tag
from runmirror.mirror.limits import Limits
from runmirror.mirror.target import OverLimit, RemoteRun, RemoteRunVanished, Target, TargetRejected

Refusal = tuple[Metric | Param | Tag, str]
"""What the target does not take by itself either, and its words."""

Missing = Callable[[Sequence[Metric]], Awaitable[list[Metric]]]
"""Those of the metrics that the target does not have."""


class Delivery:
    """Of one page to one run. `harmless` is a tag that the run has already."""

    def __init__(self, target: Target, remote: RemoteRun, limits: Limits, missing: Missing, harmless: Tag) -> None:
        self._target = target
        self._remote = remote
        self._limits = limits
        self._missing = missing
        self._harmless = harmless
        self._content_is_at_fault = False
        self._refused_metrics: set[tuple[str, bool]] = set()
        self.refused: list[Refusal] = []

    async def send(self, batch: Batch) -> None:
        """Raises `OverLimit` when it tells a limit that was not known: then better batches can be made."""
        if self._refused_metrics:
            # Of a metric whose point is refused, those after it go the same way.
            metrics = tuple(metric for metric in batch.metrics if not self._goes_with_refused(metric))
            batch = Batch(metrics, batch.params, batch.tags)
        if batch == Batch():
            return
        try:
            await self._target.log_batch(self._remote, batch)
        except RemoteRunVanished:
            raise
        except TargetRejected as error:
            if isinstance(error, OverLimit) and self._limits.is_tightened_by(error.name, error.limit):
                raise
            await self._blame_content(error)
            await self._divide(batch, error)

    def _goes_with_refused(self, metric: Metric) -> bool:
        return (metric.key, False) in self._refused_metrics or _sort_of(metric) in self._refused_metrics

    async def _blame_content(self, error: TargetRejected) -> None:
        """A run that takes nothing at all, not even what it has, is not refused for what is in the batch."""
        if self._content_is_at_fault:
            return
        try:
            await self._target.log_batch(self._remote, Batch(tags=(self._harmless,)))
        except TargetRejected:
            raise error from None
        self._content_is_at_fault = True

    async def _divide(self, batch: Batch, error: TargetRejected) -> None:
        kinds: tuple[tuple[Metric | Param | Tag, ...], ...] = (batch.metrics, batch.params, batch.tags)
        if sum(map(len, kinds)) == 1:
            self._refused_metrics.update(map(_sort_of, batch.metrics))
            self.refused += [(thing, str(error)) for kind in kinds for thing in kind]
            return
        if sum(map(bool, kinds)) > 1:
            parts = [Batch(metrics=batch.metrics), Batch(params=batch.params), Batch(tags=batch.tags)]
        else:
            # Nobody promised that a refused request has no effect at all.
            metrics = tuple(await self._missing(batch.metrics)) if batch.metrics else ()
            half = (len(metrics or batch.params or batch.tags) + 1) // 2
            parts = [
                Batch(metrics[part], batch.params[part], batch.tags[part]) for part in (slice(half), slice(half, None))
            ]
        for part in parts:
            await self.send(part)


def _sort_of(metric: Metric) -> tuple[str, bool]:
    return metric.key, math.isnan(metric.value)

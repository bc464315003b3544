"""What arrived of what was sent: asked of the target when nobody else can tell."""

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence

from runmirror.entities import Metric
from runmirror.mirror.queries import Input, Point
from runmirror.mirror.target import RemoteRun, Target


class ReadBack:
    """Of one remote run."""

    def __init__(self, target: Target, remote: RemoteRun) -> None:
        self._target = target
        self._remote = remote

    async def missing(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Those that are not there."""
        arrived = await self._arrived(metric.key for metric in metrics)
        return [metric for metric in metrics if _identity(metric) not in arrived[metric.key]]

    async def missing_points(self, points: Sequence[Point], uncertain_upto: int) -> list[Point]:
        """The points without those of an earlier attempt that arrived."""
        arrived = await self._arrived(point.metric.key for point in points if point.seq <= uncertain_upto)
        return [
            point
            for point in points
            if point.seq > uncertain_upto or _identity(point.metric) not in arrived[point.metric.key]
        ]

    async def missing_inputs(self, inputs: Sequence[Input], uncertain_upto: int) -> list[Input]:
        """The inputs without those of an earlier attempt that arrived."""
        if not any(read.seq <= uncertain_upto for read in inputs):
            return list(inputs)
        there = set(await self._target.inputs_of(self._remote))
        return [read for read in inputs if (read.given.dataset.name, read.given.dataset.digest) not in there]

    async def _arrived(self, keys: Iterable[str]) -> dict[str, set[tuple[int, int, bytes]]]:
        arrived = defaultdict[str, set[tuple[int, int, bytes]]](set)
        for key in sorted(set(keys)):
            arrived[key] = {_identity(metric) for metric in await self._target.history(self._remote, key)}
        return arrived


def _identity(metric: Metric) -> tuple[int, int, bytes]:
    """Step, time and value of a point, so that NaN equals NaN (whatever its bits) and 0 equals -0, as in Postgres."""
    value = float("nan") if metric.value != metric.value else metric.value + 0.0
    return metric.step, metric.timestamp_ms, struct.pack("<d", value)

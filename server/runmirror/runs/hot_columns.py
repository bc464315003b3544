"""What requests of the hot way write, and the arguments of Postgres' functions that they become together."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import lt
from typing import Annotated, Any
from uuid import UUID

import msgspec

from runmirror.wire import INT64_MAX

FEWEST = 8  # points of one metric that are stored as a chunk
NO_CHUNKS = 2**31 - 1

Int64 = Annotated[int, msgspec.Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]
Timestamp = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]


class Point(msgspec.Struct, gc=False):
    key: str
    value: float
    timestamp: Timestamp
    step: Int64 = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class Pair(msgspec.Struct, gc=False):
    key: str
    value: str = ""


class Unusual(Exception):
    """A request for the ordinary route."""


class Write(msgspec.Struct, frozen=True):
    """What one request writes to one run."""

    run_id: UUID
    metrics: Sequence[Point] = ()
    params: Sequence[Pair] = ()
    tags: Sequence[Pair] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """Arguments of runmirror_log_points_1 if `are_points`, else of runmirror_log_2.

    Runs, metrics and points refer to each other by place, from 1.
    """

    arguments: Sequence[Any]
    are_points: bool


def columns(writes: Sequence[Write], *, fewest: int = FEWEST) -> Columns:
    """What these writes become together; `fewest` points of one metric are a chunk.

    Raises `Unusual` when two of these writes give one param two values.
    """
    runs: dict[UUID, int] = {}
    points: dict[tuple[int, str], list[Point]] = {}
    params: dict[tuple[int, str], str] = {}
    tags: dict[tuple[int, str], str] = {}
    count = 0
    for write in writes:
        run = runs.setdefault(write.run_id, len(runs) + 1)
        of_run: dict[str, list[Point]] = {}
        for metric in write.metrics:
            same = of_run.get(metric.key)
            if same is None:
                same = of_run[metric.key] = points.setdefault((run, metric.key), [])
            same.append(metric)
        for param in write.params:
            if params.setdefault((run, param.key), param.value) != param.value:
                raise Unusual
        for tag in write.tags:
            tags[run, tag.key] = tag.value
        count += len(write.metrics)
    if 0 < count == len(points) and not params and not tags:
        single = [same[0] for same in points.values()]
        return Columns(
            (
                list(runs), *_columns_of_keys(points), [point.step for point in single],
                [point.timestamp for point in single], [point.value for point in single],
            ),
            are_points=True,
        )  # fmt: skip
    series = _Series()
    for same in points.values():
        series.add(same)
    return Columns(
        (
            list(runs), *_columns_of_keys(points), *series.columns(),
            *_columns_of_keys(params), list(params.values()),
            *_columns_of_keys(tags), list(tags.values()),
            fewest,
        ),
        are_points=False,
    )  # fmt: skip


class _Series:
    """The points of one metric after the other."""

    def __init__(self) -> None:
        self._newest: list[Point] = []
        self._rising: list[bool] = []
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._oldests: list[int] = []
        self._newests: list[int] = []
        self._steps: list[int] = []
        self._timestamps: list[int] = []
        self._values: list[float] = []

    def add(self, points: Sequence[Point]) -> None:
        """All points of one metric."""
        steps = [point.step for point in points]
        rising = all(map(lt, steps, islice(steps, 1, None)))
        self._rising.append(rising)
        self._newest.append(points[-1] if rising else max(points, key=_rank))  # the first of equals
        self._firsts.append(len(self._steps) + 1)
        self._steps += steps
        self._lasts.append(len(self._steps))
        timestamps = [point.timestamp for point in points]
        self._timestamps += timestamps
        self._oldests.append(min(timestamps))
        self._newests.append(max(timestamps))
        self._values += [point.value for point in points]

    def columns(self) -> Sequence[Sequence[Any]]:
        newest = self._newest
        return (
            [point.step for point in newest], [point.timestamp for point in newest], [point.value for point in newest],
            self._rising, self._firsts, self._lasts, self._oldests, self._newests,
            self._steps, self._timestamps, self._values,
        )  # fmt: skip


def _rank(metric: Point) -> tuple[int, int, float]:
    """What makes a point the latest of its key; NaN counts as 0 there, as MLflow's SQL store keeps it."""
    return metric.step, metric.timestamp, 0.0 if math.isnan(metric.value) else metric.value


def _columns_of_keys(keys: Iterable[tuple[int, str]]) -> tuple[list[int], list[str]]:
    keys = list(keys)
    return [run for run, _ in keys], [key for _, key in keys]

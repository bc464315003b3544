"""Two snapshots of one run, laid beside each other: pure, so that the demo's verdict can be tested."""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from runmirror.demo.snapshot import File, Point, Snapshot

# What only one side says, and rightly: our worker notes at the source where the copy is, and in the workspace where it
# is from; Azure ML adds the root of every run. Anything else that one side lacks is a difference.
OWN_TAG_PREFIX = "runmirror."
AZURE_TAGS = frozenset({"mlflow.rootRunId"})

_HASH_SHOWN = 8  # hex digits: enough to see that two differ
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing both sides should have, in words; None where a side lacks it."""

    kind: str
    name: str
    source: str | None
    target: str | None
    equal: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    rows: tuple[Row, ...]

    @property
    def equal(self) -> bool:
        """Nothing compared would be no proof, so it is not equal."""
        return bool(self.rows) and all(row.equal for row in self.rows)

    @property
    def differences(self) -> int:
        return sum(not row.equal for row in self.rows)


def compare(source: Snapshot, target: Snapshot) -> Comparison:
    """All that both readers can ask for; values are compared whole, whatever is shown of them."""
    return Comparison((
        *_rows("run", _facts(source, target), _facts(target, source), str),
        *(() if source.params is None or target.params is None else _rows("param", source.params, target.params, str)),
        *_rows("tag", _tags(source), _tags(target), str),
        *_metric_rows(source.metrics, target.metrics),
        *_rows("file", source.files, target.files, _show_file),
    ))  # fmt: skip


def _rows(
    kind: str, source: Mapping[str, _Value], target: Mapping[str, _Value], show: Callable[[_Value], str]
) -> Iterator[Row]:
    for name in sorted({*source, *target}):
        left, right = source.get(name), target.get(name)
        yield Row(
            kind,
            name,
            None if left is None else show(left),
            None if right is None else show(right),
            left is not None and left == right,
        )


def _facts(of: Snapshot, other: Snapshot) -> dict[str, str]:
    """The run's own attributes, as far as the other reader knows them too; times are shown to the millisecond."""
    facts = {"status": of.status}
    if of.name is not None and other.name is not None:
        facts["name"] = of.name
    if of.start_time_ms is not None and other.start_time_ms is not None:
        facts["started"] = _show_time(of.start_time_ms)
    if of.end_time_ms is not None and other.end_time_ms is not None:
        facts["ended"] = _show_time(of.end_time_ms)
    return facts


def _tags(of: Snapshot) -> dict[str, str]:
    return {
        key: value for key, value in of.tags.items() if not key.startswith(OWN_TAG_PREFIX) and key not in AZURE_TAGS
    }


def _metric_rows(source: Mapping[str, tuple[Point, ...]], target: Mapping[str, tuple[Point, ...]]) -> Iterator[Row]:
    for name in sorted({*source, *target}):
        left, right = source.get(name, ()), target.get(name, ())
        by_value_alone = any(point.step is None for point in (*left, *right))
        yield Row(
            "metric",
            name,
            _show_points(left) if left else None,
            _show_points(right) if right else None,
            bool(left) and _exact(left, by_value_alone) == _exact(right, by_value_alone),
        )


def _exact(points: tuple[Point, ...], by_value_alone: bool) -> list[tuple[bytes, int, int]]:
    """Every point, repeats included, in an order of its own; bytes, because NaN is not equal to itself."""
    return sorted(
        (struct.pack(">d", point.value), 0, 0)
        if by_value_alone
        else (struct.pack(">d", point.value), point.step or 0, point.timestamp_ms or 0)
        for point in points
    )


def _show_points(points: tuple[Point, ...]) -> str:
    last = max(enumerate(points), key=lambda numbered: (numbered[1].step or 0, numbered[0]))[1]
    return f"{len(points)} point{'s'[: len(points) != 1]}, last {last.value:.6g}"


def _show_file(file: File) -> str:
    return f"{_show_size(file.size_bytes)}, sha256 {file.sha256[:_HASH_SHOWN]}"


def _show_size(size_bytes: int) -> str:
    if size_bytes < 1000:
        return f"{size_bytes} B"
    return f"{size_bytes / 1000:.1f} kB" if size_bytes < 1_000_000 else f"{size_bytes / 1_000_000:.1f} MB"


def _show_time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00") + " UTC"

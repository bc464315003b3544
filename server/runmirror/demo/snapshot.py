"""What one reader saw of a run: the shape in which the two sides of the mirror are compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a metric; a reader that is told values only leaves step and time out."""

    value: float
    step: int | None = None
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class File:
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run as read. What the reader has no way to ask for is None: it is neither compared nor shown."""

    status: str
    metrics: Mapping[str, tuple[Point, ...]]
    tags: Mapping[str, str]
    files: Mapping[str, File]
    params: Mapping[str, str] | None = None
    name: str | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None


def read_snapshot(document: Mapping[str, Any]) -> Snapshot:
    """The snapshot a reader script has printed: points are `[value, step, timestamp_ms]` or `[value]`."""
    metrics = {key: tuple(Point(*point) for point in points) for key, points in document["metrics"].items()}
    files = {path: File(*file) for path, file in document["files"].items()}
    return Snapshot(**{**document, "metrics": metrics, "files": files})

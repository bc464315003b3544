"""A metric's points as one sum that does not depend on their order, so that a million of them need no memory."""

import hashlib
import math
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

from runmirror.entities import Metric

Point = tuple[int, int, bytes]
SHOWN = 20
_MASK = 2**64 - 1


def point_of(metric: Metric) -> Point:
    """Step, time and value, so that NaN equals NaN (whatever its bits) and 0 equals -0, as in Postgres."""
    value = math.nan if math.isnan(metric.value) else metric.value + 0.0
    return metric.step, metric.timestamp_ms, struct.pack("<d", value)


@dataclass(slots=True)
class Series:
    """How many points, their sum, the last one, and a checksum to which every point adds."""

    count: int = 0
    total: float = 0.0
    last: Metric | None = None
    checksum: int = 0

    def add(self, metric: Metric) -> None:
        self.count += 1
        self.total += metric.value
        self.checksum = (self.checksum + _checksum(point_of(metric))) & _MASK
        if self.last is None or _order(metric) > _order(self.last):
            self.last = metric

    def is_made_of(self, *others: "Series") -> bool:
        """Whether the others together are the same points."""
        count = sum(other.count for other in others)
        return self.count == count and self.checksum == sum(other.checksum for other in others) & _MASK

    def as_json(self) -> dict[str, Any]:
        last = None if self.last is None else _number(self.last.value)
        return {"count": self.count, "sum": _number(self.total), "last": last}


def shown(points: Counter[Point]) -> dict[str, Any]:
    """How many, and the first of them."""
    first = sorted(points.elements(), key=lambda point: point[:2])[:SHOWN]
    return {
        "count": points.total(),
        "first": [
            {"step": step, "timestamp": at_ms, "value": _number(struct.unpack("<d", value)[0])}
            for step, at_ms, value in first
        ],
    }


def _checksum(point: Point) -> int:
    """Not `hash`, to which -1 and -2 are the same."""
    step, at_ms, value = point
    digest = hashlib.blake2b(b"%d %d %b" % (step, at_ms, value), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _order(metric: Metric) -> tuple[int, int, bool, float]:
    is_nan = math.isnan(metric.value)
    return metric.step, metric.timestamp_ms, is_nan, 0.0 if is_nan else metric.value


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinities."""
    return value if math.isfinite(value) else str(value).replace("inf", "Infinity").replace("nan", "NaN")

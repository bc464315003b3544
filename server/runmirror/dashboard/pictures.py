"""Bars for the pictures: numbers in, rectangles out."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 600, 100
_GAP = 2
_LEAST = 1.5  # what is more than nothing is seen


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle that stands on the ground line; `absent`: nobody knows the value, which is not zero."""

    x: float
    y: float
    width: float
    height: float
    absent: bool = False


def bars(values: Sequence[float | None]) -> list[Bar]:
    """One bar for every value, the greatest as high as the picture."""
    step = WIDTH / max(len(values), 1)
    greatest = max((value for value in values if value is not None), default=0.0)
    return [_bar(round(place * step, 2), step - _GAP, value, greatest) for place, value in enumerate(values)]


def _bar(x: float, width: float, value: float | None, greatest: float) -> Bar:
    width = round(width, 2)
    if value is None:
        return Bar(x, 0, width, HEIGHT, absent=True)
    height = round(max(HEIGHT * value / greatest, _LEAST), 2) if value > 0 else 0
    return Bar(x, HEIGHT - height, width, height)

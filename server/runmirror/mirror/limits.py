"""How much the target holds: the settings' numbers, tightened by what it was heard to refuse."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from runmirror.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one run unless the name says otherwise; lengths are counted as .NET counts them, see `length`."""

    params: int
    param_key: int
    param_value: int
    tags: int
    tag_key: int
    tag_value: int
    metrics: int  # names
    metric_key: int
    points: int  # of one metric
    inputs: int
    run_name: int
    experiment_name: int
    metrics_per_request: int
    params_per_request: int
    tags_per_request: int

    @classmethod
    def of(cls, settings: Settings, learned: Mapping[str, int] | None = None) -> Self:
        known = learned or {}
        values = {}
        for name in (field.name for field in fields(cls)):
            set_to = getattr(settings, f"mirror_{name}" if name.endswith("_per_request") else f"mirror_limit_{name}")
            values[name] = max(1, min(set_to, known.get(name, set_to)))
        return cls(**values)

    def is_tightened_by(self, name: str, value: int) -> bool:
        """Whether a limit that the target names is news."""
        return bool(max(1, value) < getattr(self, name))


def length(text: str) -> int:
    """In UTF-16 units: Azure ML is written in .NET."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def cut(text: str, most: int) -> str:
    """The longest beginning that is no longer than `most`."""
    while length(text) > most:
        text = text[: -max(1, (length(text) - most) // 2)]
    return text

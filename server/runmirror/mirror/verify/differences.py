"""What a comparison finds, in words that programs and people can read."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Json = dict[str, Any]


class Kind(StrEnum):
    RUN = "run"
    EXPERIMENT = "experiment"
    STATUS = "status"
    NAME = "name"
    END_TIME = "end_time"
    STAGE = "stage"
    PARAM = "param"
    TAG = "tag"
    METRIC = "metric"
    DATASET = "dataset"
    FILE = "file"


STATE = frozenset({Kind.STATUS, Kind.NAME, Kind.END_TIME, Kind.STAGE})


class Change(StrEnum):
    """Seen from the source: the workspace lacks it, has it otherwise, or has what the source does not."""

    MISSING = "missing"
    DIFFERS = "differs"
    SURPLUS = "surplus"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same on both sides.

    `from_seq`: sending everything from that write on again puts it right; None: nothing that we send does, unless it
    is a matter of the overflow file (`in_overflow`), which is made anew whatever it says.
    """

    kind: Kind
    name: str
    change: Change
    source: Any = None
    target: Any = None
    from_seq: int | None = None
    in_overflow: bool = False

    @property
    def place(self) -> tuple[Kind, str, Change, bool]:
        return self.kind, self.name, self.change, self.in_overflow

    @property
    def is_repairable(self) -> bool:
        return self.in_overflow or self.from_seq is not None

    def as_json(self) -> Json:
        return {
            "kind": self.kind.value,
            "name": self.name,
            "change": self.change.value,
            "where": "overflow" if self.in_overflow else "run",
            "source": self.source,
            "target": self.target,
            "repairable": self.is_repairable,
        }

    def __str__(self) -> str:
        subject = f"{self.kind} {self.name!r}" if self.name else self.kind.value
        if self.in_overflow:
            subject = f"overflow file: {subject}"
        match self.change, self.source, self.target:
            case Change.MISSING, {"points": {"count": lacking}, "count": all_of_them}, _:
                return f"{subject} lacks {lacking} of {all_of_them} points"
            case Change.SURPLUS, _, {"points": {"count": extra}}:
                return f"{subject} has {extra} points in the workspace that are not here, or twice"
            case Change.MISSING, None, _:
                return f"{subject} is missing"
            case Change.MISSING, source, _:
                return f"{subject} is missing ({_show(source)})"
            case Change.SURPLUS, _, target:
                return f"{subject} is only in the workspace" + (f" ({_show(target)})" if target is not None else "")
        return f"{subject} differs: {_show(self.source)} here, {_show(self.target)} in the workspace"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_show(part)}" for name, part in value.items() if not isinstance(part, list))
    text = shown_text(str(value))
    return text if len(text) <= 60 else f"{text[:60]}…"


def shown_text(text: str) -> str:
    """What stands in the workspace anybody may have put there: a terminal is told no more than letters."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

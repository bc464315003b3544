"""What an import did and found: for people, and a JSON object a line for programs."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_MOST_SHOWN = 20

Tell = Callable[[str], None]


@dataclass(slots=True)
class Report:
    """Problems are told as they are found, and only counted after that: there may be very many."""

    tell: Tell
    as_json: bool = False
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    refused: int = 0
    differences: int = 0

    def count(self, phase: str, **numbers: int) -> None:
        of_phase = self.counts.setdefault(phase, {})
        for name, number in numbers.items():
            of_phase[name] = of_phase.get(name, 0) + number

    def refuse(self, kind: str, key: str, why: str) -> None:
        """Something that was not brought, and why."""
        self.refused += 1
        self._problem("refused", self.refused, {"kind": kind, "id": key, "reason": why}, f"{kind} {key}: {why}")

    def differ(self, kind: str, key: str, what: str, *, there: object, here: object) -> None:
        """Something that is not here as it is there."""
        self.differences += 1
        told = {"kind": kind, "id": key, "what": what, "source": there, "here": here}
        text = f"{kind} {key}: {what}: {_short(there)} at the source, {_short(here)} here"
        self._problem("different", self.differences, told, text)

    @property
    def agrees(self) -> bool:
        return not self.refused and not self.differences

    def end(self, source: str) -> None:
        summary: dict[str, Any] = {
            "event": "summary", "source": source, "counts": self.counts, "refused": self.refused,
            "differences": self.differences, "agrees": self.agrees,
        }  # fmt: skip
        if self.as_json:
            self.tell(json.dumps(summary))
            return
        for phase, numbers in self.counts.items():
            shown = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in numbers.items() if number)
            self.tell(f"{phase:<18} {shown or 'none'}")
        if self.agrees:
            self.tell("everything that was compared agrees" if "compared" in self.counts else "nothing was refused")
        else:
            self.tell(f"{self.refused:,} refused, {self.differences:,} differences")

    def _problem(self, event: str, number: int, told: dict[str, Any], text: str) -> None:
        if self.as_json:
            self.tell(json.dumps({"event": event, **told}, default=str))
        elif number <= _MOST_SHOWN:
            self.tell(f"{event}: {text}")
        elif number == _MOST_SHOWN + 1:
            self.tell(f"{event}: more; --json tells all of them")


def _short(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "…"

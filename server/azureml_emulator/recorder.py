"""What was asked of the emulator, without anything secret."""

import itertools
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

KEPT = 100_000


@dataclass
class Recorded:
    """One request: unknown marks a route that the emulator does not have."""

    number: int
    host: str
    method: str
    path: str
    query: str = ""
    user_agent: str = ""
    status: int | None = None
    unknown: bool = False
    refused: bool = False
    fault: str | None = None
    bytes: int = 0  # of the body, as far as it was read
    at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Effect:
    """Something that a request changed in a run."""

    run_id: str
    kind: str
    what: Any


class Recorder:
    """The latest requests, oldest first, and what they changed in runs, in the order in which that took effect."""

    def __init__(self) -> None:
        self._effects: deque[Effect] = deque(maxlen=KEPT)
        self._requests: deque[Recorded] = deque(maxlen=KEPT)
        self._numbers = itertools.count(1)

    def add(self, host: str, method: str, path: str, *, query: str = "", user_agent: str = "") -> Recorded:
        request = Recorded(next(self._numbers), host, method, path, query=query, user_agent=user_agent)
        self._requests.append(request)
        return request

    def changed(self, run_id: str, kind: str, what: Any) -> None:
        self._effects.append(Effect(run_id, kind, what))

    def effects_as_json(self) -> list[dict[str, Any]]:
        return [asdict(effect) for effect in self._effects]

    def clear(self) -> None:
        self._requests.clear()
        self._effects.clear()

    def as_json(self, *, unknown: bool = False, refused: bool = False) -> list[dict[str, Any]]:
        return [
            asdict(request)
            for request in self._requests
            if (not unknown or request.unknown) and (not refused or request.refused)
        ]

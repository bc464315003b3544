"""Faults on request: rules that spoil matching requests on any emulated host."""

import fnmatch
import itertools
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from azureml_emulator.errors import InvalidParameter, NotFound

KINDS = ("status", "reset_before", "reset_after", "hang", "hang_after", "truncate", "drip")


@dataclass(frozen=True)
class Match:
    """Which requests: host as a glob, method, path as a regular expression found anywhere in it."""

    host: str = "*"
    method: str = "*"
    path: str = ""

    def fits(self, host: str, method: str, path: str) -> bool:
        return (
            fnmatch.fnmatchcase(host, self.host.lower())
            and fnmatch.fnmatchcase(method, self.method.upper())
            and re.search(self.path, path) is not None
        )


@dataclass
class Fault:
    """One rule: skip the first matches, then act on a number of them (-1: on all)."""

    id: str
    match: Match
    kind: str
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    seconds: float = 60
    times: int = 1
    skip: int = 0
    hits: int = 0

    def takes(self) -> bool:
        """Count a matching request and say whether it is spoilt."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times == 0:
            return False
        self.times -= self.times > 0
        self.hits += 1
        return True


class Faults:
    """The rules in the order they came; the first that takes a request wins."""

    def __init__(self) -> None:
        self._rules: dict[str, Fault] = {}
        self._numbers = itertools.count(1)

    def add(self, wanted: dict[str, Any]) -> Fault:
        wanted = dict(wanted)
        match = wanted.pop("match", {})
        if wanted.get("kind") not in KINDS:
            raise InvalidParameter(f"'kind' must be one of {', '.join(KINDS)}")
        try:
            re.compile(match.get("path", ""))
            fault = Fault(id=f"fault-{next(self._numbers)}", match=Match(**match), **wanted)
        except (TypeError, AttributeError, re.error) as error:
            raise InvalidParameter(f"Not a fault: {error}") from None
        self._rules[fault.id] = fault
        return fault

    def remove(self, fault_id: str) -> None:
        if self._rules.pop(fault_id, None) is None:
            raise NotFound(f"No fault {fault_id}")

    def clear(self) -> None:
        self._rules.clear()

    def take(self, host: str, method: str, path: str) -> Fault | None:
        """Find the rule that spoils this request, if any."""
        matching = (f for f in self._rules.values() if f.match.fits(host, method, path))
        return next((fault for fault in matching if fault.takes()), None)

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._rules.values()]

"""How long clients are told to wait while the database is away.

MLflow's client repeats a call seven times and waits as long as it is told to. Told two seconds each time, it gives up
after a quarter of a minute; told to wait as long as the outage has lasted so far, it outlives a minute and a half.
"""

import time
from collections.abc import Callable

_LEAST_S = 2
_MOST_S = 30


class Outage:
    """Of one process, as its requests notice it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: float | None = None

    def wait_s(self) -> int:
        """What to tell somebody who could not be connected."""
        if self._since is None:
            self._since = self._now()
        return min(max(round(self._now() - self._since), _LEAST_S), _MOST_S)

    def over(self) -> None:
        """Somebody was connected."""
        self._since = None

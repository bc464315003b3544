"""How fast one workspace is asked: as fast as it goes until it throttles, then half as fast, then faster bit by bit."""

import asyncio
import logging

from runmirror.mirror.keeper import clock_s

log = logging.getLogger(__name__)

_SLOWEST = 5.0  # requests a second
_FASTER_BY = 5.0  # requests a second, every second
_WINDOW_S = 1.0


class Pace:
    """Additive increase, multiplicative decrease, for all requests of a worker to one workspace.

    Throttled answers within a second are one: they were asked at the same pace.
    """

    def __init__(self) -> None:
        self.per_second: float | None = None  # None: never throttled so far
        self._free_at = float("-inf")  # when the next request may leave
        self._changed_at = float("-inf")
        self._window_at = float("-inf")
        self._in_window = 0
        self._measured = 0.0

    async def turn(self) -> None:
        """Wait until a request may leave."""
        now = clock_s()
        self._count(now)
        if self.per_second is None:
            return
        leaves_at = max(now, self._free_at)
        self._free_at = leaves_at + 1 / self.per_second
        if leaves_at > now:
            await asyncio.sleep(leaves_at - now)

    def heard(self, status: int) -> None:
        """An answer came, with that status."""
        now = clock_s()
        if status == 429:
            if now - self._changed_at < _WINDOW_S and self.per_second is not None:
                return
            asked = max(self._measured, self._in_window)
            was = asked if self.per_second is None else min(self.per_second, max(asked, _SLOWEST))
            self.per_second = max(was / 2, _SLOWEST)
            self._changed_at = now
            log.warning("the workspace throttles: %.1f requests a second from now on", self.per_second)
        elif self.per_second is not None and now > self._changed_at:
            self.per_second += _FASTER_BY * min(now - self._changed_at, _WINDOW_S)
            self._changed_at = now

    def _count(self, now: float) -> None:
        """Measure how fast is asked, a second at a time."""
        if now - self._window_at >= _WINDOW_S:
            self._measured = self._in_window if now - self._window_at < 2 * _WINDOW_S else 0
            self._window_at, self._in_window = now, 0
        self._in_window += 1

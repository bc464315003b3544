"""What one worker knows of the workspace's health: failures in a row, and until when nothing is tried."""

from datetime import timedelta

from runmirror.mirror.keeper import clock_s


class Outage:
    """Times are those of `clock_s`."""

    def __init__(self) -> None:
        self.failures = 0
        self._paused_until = float("-inf")
        self._began_at = float("-inf")

    def __bool__(self) -> bool:
        return self.failures > 0

    @property
    def pause_s(self) -> float:
        """How long to wait before the next attempt."""
        return max(self._paused_until - clock_s(), 0.0)

    def failed(self, wait: timedelta) -> bool:
        """Pause for `wait`; False when a pause is under way: several runs meet the same outage."""
        if self.pause_s > 0:
            return False
        self.failures += 1
        self._began_at = clock_s()
        self._paused_until = self._began_at + wait.total_seconds()
        return True

    def answered(self, asked_at: float) -> bool:
        """The workspace answered something asked at `asked_at`: True when that ends an outage."""
        if not self.failures or asked_at < self._began_at:
            return False
        self.failures = 0
        self._paused_until = float("-inf")
        return True

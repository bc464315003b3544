"""What each worker sent in each minute: the status page adds it up.

A worker keeps count and writes about once a second: one row that every run of a worker changes would make them wait for
each other's commits. What was not written when it dies is missing from the status page, and nowhere else.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.keeper import clock_s

_WRITE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Sent:
    """Metric points, bytes of files, and runs that became current."""

    points: int = 0
    bytes: int = 0
    runs: int = 0


class Tally:
    """What was sent and is not written yet; times are those of `clock_s`."""

    def __init__(self) -> None:
        self._sent = Sent()
        self._taken_at = float("-inf")

    def add(self, sent: Sent) -> None:
        """The target has it, and the queue says so."""
        before = self._sent
        self._sent = Sent(before.points + sent.points, before.bytes + sent.bytes, before.runs + sent.runs)

    def take(self, *, at_once: bool = False) -> Sent | None:
        """What is to be written now, if anything is."""
        if self._sent == Sent() or not (at_once or clock_s() - self._taken_at >= _WRITE_EVERY_S):
            return None
        taken, self._sent, self._taken_at = self._sent, Sent(), clock_s()
        return taken


_RECORD = text("""
    INSERT INTO mirror_throughput AS minute (minute, worker_id, runs, points, bytes)
    VALUES (date_trunc('minute', now()), :worker_id, :runs, :points, :bytes)
    ON CONFLICT (minute, worker_id) DO UPDATE SET
        runs = minute.runs + excluded.runs, points = minute.points + excluded.points,
        bytes = minute.bytes + excluded.bytes
""")

_FORGET = text("DELETE FROM mirror_throughput WHERE minute < now() - interval '1 day'")


async def record(connection: AsyncConnection, worker_id: UUID, sent: Sent) -> None:
    """Add to this minute."""
    values = {"worker_id": worker_id, "runs": sent.runs, "points": sent.points, "bytes": sent.bytes}
    await connection.execute(_RECORD, values)


async def forget_old(connection: AsyncConnection) -> None:
    """Keep a day."""
    await connection.execute(_FORGET)

"""What each worker did in each minute: the status, the dashboard and /metrics add it up.

A worker keeps count and writes about once a second: one row that every run of a worker changes would make them wait for
each other's commits. What was not written when it dies is missing from these numbers, and nowhere else.
"""

from dataclasses import asdict, dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.keeper import clock_s

_WRITE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Sent:
    """Metric points, bytes of files, runs that became current; params, names and the like that overflowed."""

    points: int = 0
    bytes: int = 0
    runs: int = 0
    overflowed: int = 0


class Tally:
    """What was sent and is not written yet; times are those of `clock_s`."""

    def __init__(self) -> None:
        self._sent = Sent()
        self._taken_at = float("-inf")

    def add(self, sent: Sent) -> None:
        """The target has it, and the queue says so."""
        before = self._sent
        self._sent = Sent(
            before.points + sent.points, before.bytes + sent.bytes, before.runs + sent.runs,
            before.overflowed + sent.overflowed,
        )  # fmt: skip

    def take(self, *, at_once: bool = False) -> Sent | None:
        """What is to be written now, if anything is."""
        if self._sent == Sent() or not (at_once or clock_s() - self._taken_at >= _WRITE_EVERY_S):
            return None
        taken, self._sent, self._taken_at = self._sent, Sent(), clock_s()
        return taken


_RECORD = text("""
    INSERT INTO mirror_throughput AS minute (minute, worker_id, runs, points, bytes, overflowed)
    VALUES (date_trunc('minute', now()), :worker_id, :runs, :points, :bytes, :overflowed)
    ON CONFLICT (minute, worker_id) DO UPDATE SET
        runs = minute.runs + excluded.runs, points = minute.points + excluded.points,
        bytes = minute.bytes + excluded.bytes, overflowed = minute.overflowed + excluded.overflowed
""")

_RECORD_SETBACK = text("""
    INSERT INTO mirror_throughput AS minute (minute, worker_id, throttles, outages)
    VALUES (date_trunc('minute', now()), :worker_id, :throttles, :outages)
    ON CONFLICT (minute, worker_id) DO UPDATE SET
        throttles = minute.throttles + excluded.throttles, outages = minute.outages + excluded.outages
""")

# What is forgotten by the minute is kept as a sum, so that totals never go back: the row of the year 1970.
_FORGET = text("""
    WITH old AS (
        DELETE FROM mirror_throughput
        WHERE minute < now() - interval '1 day' AND minute > to_timestamp(0)
        RETURNING runs, points, bytes, overflowed, throttles, outages)
    INSERT INTO mirror_throughput AS total (minute, worker_id, runs, points, bytes, overflowed, throttles, outages)
    SELECT to_timestamp(0), '00000000-0000-0000-0000-000000000000',
        sum(runs), sum(points), sum(bytes), sum(overflowed), sum(throttles), sum(outages)
    FROM old HAVING count(*) > 0
    ON CONFLICT (minute, worker_id) DO UPDATE SET
        runs = total.runs + excluded.runs, points = total.points + excluded.points,
        bytes = total.bytes + excluded.bytes, overflowed = total.overflowed + excluded.overflowed,
        throttles = total.throttles + excluded.throttles, outages = total.outages + excluded.outages
""")


async def record(connection: AsyncConnection, worker_id: UUID, sent: Sent) -> None:
    """Add to this minute."""
    await connection.execute(_RECORD, {"worker_id": worker_id, **asdict(sent)})


async def record_setback(connection: AsyncConnection, worker_id: UUID, *, throttled: bool) -> None:
    """An attempt came to nothing through no fault of its run: the workspace throttled it, or could not be used."""
    values = {"worker_id": worker_id, "throttles": int(throttled), "outages": int(not throttled)}
    await connection.execute(_RECORD_SETBACK, values)


async def forget_old(connection: AsyncConnection) -> None:
    """Keep a day by the minute, and what came before as one sum."""
    await connection.execute(_FORGET)

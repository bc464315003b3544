"""What each worker did in each minute: the status, the dashboard and /metrics add it up."""

from dataclasses import asdict, dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Sent:
    """Metric points, bytes of files, runs that became current; params, names and the like that overflowed."""

    points: int = 0
    bytes: int = 0
    runs: int = 0
    overflowed: int = 0


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
    """Add to this minute, in the transaction that says the target has it."""
    await connection.execute(_RECORD, {"worker_id": worker_id, **asdict(sent)})


async def record_setback(connection: AsyncConnection, worker_id: UUID, *, throttled: bool) -> None:
    """An attempt came to nothing through no fault of its run: the workspace throttled it, or could not be used."""
    values = {"worker_id": worker_id, "throttles": int(throttled), "outages": int(not throttled)}
    await connection.execute(_RECORD_SETBACK, values)


async def forget_old(connection: AsyncConnection) -> None:
    """Keep a day by the minute, and what came before as one sum."""
    await connection.execute(_FORGET)

"""What each worker sent in each minute: the status page adds it up."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Sent:
    """Metric points, bytes of files, and runs that became current."""

    points: int = 0
    bytes: int = 0
    runs: int = 0


_RECORD = text("""
    INSERT INTO mirror_throughput AS minute (minute, worker_id, runs, points, bytes)
    VALUES (date_trunc('minute', now()), :worker_id, :runs, :points, :bytes)
    ON CONFLICT (minute, worker_id) DO UPDATE SET
        runs = minute.runs + excluded.runs, points = minute.points + excluded.points,
        bytes = minute.bytes + excluded.bytes
""")

_FORGET = text("DELETE FROM mirror_throughput WHERE minute < now() - interval '1 day'")


async def record(connection: AsyncConnection, worker_id: UUID, sent: Sent) -> None:
    """Add to this minute, in the transaction that says the target has it."""
    values = {"worker_id": worker_id, "runs": sent.runs, "points": sent.points, "bytes": sent.bytes}
    await connection.execute(_RECORD, values)


async def forget_old(connection: AsyncConnection) -> None:
    """Keep a day."""
    await connection.execute(_FORGET)

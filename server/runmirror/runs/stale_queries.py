"""SQL of runs that say they are running though nobody writes to them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ARRAY, Interval, Uuid, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_ONE_AT_A_TIME = text("SELECT pg_try_advisory_xact_lock(hashtext('runmirror stale runs'))")

# The job that a run was born in ends it: those of Azure ML are left alone.
_RUNNING = "r.status = 'RUNNING' AND r.lifecycle_stage = 'active' AND r.azure_run_id IS NULL"

# A write to a run raises its seq, so when it was last written to need not be kept with every write.
_LOOK = text(f"""
    INSERT INTO idle_runs AS seen (run_id, seq, since)
    SELECT r.run_id, r.seq, now() FROM runs r
    WHERE {_RUNNING} AND NOT EXISTS (SELECT FROM idle_runs w WHERE w.run_id = r.run_id AND w.seq = r.seq)
    ON CONFLICT (run_id) DO UPDATE SET seq = excluded.seq, since = excluded.since
""")
_FORGET = text(f"""
    DELETE FROM idle_runs w WHERE NOT EXISTS (SELECT FROM runs r WHERE r.run_id = w.run_id AND {_RUNNING})
""")

# While one of its children runs, a parent waits for it. A run was last alive when it was last seen to be written to.
_END = text(f"""
    WITH stale AS (
        SELECT r.run_id, w.since FROM idle_runs w JOIN runs r USING (run_id)
        WHERE w.since <= now() - :after AND r.seq = w.seq AND {_RUNNING}
          AND NOT EXISTS (
            SELECT FROM tags t JOIN runs child ON child.run_id = t.run_id
            WHERE t.key = 'mlflow.parentRunId' AND length(t.value) <= 250
              AND t.value = encode(uuid_send(r.run_id), 'hex')
              AND child.status = 'RUNNING' AND child.lifecycle_stage = 'active')
        ORDER BY w.since LIMIT :most FOR NO KEY UPDATE OF r SKIP LOCKED)
    UPDATE runs r SET
        status = :status, seq = r.seq + 1, info_seq = r.seq + 1,
        end_time_ms = greatest((extract(epoch FROM stale.since) * 1000)::bigint, r.start_time_ms)
    FROM stale WHERE r.run_id = stale.run_id
    RETURNING r.run_id, r.seq, stale.since
""").bindparams(bindparam("after", type_=Interval))

_MARK_BEHIND = text("SELECT runmirror_mark_behind_1(:run_ids)").bindparams(bindparam("run_ids", type_=ARRAY(Uuid)))

_TAG = text("""
    INSERT INTO tags (run_id, key, value, seq)
    SELECT run_id, :key, value, seq
    FROM unnest(CAST(:run_ids AS uuid[]), CAST(:values AS text[]), CAST(:seqs AS integer[])) AS new (run_id, value, seq)
    ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value, seq = excluded.seq
""")


async def look(connection: AsyncConnection) -> bool:
    """Note which running runs were written to since the last look; False: another worker does."""
    if not await connection.scalar(_ONE_AT_A_TIME):
        return False
    await connection.execute(_LOOK)
    await connection.execute(_FORGET)
    return True


async def end(connection: AsyncConnection, *, after: timedelta, status: str, most: int) -> Sequence[Row[Any]]:
    """`(run_id, seq, since)` of runs that are ended by this, in one statement for all of them; they are locked."""
    return (await connection.execute(_END, {"after": after, "status": status, "most": most})).all()


async def tell(connection: AsyncConnection, ended: Sequence[Row[Any]], key: str, values: Sequence[str]) -> None:
    """Have the mirror hear of it, and each run say why."""
    run_ids = [row.run_id for row in ended]
    await connection.execute(_MARK_BEHIND, {"run_ids": run_ids})
    seqs = [row.seq for row in ended]
    await connection.execute(_TAG, {"run_ids": run_ids, "key": key, "values": list(values), "seqs": seqs})

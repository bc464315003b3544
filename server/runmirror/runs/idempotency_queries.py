"""SQL of the keys under which runs are created."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_CLAIM = text("""
    INSERT INTO run_keys (experiment_id, key, run_id) VALUES (:experiment_id, :key, :run_id)
    ON CONFLICT (experiment_id, key) DO NOTHING RETURNING run_id
""")
_HOLDER = text("SELECT run_id FROM run_keys WHERE experiment_id = :experiment_id AND key = :key")


async def claim(connection: AsyncConnection, experiment_id: int, key: str, run_id: UUID) -> UUID:
    """The run that has the key: this one, or the one that had it already.

    The insertion waits for another one of the same key; what that one committed is seen by the next statement. When it
    rolled back, the insertion succeeds.
    """
    values = {"experiment_id": experiment_id, "key": key, "run_id": run_id}
    if await connection.scalar(_CLAIM, values) is not None:
        return run_id
    holder: UUID = (await connection.execute(_HOLDER, values)).scalar_one()
    return holder

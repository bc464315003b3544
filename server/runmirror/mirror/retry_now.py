"""Somebody asks for a run to be tried again at once, quarantined or waiting after a failure."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror import quarantine
from runmirror.mirror.own_tags import STATUS_TAG
from runmirror.mirror.quarantine import Choice
from runmirror.mirror.queue import CHANNEL

_LOCK = text("SELECT FROM runs WHERE run_id = :run_id FOR NO KEY UPDATE")

# What is leased is being tried already, what is current has nothing to try, and what is set aside is replayed.
_RETRY = text(f"""
    WITH due AS (
        UPDATE mirrors SET due_at = now(), attempt = 0, waiting = false
        WHERE run_id = :run_id AND state = 'due'
        RETURNING run_id),
    shown AS (
        UPDATE tags SET value = 'pending' FROM due
        WHERE tags.run_id = due.run_id AND tags.key = '{STATUS_TAG}' AND tags.seq = 0)
    SELECT pg_notify('{CHANNEL}', '') FROM due
""")  # noqa: S608 - constants of ours


async def retry_now(connection: AsyncConnection, run_id: UUID) -> bool:
    """Make the run due now, with all its attempts before it; False when there was nothing to do."""
    await connection.execute(_LOCK, {"run_id": run_id})
    if await quarantine.replay(connection, Choice([run_id])):
        return True
    return (await connection.execute(_RETRY, {"run_id": run_id})).one_or_none() is not None

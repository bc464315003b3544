"""A worker's sign of life, and with it a sample of how far behind the mirror is: the dashboard shows both."""

import asyncio
import logging
import os
import platform
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror import __version__
from runmirror.db import DATABASE_ERRORS

log = logging.getLogger(__name__)

EVERY_S = 10.0

# Whatever is behind, quarantined runs too, is found by the index on behind_since. What no route leads anywhere, where
# there are workspaces, is nobody's delay.
BEHIND = """behind_since IS NOT NULL
    AND (link_id IS NOT NULL OR unrouted IS NOT NULL OR NOT EXISTS (SELECT FROM mirror_links))"""

_BEAT = text("""
    INSERT INTO mirror_workers AS worker (worker_id, name, version) VALUES (:worker_id, :name, :version)
    ON CONFLICT (worker_id) DO UPDATE SET seen_at = now()
""")

# Several workers and several samples share a minute: the worst is kept.
_SAMPLE = text(f"""
    INSERT INTO mirror_lag AS worst (minute, lag_s)
    SELECT date_trunc('minute', now()), COALESCE(extract(epoch FROM now() - min(behind_since)), 0)
    FROM mirrors WHERE {BEHIND} AND state <> 'quarantined'
    ON CONFLICT (minute) DO UPDATE SET lag_s = GREATEST(worst.lag_s, excluded.lag_s)
""")  # noqa: S608 - a constant of ours

_STOPPED = text("DELETE FROM mirror_workers WHERE worker_id = :worker_id")

_FORGET_WORKERS = text("DELETE FROM mirror_workers WHERE seen_at < now() - interval '1 day'")
_FORGET_LAG = text("DELETE FROM mirror_lag WHERE minute < now() - interval '1 day'")


async def pulse(engine: AsyncEngine, worker_id: UUID, alive: Path | None = None) -> None:
    """Beat until cancelled. The file `alive` is touched while Postgres is away too: a restart would not help that."""
    while True:
        if alive is not None:
            _touch(alive)
        try:
            async with engine.begin() as connection:
                await beat(connection, worker_id)
        except DATABASE_ERRORS as error:
            log.warning("no sign of life left: %s", type(error).__name__)
        await asyncio.sleep(EVERY_S)


def _touch(alive: Path) -> None:
    try:
        alive.touch()
    except OSError as error:
        log.warning("no sign of life left: %s", error)


async def beat(connection: AsyncConnection, worker_id: UUID) -> None:
    """One sign of life with its sample."""
    name = f"{platform.node()}:{os.getpid()}"
    await connection.execute(_BEAT, {"worker_id": worker_id, "name": name, "version": __version__})
    await connection.execute(_SAMPLE)


async def take_leave(engine: AsyncEngine, worker_id: UUID) -> None:
    """The worker has stopped, and has not vanished; when Postgres is away nobody waits to say so."""
    with suppress(*DATABASE_ERRORS, TimeoutError):
        async with asyncio.timeout(2), engine.begin() as connection:
            await connection.execute(_STOPPED, {"worker_id": worker_id})


async def forget_old(connection: AsyncConnection) -> None:
    """Keep a day."""
    await connection.execute(_FORGET_WORKERS)
    await connection.execute(_FORGET_LAG)

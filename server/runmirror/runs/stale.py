"""Ends runs that say they are running though nobody has written to them for long: their process was killed, perhaps.

The worker looks now and then which running runs were written to, by the seq that every write raises: a run that was
written to while no worker was there to see is known by its seq all the same. Off unless RUNMIRROR_STALE_RUN_AFTER says
after how long.
"""

import asyncio
import logging
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror import audit
from runmirror.db import DATABASE_ERRORS
from runmirror.runs import stale_queries as queries
from runmirror.settings import Settings

log = logging.getLogger(__name__)

TAG = "ended_by_runmirror"  # a tag like any other, so that it stands in the workspace too
_BATCH = 25  # as many ids as one line of the audit log holds
_LOOKS = 20
_LONGEST_PAUSE_S = 600.0


async def end_stale_runs(engine: AsyncEngine, *, after: timedelta, status: str) -> int:
    """One look; how many runs were ended, each batch in a transaction of its own."""
    async with engine.begin() as connection:
        if not await queries.look(connection):
            return 0
    total = 0
    while True:
        async with engine.begin() as connection:
            ended = await queries.end(connection, after=after, status=status, most=_BATCH)
            if ended:
                why = "no write since {:%Y-%m-%d %H:%M:%S} UTC (RUNMIRROR_STALE_RUN_AFTER)"
                await queries.tell(connection, ended, TAG, [why.format(row.since) for row in ended])
                await audit.record(connection, "run.end_stale", " ".join(row.run_id.hex for row in ended))
        total += len(ended)
        if len(ended) < _BATCH:
            return total


async def now_and_then(settings: Settings, engine: AsyncEngine) -> None:
    """Until cancelled; at once if it is off."""
    after = settings.stale_run_after
    if not after:
        return
    while True:
        try:
            ended = await end_stale_runs(engine, after=after, status=settings.stale_run_status)
            if ended:
                log.info("ended %s runs to which nothing was written for %s", ended, after)
        except DATABASE_ERRORS as error:
            log.warning("no look for stale runs: %s", type(error).__name__)
        await asyncio.sleep(min(after.total_seconds() / _LOOKS, _LONGEST_PAUSE_S))

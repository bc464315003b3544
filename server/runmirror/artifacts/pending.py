"""Files that clients put into the store by themselves are found there and recorded, so that the mirror copies them.

URL given out ──5 s──▶ look ──10 s──▶ look ──20 s──▶ … ──▶ last look, a day after the URL ended ──▶ forgotten
"""

import asyncio
import logging
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from runmirror.artifacts import pending_queries, queries
from runmirror.artifacts.pending_queries import Pending
from runmirror.artifacts.places import Place
from runmirror.artifacts.service import Artifacts
from runmirror.errors import RunmirrorError, RunNotFound

log = logging.getLogger(__name__)

_AT_ONCE = 20


async def watch(artifacts: Artifacts, every: timedelta) -> None:
    """Look for what is due, for ever; nothing that goes wrong ends it."""
    while True:
        try:
            while await check(artifacts) == _AT_ONCE:
                pass
        except (SQLAlchemyError, OSError) as error:
            log.warning("Postgres cannot be reached: %s", type(error).__name__)
        except Exception:
            log.exception("pending uploads could not be checked")
        await asyncio.sleep(every.total_seconds())


async def check(artifacts: Artifacts) -> int:
    """Look at some files that are due, and say how many there were."""
    async with artifacts.writing() as connection:
        due = await pending_queries.claim(connection, _AT_ONCE)
    for pending in due:
        try:
            await _compare(artifacts, pending)
        except RunmirrorError as error:
            log.warning("upload of run %s is looked for later: %s", pending.run_id.hex, error.message)
            continue
        if pending.is_last:
            async with artifacts.writing() as connection:
                await pending_queries.remove(connection, pending)
    return len(due)


async def _compare(artifacts: Artifacts, pending: Pending) -> None:
    async with artifacts.reading() as connection:
        roots = await queries.roots(connection, [pending.run_id], [pending.model_id])
    for root in roots:
        if (root.run_id, root.model_id) == (pending.run_id, pending.model_id):
            try:
                await artifacts.compare(Place(root, pending.path))
            except RunNotFound:
                return  # deleted for good meanwhile

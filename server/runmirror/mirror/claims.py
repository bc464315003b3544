"""Taking runs from the queue that `runmirror.mirror.queue` describes: whose turn it is, and when the next is."""

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.queue import NEVER_HELD, Lease

_LEASED = """
    state = 'leased', waiting = false, lease_token = gen_random_uuid(),
    lease_expires_at = now() + CAST(:ttl AS interval)
"""
_LEASE = """
    mirrors.run_id, lease_token, watermark, info_watermark, sent_upto, attempt, remote_experiment_id, remote_run_id,
    mirrors.link_id, backfill, may_exist
"""
_MAY_EXIST = f"lease_token IS DISTINCT FROM {NEVER_HELD} AS may_exist"
_OF_LINK = "link_id = (SELECT link_id FROM mirror_links WHERE lower(workspace_id) = lower(:workspace_id))"

# What a crashed worker held comes first. It waits out `settle` as well: its last request may still be taking effect.
# A worker that serves a workspace which is not linked any more finds nothing. The new token says for good that somebody
# may have created a remote run, before anybody can try to: only who comes first may leave out the search for it. Rows
# are locked as they are taken, so the last LIMIT is the one that counts. Limits are told as numbers: of one that it
# does not know Postgres thinks it is a tenth of all that is due, and reads the whole table.
_CLAIM = f"""
    WITH expired AS (
        SELECT run_id, true AS may_exist FROM mirrors
        WHERE state = 'leased' AND lease_expires_at <= now() - CAST(:settle AS interval) AND unrouted IS NULL
            AND {_OF_LINK}
        ORDER BY lease_expires_at LIMIT %(most)d
        FOR UPDATE SKIP LOCKED),
    turns AS (
        SELECT run_id, {_MAY_EXIST} FROM mirrors
        WHERE run_id = ANY(CAST(:turns AS uuid[])) AND state = 'due' AND NOT backfill
            AND due_at <= now() - CAST(:debounce AS interval) AND unrouted IS NULL AND {_OF_LINK}
        LIMIT %(most)d
        FOR UPDATE SKIP LOCKED),
    due AS (
        SELECT run_id, {_MAY_EXIST} FROM mirrors
        WHERE state = 'due' AND NOT backfill AND due_at <= now() - CAST(:debounce AS interval) AND unrouted IS NULL
            AND {_OF_LINK} AND run_id <> ALL(CAST(:turns AS uuid[]))
        ORDER BY due_at LIMIT %(most)d
        FOR UPDATE SKIP LOCKED),
    taken AS (
        SELECT run_id, may_exist FROM expired UNION ALL SELECT run_id, may_exist FROM turns
        UNION ALL SELECT run_id, may_exist FROM due
        LIMIT %(most)d)
    UPDATE mirrors SET {_LEASED} FROM taken WHERE mirrors.run_id = taken.run_id RETURNING {_LEASE}
"""  # noqa: S608

# The past takes what live runs leave, at the pace of the whole workspace: `backfill_at` runs after the clock, a step
# for each run, and is never behind it by more than a second (or a step). Whoever finds the link locked leaves the past
# to another. Not EXISTS: Postgres would read all runs to join them with the one link.
_CLAIM_PAST = f"""
    WITH pace AS (
        SELECT link_id, since, GREATEST(
            LEAST(CAST(:most AS bigint), CAST(floor(extract(epoch FROM now() - since) / :step + 0.001) AS bigint)), 0
        ) AS most
        FROM (
            SELECT link_id, GREATEST(
                backfill_at, now() - make_interval(secs => GREATEST(CAST(:step AS double precision), 1))) AS since
            FROM mirror_links
            WHERE lower(workspace_id) = lower(:workspace_id) AND (
                SELECT true FROM mirrors
                WHERE mirrors.link_id = mirror_links.link_id AND state = 'due' AND backfill AND due_at <= now()
                ORDER BY due_at LIMIT 1)
            FOR UPDATE SKIP LOCKED) AS link),
    past AS (
        SELECT run_id, {_MAY_EXIST} FROM mirrors
        WHERE state = 'due' AND backfill AND due_at <= now() AND unrouted IS NULL
            AND link_id = (SELECT link_id FROM pace)
        ORDER BY due_at, run_id LIMIT (SELECT most FROM pace)
        FOR UPDATE SKIP LOCKED),
    stepped AS (
        UPDATE mirror_links
        SET backfill_at = since + make_interval(secs => :step * (SELECT count(*) FROM past))
        FROM pace WHERE mirror_links.link_id = pace.link_id AND EXISTS (SELECT FROM past))
    UPDATE mirrors SET {_LEASED} FROM (SELECT * FROM past LIMIT %(most)d) AS past
    WHERE mirrors.run_id = past.run_id RETURNING {_LEASE}
"""  # noqa: S608

_OLDEST_OF_EACH = text(f"""
    SELECT run_id FROM (
        SELECT DISTINCT ON (experiment_id) run_id, due_at FROM mirrors JOIN runs USING (run_id)
        WHERE state = 'due' AND NOT backfill AND due_at <= now() - CAST(:debounce AS interval) AND unrouted IS NULL
            AND {_OF_LINK}
        ORDER BY experiment_id, due_at) AS oldest
    ORDER BY due_at
""")  # noqa: S608

_NEXT = text("""
    SELECT extract(epoch FROM min(LEAST(
        (SELECT min(due_at) + CAST(:debounce AS interval) FROM mirrors
         WHERE state = 'due' AND NOT backfill AND mirrors.link_id = link.link_id AND unrouted IS NULL),
        (SELECT min(due_at) + CAST(:debounce AS interval) FROM mirrors
         WHERE state = 'due' AND unrouted IS NOT NULL AND CAST(:workspace_id AS text) IS NULL),
        (SELECT min(lease_expires_at) + CAST(:settle AS interval) FROM mirrors
         WHERE state = 'leased' AND mirrors.link_id = link.link_id AND unrouted IS NULL),
        CASE WHEN CAST(:step AS double precision) IS NOT NULL THEN (
            SELECT GREATEST(due_at, link.backfill_at + make_interval(secs => :step)) FROM mirrors
            WHERE state = 'due' AND backfill AND mirrors.link_id = link.link_id AND unrouted IS NULL
            ORDER BY due_at LIMIT 1) END)) - now())
    FROM mirror_links AS link
    WHERE CAST(:workspace_id AS text) IS NULL OR lower(workspace_id) = lower(CAST(:workspace_id AS text))
""")


@lru_cache
def _statement(of: str, most: int) -> TextClause:
    return text(of % {"most": most})


async def claim(
    connection: AsyncConnection,
    *,
    workspace_id: str,
    most: int,
    ttl: timedelta,
    debounce: timedelta,
    settle: timedelta,
    turns: Sequence[UUID] = (),
) -> list[Lease]:
    """Lease up to `most` live runs that nobody holds; writes younger than `debounce` wait.

    Those whose turn it is come before the others, of which the longest waiting come first.
    """
    wanted = {"workspace_id": workspace_id, "ttl": ttl, "debounce": debounce, "settle": settle, "turns": list(turns)}
    return [Lease(*row) for row in await connection.execute(_statement(_CLAIM, most), wanted)]


async def claim_past(
    connection: AsyncConnection, *, workspace_id: str, most: int, ttl: timedelta, backfill_rate: float
) -> list[Lease]:
    """Lease up to `most` runs of the past, which take what live ones leave: `backfill_rate` a second at most."""
    if backfill_rate <= 0:
        return []
    wanted = {"workspace_id": workspace_id, "most": most, "ttl": ttl, "step": 1 / backfill_rate}
    return [Lease(*row) for row in await connection.execute(_statement(_CLAIM_PAST, most), wanted)]


async def oldest_of_each_experiment(
    connection: AsyncConnection, *, workspace_id: str, debounce: timedelta
) -> list[UUID]:  # fmt: skip
    """Of each experiment the live run that has been due for longest, the longest of them first."""
    return list(await connection.scalars(_OLDEST_OF_EACH, {"workspace_id": workspace_id, "debounce": debounce}))


async def seconds_to_next(
    connection: AsyncConnection,
    *,
    debounce: timedelta,
    settle: timedelta,
    workspace_id: str | None = None,
    backfill_rate: float = 10,
) -> float | None:
    """How long until `claim` can find something, for one workspace or for any; None when nothing waits."""
    step = 1 / backfill_rate if backfill_rate > 0 else None
    wanted = {"debounce": debounce, "settle": settle, "workspace_id": workspace_id, "step": step}
    seconds = await connection.scalar(_NEXT, wanted)
    return None if seconds is None else float(seconds)

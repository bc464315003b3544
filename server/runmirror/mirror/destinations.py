"""Which workspace each run goes to, and which runs go nowhere: decided by the worker before it claims.

A write that may change the answer only marks its rows (`mirrors.unrouted`): nobody claims those, and no lease of
theirs passes its fence any more. `live` rows are decided first; what is decided anew for many runs at once is `past`:
whatever has to be sent because of it waits behind live runs, and so does what is older than its link. When links
change, all rows are marked, some at a time (`mirror_reroutes`): no client's write waits for that.

    a run that was born in a linked workspace stays there
    a run's tag `runmirror.mirror` (else its experiment's) says off ──▶ off
    its tag `runmirror.workspace` (else its experiment's) ──▶ the link of that name, ARM id or workspace name, or none
    the first link with a pattern that fits the experiment's name, else the default one, else none
"""

from datetime import timedelta

from sqlalchemy import ARRAY, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.own_tags import MIRROR_TAG, PORTAL_TAG, REMOTE_RUN_TAG, STATUS_TAG, WORKSPACE_TAG

BATCH = 500

# Locked by a statement of its own: the next one sees all tags that were written before the lock, and whoever writes one
# later waits for it and marks the row again.
_LOCK = text("""
    SELECT run_id FROM mirrors WHERE unrouted IS NOT NULL
    ORDER BY unrouted, due_at LIMIT :most FOR UPDATE SKIP LOCKED
""")

SAID = f"""
    SELECT max(NULLIF(btrim(value), '')) FILTER (WHERE key = '{WORKSPACE_TAG}') AS workspace,
        max(NULLIF(btrim(value), '')) FILTER (WHERE key = '{MIRROR_TAG}') AS mirror
    FROM {{}} WHERE {{}} AND key IN ('{WORKSPACE_TAG}', '{MIRROR_TAG}')
"""  # noqa: S608 - constants of ours

# A name that no link has leads nowhere, rather than to the wrong workspace.
LINK = r"""
    SELECT l.link_id, l.linked_at FROM mirror_links l
    CROSS JOIN LATERAL (
        SELECT rtrim(lower(COALESCE(own.workspace, theirs.workspace)), '/') AS wanted,
            EXISTS (
                SELECT FROM unnest(l.experiments) AS pattern
                WHERE e.name LIKE translate(regexp_replace(pattern, '([\\%_])', '\\\1', 'g'), '*?', '%_')) AS fits) AS c
    WHERE CASE WHEN c.wanted IS NULL THEN c.fits OR l.is_default
        ELSE c.wanted IN (lower(l.name), lower(l.workspace_id), lower(regexp_replace(l.workspace_id, '^.*/', ''))) END
    ORDER BY
        CASE WHEN c.wanted IS NULL THEN NOT c.fits ELSE c.wanted <> lower(l.name) END,
        c.wanted IS DISTINCT FROM lower(l.workspace_id), l.position, l.link_id
    LIMIT 1
"""

# `placed` never was anywhere; `moved` starts anew in another workspace, its old copy is left alone. A lease that was
# under way when the run was switched off is taken up again if it still is; one for another workspace has to run out, in
# case the run comes back there before its holder has heard of it.
_ROUTE = text(rf"""
    WITH wanted AS MATERIALIZED (
        SELECT m.run_id, m.state AS state_was, m.link_id AS link_was,
            m.unrouted = 'past' OR COALESCE(m.link_id IS NULL AND m.due_at < link.linked_at, false) AS is_past,
            CASE WHEN r.azure_run_id IS NOT NULL AND m.link_id IN (SELECT link_id FROM mirror_links)
                THEN m.link_id ELSE link.link_id END AS link_id,
            COALESCE(lower(COALESCE(own.mirror, theirs.mirror)) IN ('off', 'false', 'no', '0'), false) AS is_off
        FROM mirrors m JOIN runs r USING (run_id) JOIN experiments e USING (experiment_id)
            CROSS JOIN LATERAL ({SAID.format("tags", "run_id = m.run_id")}) AS own
            CROSS JOIN LATERAL ({SAID.format("experiment_tags", "experiment_id = r.experiment_id")}) AS theirs
            LEFT JOIN LATERAL ({LINK}) AS link ON true
        WHERE m.run_id = ANY(:run_ids)),
    switched_off AS (
        UPDATE mirrors m SET
            unrouted = NULL, state = 'off', waiting = false, backfill = false, behind_since = NULL
        FROM wanted w WHERE m.run_id = w.run_id AND w.is_off
        RETURNING m.run_id),
    placed AS (
        UPDATE mirrors m SET
            unrouted = NULL, link_id = w.link_id, backfill = w.is_past,
            state = CASE WHEN m.state = 'off' THEN 'due' ELSE m.state END,
            behind_since = CASE WHEN m.state = 'off' THEN now() ELSE m.behind_since END
        FROM wanted w WHERE m.run_id = w.run_id AND NOT w.is_off AND w.link_was IS NULL
        RETURNING m.run_id, w.state_was, w.link_id),
    moved AS (
        UPDATE mirrors m SET
            unrouted = NULL, link_id = w.link_id, backfill = w.is_past, state = 'due', attempt = 0,
            due_at = GREATEST(m.due_at, now(), m.lease_expires_at + CAST(:settle AS interval)),
            behind_since = COALESCE(m.behind_since, now()), watermark = 0, info_watermark = 0, sent_upto = 0,
            lease_token = NULL, lease_expires_at = NULL, remote_experiment_id = NULL, remote_run_id = NULL,
            portal_url = NULL, last_error = NULL, last_error_at = NULL, mirrored_at = NULL, partial = false,
            waiting = false, overflow_seq = 0, overflow_told = 0, overflow_at = NULL, points = '{{}}', points_upto = 0
        FROM wanted w WHERE m.run_id = w.run_id AND NOT w.is_off AND w.link_was IS DISTINCT FROM w.link_id
            AND w.link_was IS NOT NULL
        RETURNING m.run_id, w.link_id),
    kept AS (
        UPDATE mirrors m SET
            unrouted = NULL,
            state = CASE
                WHEN m.state <> 'off' THEN m.state WHEN m.lease_expires_at IS NULL THEN 'due' ELSE 'leased' END,
            backfill = CASE WHEN m.state = 'off' THEN w.is_past ELSE m.backfill END,
            attempt = CASE WHEN m.state = 'off' THEN 0 ELSE m.attempt END,
            due_at = CASE WHEN m.state = 'off' THEN GREATEST(m.due_at, now()) ELSE m.due_at END,
            behind_since = CASE WHEN m.state = 'off' THEN now() ELSE m.behind_since END
        FROM wanted w WHERE m.run_id = w.run_id AND NOT w.is_off AND w.link_was = w.link_id
        RETURNING m.run_id, w.state_was),
    forgotten AS (DELETE FROM mirror_overflows USING moved WHERE mirror_overflows.run_id = moved.run_id),
    unverified AS (DELETE FROM mirror_verifications USING moved WHERE mirror_verifications.run_id = moved.run_id),
    unshown AS (
        DELETE FROM tags USING moved
        WHERE tags.run_id = moved.run_id AND seq = 0 AND key IN ('{REMOTE_RUN_TAG}', '{PORTAL_TAG}')),
    shown AS (
        INSERT INTO tags (run_id, key, value, seq)
        SELECT run_id, '{STATUS_TAG}', status, 0 FROM (
            SELECT run_id, 'off' AS status FROM switched_off
            UNION ALL SELECT run_id, CASE WHEN link_id IS NULL THEN 'unrouted' ELSE 'pending' END FROM placed
            WHERE CASE WHEN link_id IS NULL THEN EXISTS (SELECT FROM mirror_links)
                ELSE EXISTS (
                    SELECT FROM tags WHERE tags.run_id = placed.run_id AND key = '{STATUS_TAG}' AND value IS NOT NULL)
                END
            UNION ALL SELECT run_id, CASE WHEN link_id IS NULL THEN 'unrouted' ELSE 'pending' END FROM moved
            UNION ALL SELECT run_id, 'pending' FROM kept WHERE state_was = 'off') AS now
        ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value, seq = 0
        WHERE tags.value IS DISTINCT FROM excluded.value)
    SELECT count(*) FROM wanted
""").bindparams(bindparam("run_ids", type_=ARRAY(Uuid)))  # noqa: S608

# Up to the first row that somebody is writing: nothing else waits for that one.
_MARK_SOME = text("""
    WITH going AS (SELECT reroute_id, after_run FROM mirror_reroutes LIMIT 1 FOR UPDATE SKIP LOCKED),
    batch AS MATERIALIZED (
        SELECT run_id FROM mirrors WHERE run_id > (SELECT after_run FROM going) ORDER BY run_id LIMIT :most),
    free AS MATERIALIZED (
        SELECT run_id FROM mirrors WHERE run_id IN (SELECT run_id FROM batch) FOR UPDATE SKIP LOCKED),
    busy AS (
        SELECT run_id FROM batch WHERE NOT EXISTS (SELECT FROM free WHERE free.run_id = batch.run_id)
        ORDER BY run_id LIMIT 1),
    next AS MATERIALIZED (
        SELECT run_id FROM free WHERE NOT EXISTS (SELECT FROM busy) OR run_id < (SELECT run_id FROM busy)),
    marked AS (
        UPDATE mirrors SET unrouted = COALESCE(unrouted, 'past') FROM next WHERE mirrors.run_id = next.run_id),
    done AS (
        DELETE FROM mirror_reroutes USING going
        WHERE mirror_reroutes.reroute_id = going.reroute_id AND NOT EXISTS (SELECT FROM batch)),
    further AS (
        UPDATE mirror_reroutes SET after_run = last.run_id
        FROM going, (SELECT run_id FROM next ORDER BY run_id DESC LIMIT 1) AS last
        WHERE mirror_reroutes.reroute_id = going.reroute_id)
    SELECT count(*) FROM next
""")

_FORGET_REROUTES = text("DELETE FROM mirror_reroutes")
_REROUTE = text("INSERT INTO mirror_reroutes DEFAULT VALUES")

_IS_PENDING = text("""
    SELECT EXISTS (SELECT FROM mirror_reroutes) OR EXISTS (SELECT FROM mirrors WHERE unrouted IS NOT NULL)
""")


async def route(connection: AsyncConnection, *, settle: timedelta, most: int = BATCH) -> int:
    """Decide where up to `most` marked runs go, live ones first; `most` is returned when there may be more to do."""
    marked = int(await connection.scalar(_MARK_SOME, {"most": most}) or 0)
    run_ids = list(await connection.scalars(_LOCK, {"most": most}))
    if run_ids:
        await connection.execute(_ROUTE, {"run_ids": run_ids, "settle": settle})
    return max(marked, len(run_ids))


async def is_pending(connection: AsyncConnection) -> bool:
    """Whether there is anything to decide."""
    return bool(await connection.scalar(_IS_PENDING))


async def reroute_all(connection: AsyncConnection) -> None:
    """The linked workspaces, or their patterns, have changed; the caller sees to it that nobody else changes them."""
    await connection.execute(_FORGET_REROUTES)
    await connection.execute(_REROUTE)

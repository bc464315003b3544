"""Which workspace each registered model goes to, and which stay out: decided by the worker before it claims.

    its tag `runmirror.mirror` says off ──▶ off
    its tag `runmirror.workspace` ──▶ the link of that name, ARM id or workspace name, or none
    the link of the run of its first version, where the files are; without such a run the default one, else none

Tags are read as those of runs, see `runmirror.mirror.destinations`. Nothing is marked for this: what has another place
than it should is looked for again and again, so that no write, routing or linking in between can be missed.
"""

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.destinations import LINK, SAID

# A run that stays out of the mirror and was in no workspace that is linked says nothing of where the model goes.
_WANTED = f"""
    SELECT mirror.registered_model_id, mirror.link_id AS link_was,
        CASE WHEN own.workspace IS NULL AND first.is_placed THEN first.link_id ELSE link.link_id END AS link_id,
        COALESCE(lower(own.mirror) IN ('off', 'false', 'no', '0'), false) AS is_off
    FROM mirrored_models AS mirror JOIN registered_models USING (registered_model_id)
        CROSS JOIN LATERAL (
            {SAID.format("registered_model_tags", "registered_model_id = mirror.registered_model_id")}) AS own
        CROSS JOIN (SELECT CAST(NULL AS text) AS workspace) AS theirs
        CROSS JOIN (SELECT CAST(NULL AS text) AS name) AS e
        LEFT JOIN LATERAL ({LINK}) AS link ON true
        LEFT JOIN LATERAL (
            SELECT run.link_id, run.unrouted, run.state <> 'off' OR EXISTS (
                SELECT FROM mirror_links WHERE mirror_links.link_id = run.link_id) AS is_placed
            FROM (
                SELECT CAST(CASE WHEN run_id ~ '^[0-9a-f]{{32}}$' THEN run_id END AS uuid) AS run_id
                FROM model_versions WHERE registered_model_id = mirror.registered_model_id
                ORDER BY version LIMIT 1) AS version JOIN mirrors AS run USING (run_id)) AS first ON true
    WHERE (own.workspace IS NOT NULL OR first.unrouted IS NULL) AND (
        :everything OR mirror.link_id IS NULL
        OR (mirror.state = 'due' AND mirror.due_at > now() - interval '10 seconds'))
"""  # noqa: S608 - constants of ours

# What is being written this very moment is left for the next time. Whoever holds one that is moved or off has lost it;
# its last request may still take effect, so the next one waits that out.
_PLACE = text(f"""
    WITH wanted AS MATERIALIZED (
        SELECT wanted.* FROM ({_WANTED}) AS wanted JOIN mirrored_models AS held USING (registered_model_id)
        WHERE CASE WHEN wanted.is_off THEN held.state <> 'off'
            ELSE held.state = 'off' OR held.link_id IS DISTINCT FROM wanted.link_id END
        FOR UPDATE OF held SKIP LOCKED),
    switched_off AS (
        UPDATE mirrored_models AS mirror SET
            state = 'off', behind_since = NULL, lease_token = NULL, lease_expires_at = NULL,
            due_at = GREATEST(due_at, lease_expires_at + CAST(:settle AS interval))
        FROM wanted WHERE mirror.registered_model_id = wanted.registered_model_id AND wanted.is_off),
    back AS (
        UPDATE mirrored_models AS mirror SET
            state = 'due', due_at = GREATEST(due_at, now()), behind_since = now(), attempt = 0
        FROM wanted WHERE mirror.registered_model_id = wanted.registered_model_id AND NOT wanted.is_off
            AND wanted.link_was IS NOT DISTINCT FROM wanted.link_id),
    moved AS (
        UPDATE mirrored_models AS mirror SET
            link_id = wanted.link_id, state = 'due', behind_since = COALESCE(behind_since, now()), watermark = 0,
            due_at = CASE WHEN mirror.link_id IS NULL THEN due_at
                ELSE GREATEST(due_at, now(), lease_expires_at + CAST(:settle AS interval)) END,
            attempt = 0, waits_run_id = NULL, waits_seq = NULL, lease_token = NULL, lease_expires_at = NULL,
            remote_name = NULL, told = '{{}}', problems = '[]', last_error = NULL, last_error_at = NULL,
            mirrored_at = NULL
        FROM wanted WHERE mirror.registered_model_id = wanted.registered_model_id AND NOT wanted.is_off
            AND wanted.link_was IS DISTINCT FROM wanted.link_id
        RETURNING mirror.registered_model_id)
    DELETE FROM mirrored_versions USING moved
    WHERE mirrored_versions.registered_model_id = moved.registered_model_id
""")  # noqa: S608

# What became of a deleted one stands in a workspace that nobody knows any more, or in none.
_FORGET = text("""
    WITH forgotten AS (
        DELETE FROM mirrored_models AS mirror
        WHERE deleted AND NOT EXISTS (SELECT FROM mirror_links WHERE mirror_links.link_id = mirror.link_id)
        RETURNING registered_model_id)
    DELETE FROM mirrored_versions USING forgotten
    WHERE mirrored_versions.registered_model_id = forgotten.registered_model_id
""")


async def place(connection: AsyncConnection, *, settle: timedelta, everything: bool) -> None:
    """Give new ones and those just written their place, or `everything`: one that has to move begins anew."""
    await connection.execute(_PLACE, {"settle": settle, "everything": everything})
    await connection.execute(_FORGET)

"""SQL of hot writes: one statement, which is a transaction of its own, for the writes of several runs."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from runmirror.mirror.queue import CHANNEL, NEVER_HELD
from runmirror.runs.hot_columns import Columns

# See migrations 0015, 0025 and 0026.
_LOG = f"SELECT runmirror_log_2({', '.join(f'${number}' for number in range(1, 22))})"
_LOG_POINTS = "SELECT runmirror_log_points_1($1, $2, $3, $4, $5, $6)"

# A run of an experiment that is not there or not active is left out.
_CREATE = f"""
    WITH created AS (
        INSERT INTO runs (run_id, experiment_id, name, user_id, status, start_time_ms, artifact_uri)
        SELECT g.run_id, g.experiment_id, g.name, g.user_id, 'RUNNING', g.start_time_ms,
               e.artifact_location || '/' || replace(g.run_id::text, '-', '') || '/artifacts'
        FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bigint[])
            AS g (run_id, experiment_id, name, user_id, start_time_ms)
        JOIN experiments e ON e.experiment_id = g.experiment_id AND e.lifecycle_stage = 'active'
        RETURNING run_id, artifact_uri),
    tagged AS (
        INSERT INTO tags (run_id, key, value, seq)
        SELECT g.run_id, g.key, g.value, 1
        FROM unnest($6::uuid[], $7::text[], $8::text[]) AS g (run_id, key, value) JOIN created USING (run_id)),
    behind AS (INSERT INTO mirrors (run_id, lease_token) SELECT run_id, {NEVER_HELD} FROM created)
    SELECT run_id, artifact_uri, CASE WHEN row_number() OVER () = 1 THEN pg_notify('{CHANNEL}', '') END
    FROM created
"""


async def log(connection: asyncpg.Connection, columns: Columns) -> bool:
    """Whether all of it was written; False: some run is not there or not active, and nothing was.

    Raises `asyncpg.PostgresError` with SQLSTATE RM001 when a param has another value.
    """
    return bool(await connection.fetchval(_LOG_POINTS if columns.are_points else _LOG, *columns.arguments))


async def create(connection: asyncpg.Connection, columns: Sequence[Sequence[Any]]) -> dict[UUID, str]:
    """The artifact roots of the runs that were created: `(ids, experiments, names, users, start times)` and tags."""
    return {row[0]: row[1] for row in await connection.fetch(_CREATE, *columns)}

"""SQL of small uploads: one statement for many files."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from runmirror.artifacts.files import Written
from runmirror.artifacts.places import Place

# The owner of each file, with the seq of the file's row before. A logged model counts if a run made it.
# The row before is looked up as in migration 0025.
_OWNERS = """
    SELECT g.place, o.run_id, o.model_id, o.artifact_uri, coalesce(a.seq, 0) AS seq
    FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS g (run_id, model_id, path, place)
    CROSS JOIN LATERAL (
        SELECT r.run_id, '' AS model_id, r.artifact_uri FROM runs r WHERE r.run_id = g.run_id
        UNION ALL
        SELECT r.run_id, m.model_id, m.artifact_uri
        FROM logged_models m JOIN runs r ON r.run_id = m.source_run_id WHERE m.model_id = g.model_id) o
    LEFT JOIN LATERAL (
        SELECT f.path, f.seq FROM artifacts f
        WHERE f.run_id = o.run_id AND f.model_id = o.model_id AND f.path >= g.path
        ORDER BY f.path LIMIT 1) a ON a.path = g.path
"""

# See migrations 0017 and 0025.
_RECORD_MANY = "SELECT runmirror_record_many_2($1, $2, $3, $4, $5, $6)"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose file it is; `seq` is that of the file's row, 0 without one."""

    run_id: UUID
    model_id: str
    artifact_uri: str
    seq: int


async def owners(
    connection: asyncpg.Connection,
    run_ids: Sequence[UUID | None],
    model_ids: Sequence[str | None],
    paths: Sequence[str],
) -> dict[int, Owner]:
    """By place in the arguments, each of which names a run or a logged model; without those that do not exist."""
    found = await connection.fetch(_OWNERS, run_ids, model_ids, paths)
    return {row[0] - 1: Owner(row[1], row[2], row[3], row[4]) for row in found}


async def record_many(connection: asyncpg.Connection, files: Sequence[tuple[Place, Written, int]]) -> Sequence[bool]:
    """Record files that lie at different places, each if its row still has the seq given with it; which were recorded.

    Those of one run are one write of it.
    """
    columns = (
        [place.root.run_id for place, _, _ in files],
        [place.root.model_id for place, _, _ in files],
        [place.path for place, _, _ in files],
        [written.size_bytes for _, written, _ in files],
        [written.md5 for _, written, _ in files],
        [expected for _, _, expected in files],
    )
    recorded: Sequence[bool] = await connection.fetchval(_RECORD_MANY, *columns)
    return recorded

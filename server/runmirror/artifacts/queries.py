"""All SQL of the artifact slice: whose roots a path may be below, and what was uploaded and deleted."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.artifacts.files import Written
from runmirror.artifacts.places import Place, Root, roots_of

NEVER = 0  # what stands for the seq of a row that does not exist

_OWNERS = text("""
    SELECT run_id, '' AS model_id, artifact_uri FROM runs WHERE run_id = ANY(:run_ids)
    UNION ALL
    SELECT runs.run_id, m.model_id, m.artifact_uri
    FROM logged_models m LEFT JOIN runs ON runs.run_id = m.source_run_id WHERE m.model_id = ANY(:model_ids)
""")

# The paths of experiments, with the folder of their logged models.
_HOLDS_EXPERIMENT = text("""
    SELECT EXISTS (
        SELECT FROM experiments,
            LATERAL (SELECT regexp_replace(artifact_location, '^mlflow-artifacts:(//[^/]*)?/', '') AS path) root
        WHERE root.path = :path OR starts_with(root.path, :path || '/') OR root.path || '/models' = :path)
""")

_ARTIFACT_URI = text("SELECT artifact_uri FROM runs WHERE run_id = :run_id")

_SEQ = text("SELECT seq FROM artifacts WHERE run_id = :run_id AND model_id = :model_id AND path = :path")

_RECORDED = text("""
    SELECT size_bytes, md5, deleted, seq FROM artifacts WHERE run_id = :run_id AND model_id = :model_id AND path = :path
""")

_RUN_SEQ = text("SELECT seq FROM runs WHERE run_id = :run_id")

_RECORD = text("""
    INSERT INTO artifacts (run_id, model_id, path, size_bytes, md5, deleted, seq)
    VALUES (:run_id, :model_id, :path, :size_bytes, :md5, :deleted, :seq)
    ON CONFLICT (run_id, model_id, path) DO UPDATE
    SET size_bytes = excluded.size_bytes, md5 = excluded.md5, deleted = excluded.deleted, seq = excluded.seq
    WHERE artifacts.seq = :expected
    RETURNING seq
""")

# For the usual case, without SQLAlchemy around it.
_OWNERS_AT_ONCE = _OWNERS.text.replace(":run_ids", "$1::uuid[]").replace(":model_ids", "$2::text[]")
# The look-up is that of migration 0025.
_SEQ_AT_ONCE = """
    SELECT f.seq FROM (
        SELECT path, seq FROM artifacts WHERE run_id = $1 AND model_id = $2 AND path >= $3 ORDER BY path LIMIT 1) f
    WHERE f.path = $3
"""

# A record with the run's seq and its place in the mirror's queue, as one call; see migrations 0013 and 0025.
_RECORD_AT_ONCE = "SELECT runmirror_record_2($1, $2, $3, $4, $5, $6)"

_HAS_FILES = text("""
    SELECT EXISTS (
        SELECT FROM artifacts WHERE run_id = :run_id AND model_id = :model_id AND NOT deleted
        AND (:path = '' OR path = :path OR starts_with(path, :path || '/')))
""")

_MARK_DELETED = text("""
    UPDATE artifacts SET deleted = true, seq = :seq
    WHERE run_id = :run_id AND model_id = :model_id AND NOT deleted AND seq <= :upto
    AND (:path = '' OR path = :path OR starts_with(path, :path || '/'))
""")

# Whoever is about to record a file that the store just removed has to notice, so each gets a row of this seq.
_MARK_REMOVED = text("""
    INSERT INTO artifacts (run_id, model_id, path, size_bytes, deleted, seq)
    SELECT :run_id, :model_id, removed, 0, true, :seq FROM unnest(CAST(:removed AS text[])) removed
    ON CONFLICT (run_id, model_id, path) DO UPDATE SET seq = excluded.seq
    WHERE artifacts.deleted AND artifacts.seq <> excluded.seq
""")

_WRITTEN_SINCE = text("""
    SELECT path, seq FROM artifacts
    WHERE run_id = :run_id AND model_id = :model_id AND NOT deleted AND seq > :upto
    AND (:path = '' OR path = :path OR starts_with(path, :path || '/'))
""")


async def roots(connection: AsyncConnection, run_ids: Sequence[UUID], model_ids: Sequence[str]) -> list[Root]:
    """The artifact roots of those that exist."""
    found = await connection.execute(_OWNERS, {"run_ids": list(run_ids), "model_ids": list(model_ids)})
    return list(roots_of((row.run_id, row.model_id, row.artifact_uri) for row in found))


async def holds_experiment(connection: AsyncConnection, path: str) -> bool:
    """Whether all of some experiment's artifacts lie at or below `path`."""
    return bool(await connection.scalar(_HOLDS_EXPERIMENT, {"path": path}))


async def artifact_uri(connection: AsyncConnection, run_id: UUID) -> str | None:
    uri: str | None = await connection.scalar(_ARTIFACT_URI, {"run_id": run_id})
    return uri


async def seq_of(connection: AsyncConnection, place: Place) -> int:
    """The seq of a file's row, or `NEVER`."""
    return await connection.scalar(_SEQ, _key(place)) or NEVER


async def recorded(connection: AsyncConnection, place: Place) -> tuple[Written | None, int]:
    """What is recorded of a file, None when it is not there, and the seq of its row or `NEVER`."""
    row = (await connection.execute(_RECORDED, _key(place))).one_or_none()
    if row is None:
        return None, NEVER
    return None if row.deleted else Written(row.size_bytes, row.md5), row.seq


async def run_seq(connection: AsyncConnection, run_id: UUID) -> int:
    return await connection.scalar(_RUN_SEQ, {"run_id": run_id}) or 0


async def record(connection: AsyncConnection, place: Place, held: Written | None, *, expected: int, seq: int) -> bool:
    """Say what the store holds at `place`; False, and nothing written, when the row's seq is not `expected`."""
    values = {
        **_key(place),
        "size_bytes": held.size_bytes if held else 0,
        "md5": held.md5 if held else None,
        "deleted": held is None,
        "expected": expected,
        "seq": seq,
    }
    return await connection.scalar(_RECORD, values) is not None


async def roots_at_once(
    connection: asyncpg.Connection, run_ids: Sequence[UUID], model_ids: Sequence[str]
) -> list[Root]:
    """As `roots`."""
    return list(roots_of(await connection.fetch(_OWNERS_AT_ONCE, run_ids, model_ids)))


async def seq_at_once(connection: asyncpg.Connection, place: Place) -> int:
    """As `seq_of`."""
    values = (place.root.run_id, place.root.model_id, place.path)
    return await connection.fetchval(_SEQ_AT_ONCE, *values) or NEVER


async def record_at_once(connection: asyncpg.Connection, place: Place, held: Written, *, expected: int) -> bool:
    """A whole write of the run that records a file; False, and nothing written, when its row's seq is not `expected`.

    Also False when the run is gone.
    """
    root = place.root
    values = (root.run_id, root.model_id, place.path, held.size_bytes, held.md5, expected)
    return bool(await connection.fetchval(_RECORD_AT_ONCE, *values))


async def has_files(connection: AsyncConnection, place: Place) -> bool:
    """Whether any file at or below `place` is recorded as being there."""
    return bool(await connection.scalar(_HAS_FILES, _key(place)))


async def record_deletion(
    connection: AsyncConnection, place: Place, removed: Sequence[str], *, upto: int, seq: int
) -> list[tuple[str, int]]:
    """Mark what lies at or below `place` as deleted, except files recorded after seq `upto`: those are returned."""
    written_since = await connection.execute(_WRITTEN_SINCE, {**_key(place), "upto": upto})
    later = [(row.path, row.seq) for row in written_since]
    await connection.execute(_MARK_DELETED, {**_key(place), "upto": upto, "seq": seq})
    await connection.execute(
        _MARK_REMOVED,
        {"run_id": place.root.run_id, "model_id": place.root.model_id, "removed": list(removed), "seq": seq},
    )
    return later


def _key(place: Place) -> dict[str, object]:
    return {"run_id": place.root.run_id, "model_id": place.root.model_id, "path": place.path}

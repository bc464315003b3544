"""All SQL of scorers."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Integer, Text, Uuid, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth.clauses import experiment_is_readable, readers_values

_STAGE = text("SELECT lifecycle_stage FROM experiments WHERE experiment_id = :experiment_id")

# "DO UPDATE" to what is there locks the row, so that versions are numbered one after the other.
_LOCK = text("""
    INSERT INTO scorers AS s (scorer_id, experiment_id, name) VALUES (:scorer_id, :experiment_id, :name)
    ON CONFLICT (experiment_id, name) DO UPDATE SET name = s.name
    RETURNING scorer_id
""").bindparams(bindparam("scorer_id", type_=Uuid), bindparam("name", type_=Text))

_ADD_VERSION = text("""
    INSERT INTO scorer_versions (scorer_id, version, serialized_scorer, creation_time_ms)
    SELECT :scorer_id, coalesce(max(version), 0) + 1, :serialized_scorer, :now_ms
    FROM scorer_versions WHERE scorer_id = :scorer_id
    RETURNING version
""").bindparams(
    bindparam("scorer_id", type_=Uuid),
    bindparam("serialized_scorer", type_=Text),
    bindparam("now_ms", type_=BigInteger),
)

_VERSION = "s.experiment_id, s.name, s.scorer_id, v.version, v.serialized_scorer, v.creation_time_ms"

_LATEST = text(f"""
    SELECT DISTINCT ON (s.experiment_id, s.name) {_VERSION}
    FROM scorers s JOIN experiments e USING (experiment_id) JOIN scorer_versions v USING (scorer_id)
    WHERE e.lifecycle_stage = 'active' AND (:everywhere OR s.experiment_id = ANY(:experiment_ids))
      AND {experiment_is_readable("s.experiment_id")}
    ORDER BY s.experiment_id, s.name, v.version DESC
""").bindparams(bindparam("experiment_ids", type_=ARRAY(BigInteger)))

_VERSIONS = text(f"""
    SELECT {_VERSION} FROM scorers s JOIN scorer_versions v USING (scorer_id)
    WHERE s.experiment_id = :experiment_id AND s.name = :name
    ORDER BY v.version
""")

_GET = text(f"""
    SELECT {_VERSION} FROM scorers s JOIN scorer_versions v USING (scorer_id)
    WHERE s.experiment_id = :experiment_id AND s.name = :name AND v.version = coalesce(:version, v.version)
    ORDER BY v.version DESC LIMIT 1
""").bindparams(bindparam("version", type_=Integer))

# Versions go with their scorer.
_DELETE = text("DELETE FROM scorers WHERE experiment_id = :experiment_id AND name = :name AND EXISTS ("
               "SELECT FROM scorer_versions v WHERE v.scorer_id = scorers.scorer_id)")  # fmt: skip

_DELETE_VERSION = text("""
    DELETE FROM scorer_versions v USING scorers s
    WHERE s.scorer_id = v.scorer_id AND s.experiment_id = :experiment_id AND s.name = :name AND v.version = :version
""").bindparams(bindparam("version", type_=Integer))


async def stage_of_experiment(connection: AsyncConnection, experiment_id: int) -> str | None:
    """Its lifecycle stage, or None."""
    stage: str | None = await connection.scalar(_STAGE, {"experiment_id": experiment_id})
    return stage


async def lock(connection: AsyncConnection, experiment_id: int, name: str, new_id: UUID) -> UUID:
    """The id of the scorer of this name, made now if there was none; its writers wait for each other."""
    values = {"experiment_id": experiment_id, "name": name, "scorer_id": new_id}
    found: UUID = (await connection.execute(_LOCK, values)).scalar_one()
    return found


async def add_version(connection: AsyncConnection, scorer_id: UUID, serialized_scorer: str, now_ms: int) -> int:
    """The number of the new version; the caller holds the scorer's lock."""
    values = {"scorer_id": scorer_id, "serialized_scorer": serialized_scorer, "now_ms": now_ms}
    return int((await connection.execute(_ADD_VERSION, values)).scalar_one())


async def latest(connection: AsyncConnection, experiment_ids: Sequence[int] | None) -> Sequence[Row[Any]]:
    """The newest version of every scorer of these active experiments, or of all, by experiment and name."""
    values = {"everywhere": experiment_ids is None, "experiment_ids": list(experiment_ids or ())}
    return (await connection.execute(_LATEST, {**values, **readers_values()})).all()


async def versions(connection: AsyncConnection, experiment_id: int, name: str) -> Sequence[Row[Any]]:
    """Oldest first."""
    return (await connection.execute(_VERSIONS, {"experiment_id": experiment_id, "name": name})).all()


async def get(connection: AsyncConnection, experiment_id: int, name: str, version: int | None) -> Row[Any] | None:
    """One version, or the newest."""
    values = {"experiment_id": experiment_id, "name": name, "version": version}
    return (await connection.execute(_GET, values)).one_or_none()


async def delete(connection: AsyncConnection, experiment_id: int, name: str, version: int | None) -> bool:
    """Whether there was any such version; None means all of them."""
    values = {"experiment_id": experiment_id, "name": name}
    if version is None:
        return (await connection.execute(_DELETE, values)).rowcount > 0
    return (await connection.execute(_DELETE_VERSION, values | {"version": version})).rowcount > 0

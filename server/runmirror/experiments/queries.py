"""All SQL of experiments."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, JSON, BigInteger, Text, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_COLUMNS = """
    e.experiment_id, e.name, e.artifact_location, e.lifecycle_stage, e.creation_time_ms, e.last_update_time_ms,
    (SELECT json_agg(json_build_object('key', t.key, 'value', t.value) ORDER BY t.key)
     FROM experiment_tags t WHERE t.experiment_id = e.experiment_id) AS tags
"""

_LOAD = (
    text(f"""
    SELECT {_COLUMNS} FROM unnest(:experiment_ids) WITH ORDINALITY AS wanted (experiment_id, place)
    JOIN experiments e USING (experiment_id) ORDER BY place
""")
    .bindparams(bindparam("experiment_ids", type_=ARRAY(BigInteger)))
    .columns(tags=JSON)
)

_BY_NAME = text(f"SELECT {_COLUMNS} FROM experiments e WHERE e.name = :name").columns(tags=JSON)

# The location of a new experiment holds its own id, so the id is drawn first.
_CREATE = text("""
    INSERT INTO experiments (experiment_id, name, artifact_location, creation_time_ms, last_update_time_ms)
    SELECT id, :name, coalesce(:artifact_location, 'mlflow-artifacts:/' || id), :now_ms, :now_ms
    FROM nextval(pg_get_serial_sequence('experiments', 'experiment_id')) AS id
    ON CONFLICT (name) DO NOTHING
    RETURNING experiment_id
""")

_SET_TAGS = text("""
    INSERT INTO experiment_tags (experiment_id, key, value)
    SELECT :experiment_id, key, value FROM unnest(:keys, :values) AS given (key, value)
    ON CONFLICT (experiment_id, key) DO UPDATE SET value = excluded.value
""").bindparams(bindparam("keys", type_=ARRAY(Text)), bindparam("values", type_=ARRAY(Text)))

_DELETE_TAG = text("DELETE FROM experiment_tags WHERE experiment_id = :experiment_id AND key = :key RETURNING key")

_LOCK = text("SELECT lifecycle_stage FROM experiments WHERE experiment_id = :experiment_id FOR NO KEY UPDATE")

_RENAME = text(
    "UPDATE experiments SET name = :name, last_update_time_ms = :now_ms WHERE experiment_id = :experiment_id"
)

_NAME_TAKEN = text("SELECT 1 FROM experiments WHERE name = :name AND experiment_id <> :experiment_id")

_SET_STAGE = text("""
    UPDATE experiments SET lifecycle_stage = :stage, last_update_time_ms = :now_ms WHERE experiment_id = :experiment_id
""")

_SET_STAGE_OF_RUNS = text("""
    UPDATE runs SET lifecycle_stage = :stage, deleted_time_ms = :deleted_time_ms, seq = seq + 1, info_seq = seq + 1
    WHERE experiment_id = :experiment_id
""")


async def load(connection: AsyncConnection, experiment_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """The experiments with these ids, in this order; unknown ids are left out."""
    return (await connection.execute(_LOAD, {"experiment_ids": list(experiment_ids)})).all()


async def by_name(connection: AsyncConnection, name: str) -> Row[Any] | None:
    return (await connection.execute(_BY_NAME, {"name": name})).one_or_none()


async def create(
    connection: AsyncConnection, name: str, artifact_location: str | None, now_ms: int
) -> int | None:  # fmt: skip
    """The new experiment's id, or None when the name is taken (by a deleted experiment too)."""
    values = {"name": name, "artifact_location": artifact_location, "now_ms": now_ms}
    created: int | None = await connection.scalar(_CREATE, values)
    return created


async def set_tags(connection: AsyncConnection, experiment_id: int, tags: dict[str, str]) -> None:
    values = {"experiment_id": experiment_id, "keys": list(tags), "values": list(tags.values())}
    await connection.execute(_SET_TAGS, values)


async def delete_tag(connection: AsyncConnection, experiment_id: int, key: str) -> bool:
    """Whether there was such a tag."""
    return await connection.scalar(_DELETE_TAG, {"experiment_id": experiment_id, "key": key}) is not None


async def lock(connection: AsyncConnection, experiment_id: int) -> str | None:
    """The lifecycle stage, held until the transaction ends; None when there is no such experiment."""
    stage: str | None = await connection.scalar(_LOCK, {"experiment_id": experiment_id})
    return stage


async def name_taken(connection: AsyncConnection, experiment_id: int, name: str) -> bool:
    return await connection.scalar(_NAME_TAKEN, {"experiment_id": experiment_id, "name": name}) is not None


async def rename(connection: AsyncConnection, experiment_id: int, name: str, now_ms: int) -> None:
    await connection.execute(_RENAME, {"experiment_id": experiment_id, "name": name, "now_ms": now_ms})


async def set_stage(connection: AsyncConnection, experiment_id: int, stage: str, now_ms: int) -> None:
    """Of the experiment and, as MLflow does, of every run in it; each run's seq moves on."""
    await connection.execute(_SET_STAGE, {"experiment_id": experiment_id, "stage": stage, "now_ms": now_ms})
    deleted = now_ms if stage == "deleted" else None
    values = {"experiment_id": experiment_id, "stage": stage, "deleted_time_ms": deleted}
    await connection.execute(_SET_STAGE_OF_RUNS, values)

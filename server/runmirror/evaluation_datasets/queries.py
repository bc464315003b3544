"""All SQL of evaluation datasets, except their search and their records."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Text, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_DATASET_ID = bindparam("dataset_id", type_=Text)
_KEYS, _VALUES = bindparam("keys", type_=ARRAY(Text)), bindparam("values", type_=ARRAY(Text))
_EXPERIMENT_IDS = bindparam("experiment_ids", type_=ARRAY(BigInteger))
_NOW = bindparam("now_ms", type_=BigInteger)

_EXISTING_EXPERIMENTS = text(
    "SELECT experiment_id FROM experiments WHERE experiment_id = ANY(:experiment_ids) FOR KEY SHARE"
).bindparams(_EXPERIMENT_IDS)

_CREATE = text("""
    WITH new_tags AS (
        INSERT INTO evaluation_dataset_tags (dataset_id, key, value)
        SELECT :dataset_id, key, value FROM unnest(:keys, :values) AS g (key, value)),
    new_experiments AS (
        INSERT INTO evaluation_dataset_experiments (dataset_id, experiment_id, added_time_ms)
        SELECT DISTINCT :dataset_id, experiment_id, :now_ms FROM unnest(:experiment_ids) AS g (experiment_id))
    INSERT INTO evaluation_datasets (
        dataset_id, name, digest, created_time_ms, last_update_time_ms, created_by, last_updated_by)
    VALUES (:dataset_id, :name, :digest, :now_ms, :now_ms, :user, :user)
""").bindparams(_DATASET_ID, _KEYS, _VALUES, _EXPERIMENT_IDS, _NOW, bindparam("user", type_=Text))

_LOAD = text("""
    SELECT d.*,
        (SELECT json_agg(json_build_array(key, value) ORDER BY key)
         FROM evaluation_dataset_tags t WHERE t.dataset_id = d.dataset_id) AS tags
    FROM unnest(:dataset_ids) WITH ORDINALITY AS wanted (dataset_id, place)
    JOIN evaluation_datasets d USING (dataset_id)
    ORDER BY place
""").bindparams(bindparam("dataset_ids", type_=ARRAY(Text)))

_LOCK = text("SELECT name, schema FROM evaluation_datasets WHERE dataset_id = :dataset_id FOR NO KEY UPDATE")

_DELETE = text("DELETE FROM evaluation_datasets WHERE dataset_id = :dataset_id RETURNING dataset_id")

_SET_TAGS = text("""
    INSERT INTO evaluation_dataset_tags (dataset_id, key, value)
    SELECT :dataset_id, key, value FROM unnest(:keys, :values) AS g (key, value)
    ON CONFLICT (dataset_id, key) DO UPDATE SET value = excluded.value
""").bindparams(_DATASET_ID, _KEYS, _VALUES)

_DELETE_TAG = text("DELETE FROM evaluation_dataset_tags WHERE dataset_id = :dataset_id AND key = :key")

_EXPERIMENTS_OF = text("""
    SELECT experiment_id FROM evaluation_dataset_experiments WHERE dataset_id = :dataset_id
    ORDER BY added_time_ms, experiment_id::text COLLATE "C"
""")

_ADD_EXPERIMENTS = text("""
    WITH added AS (
        INSERT INTO evaluation_dataset_experiments (dataset_id, experiment_id, added_time_ms)
        SELECT DISTINCT :dataset_id, experiment_id, :now_ms FROM unnest(:experiment_ids) AS g (experiment_id)
        ON CONFLICT DO NOTHING)
    UPDATE evaluation_datasets SET last_update_time_ms = :now_ms WHERE dataset_id = :dataset_id
""").bindparams(_DATASET_ID, _EXPERIMENT_IDS, _NOW)

_REMOVE_EXPERIMENTS = text("""
    WITH removed AS (
        DELETE FROM evaluation_dataset_experiments
        WHERE dataset_id = :dataset_id AND experiment_id = ANY(:experiment_ids)
        RETURNING 1)
    UPDATE evaluation_datasets SET last_update_time_ms = :now_ms
    WHERE dataset_id = :dataset_id AND EXISTS (SELECT FROM removed)
""").bindparams(_DATASET_ID, _EXPERIMENT_IDS, _NOW)


async def existing_experiments(connection: AsyncConnection, experiment_ids: Sequence[int]) -> set[int]:
    """Which of them there are, deleted ones counted; those stay until the transaction ends."""
    return set(await connection.scalars(_EXISTING_EXPERIMENTS, {"experiment_ids": list(experiment_ids)}))


async def create(
    connection: AsyncConnection,
    *,
    dataset_id: str,
    name: str,
    digest: str,
    user: str | None,
    tags: Mapping[str, str | None],
    experiment_ids: Sequence[int],
    now_ms: int,
) -> None:
    values = {
        "dataset_id": dataset_id, "name": name, "digest": digest, "user": user, "now_ms": now_ms,
        "keys": list(tags), "values": list(tags.values()), "experiment_ids": list(experiment_ids),
    }  # fmt: skip
    await connection.execute(_CREATE, values)


async def load(connection: AsyncConnection, dataset_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Datasets in this order, with tags as `[key, value]`."""
    return (await connection.execute(_LOAD, {"dataset_ids": list(dataset_ids)})).all()


async def lock(connection: AsyncConnection, dataset_id: str) -> Row[Any] | None:
    """Serialise the writers of one dataset; its `(name, schema)`, or None."""
    return (await connection.execute(_LOCK, {"dataset_id": dataset_id})).one_or_none()


async def delete(connection: AsyncConnection, dataset_id: str) -> bool:
    """False when it was not there."""
    return await connection.scalar(_DELETE, {"dataset_id": dataset_id}) is not None


async def set_tags(connection: AsyncConnection, dataset_id: str, tags: Mapping[str, str]) -> None:
    values = {"dataset_id": dataset_id, "keys": list(tags), "values": list(tags.values())}
    await connection.execute(_SET_TAGS, values)


async def delete_tag(connection: AsyncConnection, dataset_id: str, key: str) -> None:
    await connection.execute(_DELETE_TAG, {"dataset_id": dataset_id, "key": key})


async def experiments_of(connection: AsyncConnection, dataset_id: str) -> Sequence[int]:
    """In the order in which they were added."""
    return (await connection.scalars(_EXPERIMENTS_OF, {"dataset_id": dataset_id})).all()


async def add_experiments(
    connection: AsyncConnection, dataset_id: str, experiment_ids: Sequence[int], now_ms: int
) -> None:
    values = {"dataset_id": dataset_id, "experiment_ids": list(experiment_ids), "now_ms": now_ms}
    await connection.execute(_ADD_EXPERIMENTS, values)


async def remove_experiments(
    connection: AsyncConnection, dataset_id: str, experiment_ids: Sequence[int], now_ms: int
) -> None:
    values = {"dataset_id": dataset_id, "experiment_ids": list(experiment_ids), "now_ms": now_ms}
    await connection.execute(_REMOVE_EXPERIMENTS, values)

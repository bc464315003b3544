"""All SQL of logged models, except their search and their metrics' writes."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Text, Uuid, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_KEYS, _VALUES = bindparam("keys", type_=ARRAY(Text)), bindparam("values", type_=ARRAY(Text))

_EXPERIMENT = text("SELECT artifact_location, lifecycle_stage FROM experiments WHERE experiment_id = :experiment_id")

# In the mirror its files lie in a folder of its name, unless files of the run or of an earlier model are there. Asked
# under the run's lock, and never again: so a file has one place there, whatever comes later.
_CREATE = text("""
    WITH new_params AS (
        INSERT INTO logged_model_params (model_id, key, value)
        SELECT :model_id, key, value FROM unnest(:keys, :values) AS g (key, value)),
    new_tags AS (
        INSERT INTO logged_model_tags (model_id, key, value)
        SELECT :model_id, key, value FROM unnest(:tag_keys, :tag_values) AS g (key, value))
    INSERT INTO logged_models (
        model_id, experiment_id, name, artifact_uri, creation_timestamp_ms, last_updated_timestamp_ms, status,
        model_type, source_run_id, mirror_folder)
    VALUES (:model_id, :experiment_id, :name, :artifact_uri, :now_ms, :now_ms, :status, :model_type, :source_run_id,
        CASE WHEN :name = 'runmirror'
            OR EXISTS (
                SELECT FROM artifacts
                WHERE run_id = :source_run_id AND model_id = '' AND split_part(path, '/', 1) = :name)
            OR EXISTS (SELECT FROM logged_models WHERE source_run_id = :source_run_id AND name = :name)
        THEN 'runmirror/models/' || :model_id ELSE :name END)
""").bindparams(
    _KEYS,
    _VALUES,
    bindparam("model_id", type_=Text),
    bindparam("name", type_=Text),
    bindparam("tag_keys", type_=ARRAY(Text)),
    bindparam("tag_values", type_=ARRAY(Text)),
    bindparam("source_run_id", type_=Uuid),
)

_SOURCE_RUN = text("SELECT source_run_id FROM logged_models WHERE model_id = :model_id")

_SET_STATUS = text("""
    UPDATE logged_models SET status = :status, last_updated_timestamp_ms = :now_ms WHERE model_id = :model_id
""").bindparams(bindparam("status", type_=Integer))

_DELETE = text("""
    UPDATE logged_models SET lifecycle_stage = 'deleted', last_updated_timestamp_ms = :now_ms WHERE model_id = :model_id
""")

# Waits for a writer of the same key, and then sees what it wrote: hence "DO UPDATE" to what is there.
_ADD_PARAMS = text("""
    INSERT INTO logged_model_params AS p (model_id, key, value)
    SELECT :model_id, key, value FROM unnest(:keys, :values) AS g (key, value)
    ON CONFLICT (model_id, key) DO UPDATE SET value = p.value
    RETURNING key, value
""").bindparams(_KEYS, _VALUES, bindparam("model_id", type_=Text))

_SET_TAGS = text("""
    INSERT INTO logged_model_tags (model_id, key, value)
    SELECT :model_id, key, value FROM unnest(:keys, :values) AS g (key, value)
    ON CONFLICT (model_id, key) DO UPDATE SET value = excluded.value
""").bindparams(_KEYS, _VALUES, bindparam("model_id", type_=Text))

_DELETE_TAG = text("DELETE FROM logged_model_tags WHERE model_id = :model_id AND key = :key RETURNING key")

_LOAD = text("""
    SELECT m.*,
        (SELECT azure_run_id FROM runs WHERE runs.run_id = m.source_run_id) AS azure_run_id,
        (SELECT json_agg(json_build_array(key, value) ORDER BY key)
         FROM logged_model_params p WHERE p.model_id = m.model_id) AS params,
        (SELECT json_agg(json_build_array(key, value) ORDER BY key)
         FROM logged_model_tags t WHERE t.model_id = m.model_id) AS tags,
        (SELECT json_agg(json_build_object(
                    'key', key, 'value', value, 'timestamp', timestamp_ms, 'step', step,
                    'run_id', coalesce(
                        (SELECT azure_run_id FROM runs WHERE runs.run_id = p.run_id), replace(p.run_id::text, '-', '')),
                    'model_id', p.model_id,
                    'dataset_name', dataset_name, 'dataset_digest', dataset_digest)
                ORDER BY key, step, timestamp_ms, run_id)
         FROM logged_model_metrics p WHERE p.model_id = m.model_id) AS metrics
    FROM unnest(:model_ids) WITH ORDINALITY AS wanted (model_id, place) JOIN logged_models m USING (model_id)
    ORDER BY place
""").bindparams(bindparam("model_ids", type_=ARRAY(Text)))


async def experiment(connection: AsyncConnection, experiment_id: int) -> Row[Any] | None:
    """`(artifact_location, lifecycle_stage)`, or None."""
    return (await connection.execute(_EXPERIMENT, {"experiment_id": experiment_id})).one_or_none()


async def create(
    connection: AsyncConnection,
    *,
    model_id: str,
    experiment_id: int,
    name: str,
    artifact_uri: str,
    model_type: str,
    source_run_id: UUID | None,
    status: int,
    now_ms: int,
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    values = {
        "model_id": model_id, "experiment_id": experiment_id, "name": name, "artifact_uri": artifact_uri,
        "model_type": model_type, "source_run_id": source_run_id, "status": status, "now_ms": now_ms,
        "keys": list(params), "values": list(params.values()),
        "tag_keys": list(tags), "tag_values": list(tags.values()),
    }  # fmt: skip
    await connection.execute(_CREATE, values)


async def source_run(connection: AsyncConnection, model_id: str) -> Row[Any] | None:
    """`(source_run_id,)`, or None when there is no such logged model, deleted ones counted."""
    return (await connection.execute(_SOURCE_RUN, {"model_id": model_id})).one_or_none()


async def set_status(connection: AsyncConnection, model_id: str, status: int, now_ms: int) -> None:
    await connection.execute(_SET_STATUS, {"model_id": model_id, "status": status, "now_ms": now_ms})


async def delete(connection: AsyncConnection, model_id: str, now_ms: int) -> None:
    await connection.execute(_DELETE, {"model_id": model_id, "now_ms": now_ms})


async def add_params(connection: AsyncConnection, model_id: str, params: Mapping[str, str]) -> dict[str, str]:
    """What is stored now under these keys: a value that was there before stays."""
    return {row.key: row.value for row in await connection.execute(_ADD_PARAMS, _pairs(model_id, params))}


async def set_tags(connection: AsyncConnection, model_id: str, tags: Mapping[str, str]) -> None:
    await connection.execute(_SET_TAGS, _pairs(model_id, tags))


async def delete_tag(connection: AsyncConnection, model_id: str, key: str) -> bool:
    """Whether there was such a tag."""
    return await connection.scalar(_DELETE_TAG, {"model_id": model_id, "key": key}) is not None


async def load(connection: AsyncConnection, model_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Logged models in this order, with params and tags as `[key, value]` and metrics as MLflow's wire has them."""
    return (await connection.execute(_LOAD, {"model_ids": list(model_ids)})).all()


def _pairs(model_id: str, pairs: Mapping[str, str]) -> dict[str, Any]:
    """Sorted, so that writers of the same rows meet them in the same order."""
    ordered = sorted(pairs.items())
    return {"model_id": model_id, "keys": [key for key, _ in ordered], "values": [value for _, value in ordered]}

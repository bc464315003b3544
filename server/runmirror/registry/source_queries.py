"""What the source of a model version may point to, as the database has it."""

from typing import Any

from sqlalchemy import Integer, Text, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.registry.queries import DELETED
from runmirror.registry.rules import IS_PROMPT

_LOGGED_MODEL = text("""
    SELECT artifact_uri, source_run_id,
        (SELECT azure_run_id FROM runs WHERE runs.run_id = source_run_id) AS azure_run_id
    FROM logged_models WHERE model_id = :model_id AND lifecycle_stage <> 'deleted'
""")

_VERSION = text(f"""
    SELECT v.version, v.run_id, v.storage_location,
        (SELECT t.value FROM registered_model_tags t
         WHERE t.registered_model_id = m.registered_model_id AND t.key = '{IS_PROMPT}') AS prompt
    FROM registered_models m LEFT JOIN LATERAL (
        SELECT * FROM model_versions v
        WHERE v.registered_model_id = m.registered_model_id AND v.current_stage <> '{DELETED}'
        AND (:version IS NULL OR v.version = :version)
        AND (:stage IS NULL OR v.current_stage = :stage)
        AND (:alias IS NULL OR v.version = (
            SELECT a.version FROM registered_model_aliases a
            WHERE a.registered_model_id = m.registered_model_id AND a.alias = :alias))
        ORDER BY v.version DESC LIMIT 1
    ) v ON true
    WHERE m.name = :name
""").bindparams(bindparam("version", type_=Integer), bindparam("stage", type_=Text), bindparam("alias", type_=Text))

_LOCK_LOGGED_MODEL = text("SELECT model_id FROM logged_models WHERE model_id = :model_id FOR NO KEY UPDATE")

_TAG_OF_LOGGED_MODEL = text("SELECT value FROM logged_model_tags WHERE model_id = :model_id AND key = :key")


async def logged_model(connection: AsyncConnection, model_id: str) -> Row[Any] | None:
    """`(artifact_uri, source_run_id, azure_run_id)` of an active logged model."""
    return (await connection.execute(_LOGGED_MODEL, {"model_id": model_id})).one_or_none()


async def source_version(
    connection: AsyncConnection, name: str, *, version: int | None, stage: str | None, alias: str | None
) -> Row[Any] | None:
    """`(version, run_id, storage_location, prompt)` of the newest version that fits; None: no such registered model.

    `version` is None when none fits, and `prompt` is the value of the registered model's prompt tag.
    """
    values = {"name": name, "version": version, "stage": stage, "alias": alias}
    return (await connection.execute(_VERSION, values)).one_or_none()


async def lock_logged_model(connection: AsyncConnection, model_id: str) -> None:
    await connection.execute(_LOCK_LOGGED_MODEL, {"model_id": model_id})


async def tag_of_logged_model(connection: AsyncConnection, model_id: str, key: str) -> str | None:
    value: str | None = await connection.scalar(_TAG_OF_LOGGED_MODEL, {"model_id": model_id, "key": key})
    return value

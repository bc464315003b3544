"""SQL of imported logged models and registered models, as far as nobody else writes such columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_SHAPE = text("""
    UPDATE logged_models SET
        creation_timestamp_ms = :creation_time_ms, last_updated_timestamp_ms = :last_updated_time_ms,
        status = :status, lifecycle_stage = :stage, status_message = :status_message
    WHERE model_id = :model_id
""").bindparams(bindparam("status_message", type_=Text))

# Where files lie here: of runs and of logged models, by where they lay there.
_PLACES = text("""
    SELECT i.key, i.artifact_uri AS old_uri, coalesce(r.artifact_uri, m.artifact_uri) AS artifact_uri
    FROM imported i
    LEFT JOIN runs r ON i.kind = 'run' AND r.run_id = CAST(CASE WHEN i.kind = 'run' THEN i.target END AS uuid)
    LEFT JOIN logged_models m ON i.kind = 'logged_model' AND m.model_id = i.target
    WHERE i.source_id = :source_id AND i.kind IN ('run', 'logged_model') AND i.key = ANY (:keys)
""").bindparams(bindparam("keys", type_=ARRAY(Text)))

_MODEL_LOCATION = text("SELECT artifact_uri FROM logged_models WHERE model_id = :model_id")

_SHAPE_MODEL = text("""
    UPDATE registered_models SET
        description = :description, creation_time_ms = :creation_time_ms,
        last_updated_time_ms = :last_updated_time_ms, last_version = greatest(last_version, :last_version)
    WHERE registered_model_id = :model
""")

_SHAPE_VERSION = text("""
    UPDATE model_versions SET
        creation_time_ms = :creation_time_ms, last_updated_time_ms = :last_updated_time_ms, current_stage = :stage,
        description = :description
    WHERE registered_model_id = :model AND version = :version
""")

_SEQ = text("SELECT seq FROM registered_models WHERE registered_model_id = :model")


async def shape(connection: AsyncConnection, model_id: str, **columns: Any) -> None:
    """What the service would set by its own clock."""
    await connection.execute(_SHAPE, {"model_id": model_id, **columns})


async def places(connection: AsyncConnection, source_id: int, keys: Sequence[str]) -> Sequence[Row[Any]]:
    """`(key, old_uri, artifact_uri)` of runs and logged models that were imported, by their ids."""
    return (await connection.execute(_PLACES, {"source_id": source_id, "keys": list(keys)})).all()


async def model_location(connection: AsyncConnection, model_id: str) -> str | None:
    location: str | None = await connection.scalar(_MODEL_LOCATION, {"model_id": model_id})
    return location


async def shape_registered_model(connection: AsyncConnection, model: int, columns: Mapping[str, Any]) -> None:
    await connection.execute(_SHAPE_MODEL, {"model": model, **columns})


async def shape_version(connection: AsyncConnection, model: int, version: int, columns: Mapping[str, Any]) -> None:
    await connection.execute(_SHAPE_VERSION, {"model": model, "version": version, **columns})


async def seq(connection: AsyncConnection, model: int) -> int:
    """How many writes the registered model has seen."""
    return int((await connection.execute(_SEQ, {"model": model})).scalar_one())

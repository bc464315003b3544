"""All SQL of the registry, except its searches and the look-ups of sources.

A write begins with an update of the registered model's row: it locks it, so that writers of one model take turns, and
counts the write (`seq`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Integer, Text, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.registry.rules import IS_PROMPT

DELETED = "Deleted_Internal"

_TAG_ARRAYS = bindparam("keys", type_=ARRAY(Text)), bindparam("values", type_=ARRAY(Text))

_CREATE_MODEL = text("""
    WITH made AS (
        INSERT INTO registered_models (name, description, creation_time_ms, last_updated_time_ms)
        VALUES (:name, :description, :now_ms, :now_ms)
        ON CONFLICT (name) DO NOTHING
        RETURNING registered_model_id),
    tagged AS (
        INSERT INTO registered_model_tags (registered_model_id, key, value)
        SELECT registered_model_id, key, value FROM made, unnest(:keys, :values) AS given (key, value))
    SELECT registered_model_id FROM made
""").bindparams(*_TAG_ARRAYS)

_BEGIN = text("""
    UPDATE registered_models SET seq = seq + 1, last_updated_time_ms = coalesce(:now_ms, last_updated_time_ms)
    WHERE name = :name RETURNING registered_model_id
""").bindparams(bindparam("now_ms", type_=BigInteger))

_BEGIN_VERSION = text("""
    UPDATE registered_models SET seq = seq + 1, last_version = last_version + 1, last_updated_time_ms = :now_ms
    WHERE name = :name RETURNING registered_model_id, last_version
""")

_NAME_TAKEN = text("SELECT 1 FROM registered_models WHERE name = :name AND registered_model_id <> :model")

_RENAME = text("""
    WITH renamed AS (UPDATE registered_models SET name = :name WHERE registered_model_id = :model)
    UPDATE model_versions SET last_updated_time_ms = :now_ms WHERE registered_model_id = :model
""")

_DESCRIBE_MODEL = text("UPDATE registered_models SET description = :description WHERE registered_model_id = :model")

_DELETE_MODEL = text("DELETE FROM registered_models WHERE name = :name RETURNING registered_model_id")

_SET_MODEL_TAG = text("""
    INSERT INTO registered_model_tags (registered_model_id, key, value) VALUES (:model, :key, :value)
    ON CONFLICT (registered_model_id, key) DO UPDATE SET value = excluded.value
""")

_DELETE_MODEL_TAG = text("DELETE FROM registered_model_tags WHERE registered_model_id = :model AND key = :key")

_IS_PROMPT = text(f"""
    SELECT 1 FROM registered_model_tags
    WHERE registered_model_id = :model AND key = '{IS_PROMPT}' AND lower(value) = 'true'
""")

_SET_ALIAS = text("""
    INSERT INTO registered_model_aliases (registered_model_id, alias, version) VALUES (:model, :alias, :version)
    ON CONFLICT (registered_model_id, alias) DO UPDATE SET version = excluded.version
""")

_DELETE_ALIAS = text("DELETE FROM registered_model_aliases WHERE registered_model_id = :model AND alias = :alias")

_CREATE_VERSION = text("""
    WITH made AS (
        INSERT INTO model_versions (
            registered_model_id, version, creation_time_ms, last_updated_time_ms, description, source,
            storage_location, run_id, run_link)
        VALUES (:model, :version, :now_ms, :now_ms, :description, :source, :storage_location, :run_id, :run_link)
        RETURNING registered_model_id, version)
    INSERT INTO model_version_tags (registered_model_id, version, key, value)
    SELECT registered_model_id, version, key, value FROM made, unnest(:keys, :values) AS given (key, value)
""").bindparams(*_TAG_ARRAYS)

_STAGE_OF = text(f"""
    SELECT current_stage FROM model_versions
    WHERE registered_model_id = :model AND version = :version AND current_stage <> '{DELETED}'
""")

_DESCRIBE_VERSION = text("""
    UPDATE model_versions SET description = :description, last_updated_time_ms = :now_ms
    WHERE registered_model_id = :model AND version = :version
""")

_MOVE_VERSION = text("""
    UPDATE model_versions SET
        current_stage = CASE WHEN version = :version THEN :stage ELSE 'Archived' END,
        last_updated_time_ms = :now_ms
    WHERE registered_model_id = :model AND (version = :version OR (:archive AND current_stage = :stage))
""").bindparams(bindparam("stage", type_=Text))

_DELETE_VERSION = text(f"""
    WITH unnamed AS (
        DELETE FROM registered_model_aliases WHERE registered_model_id = :model AND version = :version)
    UPDATE model_versions SET
        current_stage = '{DELETED}', description = NULL, source = '', storage_location = '', run_id = '', run_link = '',
        last_updated_time_ms = :now_ms
    WHERE registered_model_id = :model AND version = :version
""")

_SET_VERSION_TAG = text("""
    INSERT INTO model_version_tags (registered_model_id, version, key, value) VALUES (:model, :version, :key, :value)
    ON CONFLICT (registered_model_id, version, key) DO UPDATE SET value = excluded.value
""")

_DELETE_VERSION_TAG = text("""
    DELETE FROM model_version_tags WHERE registered_model_id = :model AND version = :version AND key = :key
""")

_VERSION_COLUMNS = """
    m.name, v.version, v.creation_time_ms, v.last_updated_time_ms, v.description, v.current_stage, v.source, v.run_id,
    v.run_link,
    (SELECT json_agg(json_build_object('key', t.key, 'value', t.value) ORDER BY t.key)
     FROM model_version_tags t
     WHERE t.registered_model_id = v.registered_model_id AND t.version = v.version) AS tags
"""
_VERSION_ALIASES = """
    (SELECT json_agg(a.alias ORDER BY a.alias COLLATE "C") FROM registered_model_aliases a
     WHERE a.registered_model_id = v.registered_model_id AND a.version = v.version) AS aliases
"""

# The newest version of every stage, by the stage's oldest version: the order in which MLflow meets the stages.
_LATEST = f"""
    (SELECT {_VERSION_COLUMNS}, {_VERSION_ALIASES},
        (SELECT min(o.version) FROM model_versions o
         WHERE o.registered_model_id = m.registered_model_id AND o.current_stage = v.current_stage) AS oldest
     FROM unnest(ARRAY['None', 'Staging', 'Production', 'Archived']) AS stage, LATERAL (
        SELECT * FROM model_versions n
        WHERE n.registered_model_id = m.registered_model_id AND n.current_stage = stage
        ORDER BY n.version DESC LIMIT 1) v)
"""

_LOAD_MODELS = text(f"""
    SELECT m.name, m.creation_time_ms, m.last_updated_time_ms, m.description,
        (SELECT json_agg(json_build_object('key', t.key, 'value', t.value) ORDER BY t.key)
         FROM registered_model_tags t WHERE t.registered_model_id = m.registered_model_id) AS tags,
        (SELECT json_agg(json_build_object('alias', a.alias, 'version', a.version::text) ORDER BY a.alias COLLATE "C")
         FROM registered_model_aliases a WHERE a.registered_model_id = m.registered_model_id) AS aliases,
        (SELECT json_agg(latest ORDER BY latest.oldest) FROM {_LATEST} AS latest) AS latest_versions
    FROM unnest(:names) WITH ORDINALITY AS wanted (name, place) JOIN registered_models m USING (name)
    ORDER BY place
""").bindparams(bindparam("names", type_=ARRAY(Text)))

_LOAD_VERSIONS = text(f"""
    SELECT {_VERSION_COLUMNS}, {_VERSION_ALIASES}
    FROM unnest(:models, :versions) WITH ORDINALITY AS wanted (registered_model_id, version, place)
    JOIN model_versions v USING (registered_model_id, version)
    JOIN registered_models m USING (registered_model_id)
    ORDER BY place
""").bindparams(bindparam("models", type_=ARRAY(BigInteger)), bindparam("versions", type_=ARRAY(Integer)))

_GET_VERSION = text(f"""
    SELECT {_VERSION_COLUMNS}, v.storage_location, {_VERSION_ALIASES}
    FROM registered_models m JOIN model_versions v USING (registered_model_id)
    WHERE m.name = :name AND v.version = :version AND v.current_stage <> '{DELETED}'
""")

# The version of an alias, and the newest of all stages.
_ALIASED = text(f"""
    SELECT a.version,
        (SELECT max(v.version) FROM model_versions v
         WHERE v.registered_model_id = m.registered_model_id AND v.current_stage <> '{DELETED}') AS newest
    FROM registered_models m LEFT JOIN registered_model_aliases a
        ON a.registered_model_id = m.registered_model_id AND a.alias = :alias
    WHERE m.name = :name
""")


async def create_model(
    connection: AsyncConnection, name: str, description: str, tags: Mapping[str, str], now_ms: int
) -> int | None:
    """Its id; None when the name is taken."""
    values = {"name": name, "description": description, "now_ms": now_ms, **_arrays(tags)}
    model: int | None = await connection.scalar(_CREATE_MODEL, values)
    return model


async def begin(connection: AsyncConnection, name: str, now_ms: int | None = None) -> int | None:
    """Lock a registered model for a write and count it; with `now_ms` it is updated then. None: no such model."""
    model: int | None = await connection.scalar(_BEGIN, {"name": name, "now_ms": now_ms})
    return model


async def begin_version(connection: AsyncConnection, name: str, now_ms: int) -> tuple[int, int] | None:
    """As `begin`, and give out the next version number."""
    row = (await connection.execute(_BEGIN_VERSION, {"name": name, "now_ms": now_ms})).one_or_none()
    return None if row is None else (row.registered_model_id, row.last_version)


async def name_taken(connection: AsyncConnection, model: int, name: str) -> bool:
    return await connection.scalar(_NAME_TAKEN, {"model": model, "name": name}) is not None


async def rename(connection: AsyncConnection, model: int, name: str, now_ms: int) -> None:
    await connection.execute(_RENAME, {"model": model, "name": name, "now_ms": now_ms})


async def describe_model(connection: AsyncConnection, model: int, description: str) -> None:
    await connection.execute(_DESCRIBE_MODEL, {"model": model, "description": description})


async def delete_model(connection: AsyncConnection, name: str) -> int | None:
    """Erase a registered model and all that belongs to it: the id it had, if there was one."""
    model: int | None = await connection.scalar(_DELETE_MODEL, {"name": name})
    return model


async def set_model_tag(connection: AsyncConnection, model: int, key: str, value: str) -> None:
    await connection.execute(_SET_MODEL_TAG, {"model": model, "key": key, "value": value})


async def delete_model_tag(connection: AsyncConnection, model: int, key: str) -> None:
    await connection.execute(_DELETE_MODEL_TAG, {"model": model, "key": key})


async def is_prompt(connection: AsyncConnection, model: int) -> bool:
    return (await connection.execute(_IS_PROMPT, {"model": model})).first() is not None


async def set_alias(connection: AsyncConnection, model: int, alias: str, version: int) -> None:
    await connection.execute(_SET_ALIAS, {"model": model, "alias": alias, "version": version})


async def delete_alias(connection: AsyncConnection, model: int, alias: str) -> None:
    await connection.execute(_DELETE_ALIAS, {"model": model, "alias": alias})


async def create_version(
    connection: AsyncConnection,
    model: int,
    version: int,
    *,
    source: str,
    storage_location: str,
    run_id: str,
    run_link: str,
    description: str,
    tags: Mapping[str, str],
    now_ms: int,
) -> None:
    values = {
        "model": model, "version": version, "source": source, "storage_location": storage_location, "run_id": run_id,
        "run_link": run_link, "description": description, "now_ms": now_ms, **_arrays(tags),
    }  # fmt: skip
    await connection.execute(_CREATE_VERSION, values)


async def has_version(connection: AsyncConnection, model: int, version: int) -> bool:
    return await connection.scalar(_STAGE_OF, {"model": model, "version": version}) is not None


async def describe_version(
    connection: AsyncConnection, model: int, version: int, description: str | None, now_ms: int
) -> None:
    values = {"model": model, "version": version, "description": description, "now_ms": now_ms}
    await connection.execute(_DESCRIBE_VERSION, values)


async def move_version(
    connection: AsyncConnection, model: int, version: int, stage: str, *, archive: bool, now_ms: int
) -> None:
    """Put a version into a stage and, with `archive`, the versions that were there into Archived."""
    values = {"model": model, "version": version, "stage": stage, "archive": archive, "now_ms": now_ms}
    await connection.execute(_MOVE_VERSION, values)


async def delete_version(connection: AsyncConnection, model: int, version: int, now_ms: int) -> None:
    """Empty a version and take its aliases away; its number and its tags stay, as in MLflow."""
    await connection.execute(_DELETE_VERSION, {"model": model, "version": version, "now_ms": now_ms})


async def set_version_tag(connection: AsyncConnection, model: int, version: int, key: str, value: str) -> None:
    await connection.execute(_SET_VERSION_TAG, {"model": model, "version": version, "key": key, "value": value})


async def delete_version_tag(connection: AsyncConnection, model: int, version: int, key: str) -> None:
    await connection.execute(_DELETE_VERSION_TAG, {"model": model, "version": version, "key": key})


async def load_models(connection: AsyncConnection, names: Sequence[str]) -> Sequence[Row[Any]]:
    """Registered models in this order, with tags, aliases and the latest version of each stage."""
    return (await connection.execute(_LOAD_MODELS, {"names": list(names)})).all()


async def load_versions(connection: AsyncConnection, ids: Sequence[tuple[int, int]]) -> Sequence[Row[Any]]:
    """Model versions by (registered_model_id, version), in this order."""
    values = {"models": [model for model, _ in ids], "versions": [version for _, version in ids]}
    return (await connection.execute(_LOAD_VERSIONS, values)).all()


async def get_version(connection: AsyncConnection, name: str, version: int) -> Row[Any] | None:
    """A version that is not deleted, with `storage_location`."""
    return (await connection.execute(_GET_VERSION, {"name": name, "version": version})).one_or_none()


async def aliased(connection: AsyncConnection, name: str, alias: str) -> Row[Any] | None:
    """`(version, newest)`: the alias's version and the newest of all, either may be None; None: no such model."""
    return (await connection.execute(_ALIASED, {"name": name, "alias": alias})).one_or_none()


def _arrays(tags: Mapping[str, str]) -> dict[str, list[str]]:
    return {"keys": list(tags), "values": list(tags.values())}

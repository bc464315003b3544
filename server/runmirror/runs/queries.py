"""SQL that reads runs, and that writes a run's own row."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, JSON, BigInteger, Text, Uuid, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_INFO = """
    run_id, experiment_id, name, user_id, status, start_time_ms, end_time_ms, lifecycle_stage, artifact_uri,
    azure_run_id
"""

_EXPERIMENT = text("SELECT artifact_location, lifecycle_stage FROM experiments WHERE experiment_id = :experiment_id")

_CREATE = text("""
    WITH tagged AS (
        INSERT INTO tags (run_id, key, value, seq)
        SELECT :run_id, key, value, 1 FROM unnest(:keys, :values) AS given (key, value))
    INSERT INTO runs (run_id, experiment_id, name, user_id, status, start_time_ms, artifact_uri)
    VALUES (:run_id, :experiment_id, :name, :user_id, 'RUNNING', :start_time_ms, :artifact_uri)
""").bindparams(bindparam("keys", type_=ARRAY(Text)), bindparam("values", type_=ARRAY(Text)))

_UPDATE_INFO = text(f"""
    UPDATE runs SET
        name = coalesce(:name, name),
        status = coalesce(:status, status),
        end_time_ms = coalesce(:end_time_ms, end_time_ms),
        info_seq = :seq
    WHERE run_id = :run_id
    RETURNING {_INFO}
""").bindparams(
    bindparam("name", type_=Text),
    bindparam("status", type_=Text),
    bindparam("end_time_ms", type_=BigInteger),
)

_SET_STAGE = text("""
    UPDATE runs SET lifecycle_stage = :stage, deleted_time_ms = :deleted_time_ms, info_seq = :seq WHERE run_id = :run_id
""")

_WANTED = bindparam("run_ids", type_=ARRAY(Uuid))

_LOAD = (
    text(f"""
    SELECT {_INFO},
        (SELECT json_agg(json_build_array(key, CASE WHEN value = 'NaN' THEN NULL ELSE value END, timestamp_ms, step)
                         ORDER BY key)
         FROM latest_metrics m WHERE m.run_id = r.run_id) AS metrics,
        (SELECT json_agg(json_build_array(key, value) ORDER BY key) FROM params p WHERE p.run_id = r.run_id) AS params,
        (SELECT json_agg(json_build_array(key, value) ORDER BY key)
         FROM tags t WHERE t.run_id = r.run_id AND value IS NOT NULL) AS tags
    FROM unnest(:run_ids) WITH ORDINALITY AS wanted (run_id, place) JOIN runs r USING (run_id)
    ORDER BY place
""")
    .bindparams(_WANTED)
    .columns(metrics=JSON, params=JSON, tags=JSON)
)

# A run as the JSON that clients read, but for its end: Postgres writes it faster than Python. Whole numbers keep `.0`.
_NUMBER = """
    CASE WHEN value = 'NaN' THEN '"NaN"'
         WHEN value = trunc(value) AND abs(value) < 1e15 THEN value::text || '.0' ELSE value::text END
"""
_METRIC = f"""
    concat('{{"key":', to_json(key), ',"value":', {_NUMBER}, ',"timestamp":', timestamp_ms, ',"step":', step, '}}')
"""
_PAIR = """concat('{"key":', to_json(key), ',"value":', to_json(value), '}')"""
_LOAD_JSON = text(
    f"""
    WITH wanted AS (SELECT run_id, place FROM unnest(:run_ids) WITH ORDINALITY AS given (run_id, place)),
    found_metrics AS (
        SELECT run_id, '"metrics":[' || string_agg({_METRIC}, ',' ORDER BY key) || ']' AS metrics
        FROM latest_metrics WHERE run_id = ANY (:run_ids) GROUP BY run_id),
    found_params AS (
        SELECT run_id, '"params":[' || string_agg({_PAIR}, ',' ORDER BY key) || ']' AS params
        FROM params WHERE run_id = ANY (:run_ids) GROUP BY run_id),
    found_tags AS (
        SELECT run_id, '"tags":[' || string_agg({_PAIR}, ',' ORDER BY key) || ']' AS tags
        FROM tags WHERE run_id = ANY (:run_ids) AND value IS NOT NULL GROUP BY run_id)
    SELECT run_id, concat(
        '{{"info":{{"run_uuid":', shown_id, ',"experiment_id":"', experiment_id, '","run_name":', to_json(name),
        ',"user_id":', to_json(user_id), ',"status":"', status, '","start_time":', start_time_ms,
        ',"end_time":' || nullif(end_time_ms, 0), ',"artifact_uri":', to_json(artifact_uri),
        ',"lifecycle_stage":"', lifecycle_stage, '","run_id":', shown_id, '}},"data":{{',
        concat_ws(',', metrics, params, tags), '}}') AS json
    FROM wanted JOIN runs USING (run_id)
        CROSS JOIN LATERAL to_json(coalesce(azure_run_id, encode(uuid_send(run_id), 'hex'))) AS shown_id
        LEFT JOIN found_metrics USING (run_id) LEFT JOIN found_params USING (run_id) LEFT JOIN found_tags USING (run_id)
    ORDER BY place
""".replace("::", r"\:\:").replace('":', r'"\:')
).bindparams(_WANTED)


async def experiment(connection: AsyncConnection, experiment_id: int) -> Row[Any] | None:
    """`(artifact_location, lifecycle_stage)`, or None."""
    return (await connection.execute(_EXPERIMENT, {"experiment_id": experiment_id})).one_or_none()


async def create(
    connection: AsyncConnection, *, run_id: UUID, experiment_id: int, name: str, user_id: str, start_time_ms: int,
    artifact_uri: str, tags: dict[str, str],
) -> None:  # fmt: skip
    """A running run with its tags, all stamped seq 1."""
    await connection.execute(
        _CREATE,
        {
            "run_id": run_id, "experiment_id": experiment_id, "name": name, "user_id": user_id,
            "start_time_ms": start_time_ms, "artifact_uri": artifact_uri,
            "keys": list(tags), "values": list(tags.values()),
        },
    )  # fmt: skip


async def update_info(
    connection: AsyncConnection, run_id: UUID, seq: int, *, name: str | None = None, status: str | None = None,
    end_time_ms: int | None = None,
) -> Row[Any]:  # fmt: skip
    """The run's row after the change; None leaves a column as it is."""
    values = {"run_id": run_id, "seq": seq, "name": name, "status": status, "end_time_ms": end_time_ms}
    return (await connection.execute(_UPDATE_INFO, values)).one()


async def set_stage(connection: AsyncConnection, run_id: UUID, seq: int, stage: str, deleted_ms: int | None) -> None:
    values = {"run_id": run_id, "seq": seq, "stage": stage, "deleted_time_ms": deleted_ms}
    await connection.execute(_SET_STAGE, values)


async def load(connection: AsyncConnection, run_ids: Sequence[UUID]) -> Sequence[Row[Any]]:
    """Runs in this order: metrics `[key, value (None: NaN), timestamp_ms, step]`, params and tags `[key, value]`."""
    return (await connection.execute(_LOAD, {"run_ids": list(run_ids)})).all()


async def load_json(connection: AsyncConnection, run_ids: Sequence[UUID]) -> Sequence[Row[Any]]:
    """`(run_id, json)` of runs in this order: `Run` of MLflow's wire without inputs, outputs and its last brace."""
    return (await connection.execute(_LOAD_JSON, {"run_ids": list(run_ids)})).all()

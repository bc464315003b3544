"""SQL that reads what is here, many at a time, for the comparison with a source."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, JSON, Text, Uuid, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_RUNS = (
    text("""
    SELECT r.run_id, r.experiment_id, r.name, r.user_id, r.status, r.start_time_ms, r.end_time_ms, r.lifecycle_stage,
        r.seq, r.info_seq, p.params, t.tags, l.latest, m.points, d.datasets, mi.model_inputs, mo.model_outputs
    FROM runs r
    LEFT JOIN (SELECT run_id, json_object_agg(key, json_build_array(value, seq)) AS params
        FROM params WHERE run_id = ANY (:run_ids) GROUP BY run_id) p USING (run_id)
    LEFT JOIN (SELECT run_id, json_object_agg(key, json_build_array(value, seq)) AS tags
        FROM tags WHERE run_id = ANY (:run_ids) GROUP BY run_id) t USING (run_id)
    LEFT JOIN (SELECT run_id, json_object_agg(key, json_build_array(
            CASE WHEN value = 'NaN' THEN NULL ELSE value END, timestamp_ms, step, seq)) AS latest
        FROM latest_metrics WHERE run_id = ANY (:run_ids) GROUP BY run_id) l USING (run_id)
    LEFT JOIN (SELECT run_id, json_agg(json_build_array(seq, points)) AS points FROM (
            SELECT run_id, seq, count(*) AS points FROM metrics WHERE run_id = ANY (:run_ids) GROUP BY run_id, seq
            UNION ALL
            SELECT run_id, seq, sum(points) FROM metric_chunks WHERE run_id = ANY (:run_ids) GROUP BY run_id, seq)
            AS of_writes
        GROUP BY run_id) m USING (run_id)
    LEFT JOIN (SELECT i.run_id, json_agg(json_build_array(d.name, d.digest)) AS datasets
        FROM dataset_inputs i JOIN datasets d USING (dataset_id) WHERE i.run_id = ANY (:run_ids)
        GROUP BY i.run_id) d USING (run_id)
    LEFT JOIN (SELECT run_id, json_agg(model_id) AS model_inputs
        FROM model_inputs WHERE run_id = ANY (:run_ids) GROUP BY run_id) mi USING (run_id)
    LEFT JOIN (SELECT run_id, json_agg(json_build_array(model_id, step)) AS model_outputs
        FROM model_outputs WHERE run_id = ANY (:run_ids) GROUP BY run_id) mo USING (run_id)
    WHERE r.run_id = ANY (:run_ids)
""")
    .bindparams(bindparam("run_ids", type_=ARRAY(Uuid)))
    .columns(params=JSON, tags=JSON, latest=JSON, points=JSON, datasets=JSON, model_inputs=JSON, model_outputs=JSON)
)

_FILES = text("""
    SELECT run_id, path, size_bytes FROM artifacts WHERE run_id = ANY (:run_ids) AND model_id = '' AND NOT deleted
""").bindparams(bindparam("run_ids", type_=ARRAY(Uuid)))

_MODELS = (
    text("""
    SELECT m.model_id, m.name, m.status, m.lifecycle_stage, m.source_run_id,
        (SELECT json_object_agg(key, value) FROM logged_model_params p WHERE p.model_id = m.model_id) AS params,
        (SELECT count(*) FROM logged_model_metrics k WHERE k.model_id = m.model_id) AS metrics,
        (SELECT json_object_agg(path, size_bytes) FROM artifacts a
         WHERE a.run_id = m.source_run_id AND a.model_id = m.model_id AND NOT deleted) AS files
    FROM logged_models m WHERE m.model_id = ANY (:model_ids)
""")
    .bindparams(bindparam("model_ids", type_=ARRAY(Text)))
    .columns(params=JSON, files=JSON)
)

_REGISTERED_MODEL = text("""
    SELECT (SELECT json_object_agg(version, current_stage) FROM model_versions v
            WHERE v.registered_model_id = m.registered_model_id AND current_stage <> 'Deleted_Internal') AS versions,
        (SELECT json_object_agg(alias, version) FROM registered_model_aliases a
         WHERE a.registered_model_id = m.registered_model_id) AS aliases
    FROM registered_models m WHERE m.name = :name
""").columns(versions=JSON, aliases=JSON)

_TRACES = text("""
    SELECT trace_id, state,
        (SELECT count(*) FROM spans s WHERE s.trace_id = t.trace_id) AS spans,
        (SELECT count(*) FROM assessments a WHERE a.trace_id = t.trace_id) AS assessments
    FROM traces t WHERE trace_id = ANY (:trace_ids)
""").bindparams(bindparam("trace_ids", type_=ARRAY(Text)))


async def runs(connection: AsyncConnection, run_ids: Sequence[UUID]) -> dict[UUID | None, Row[Any]]:
    """By id; params and tags (deleted ones too) are `[value, seq]` by key, latest is `[value (None: NaN), timestamp_ms,
    step, seq]`, points are pairs of a write and how many it wrote."""
    return {row.run_id: row for row in await connection.execute(_RUNS, {"run_ids": list(run_ids)})}


async def files(connection: AsyncConnection, run_ids: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
    """Sizes by path, by run."""
    found: dict[UUID, dict[str, int]] = {}
    for row in await connection.execute(_FILES, {"run_ids": list(run_ids)}):
        found.setdefault(row.run_id, {})[row.path] = row.size_bytes
    return found


async def models(connection: AsyncConnection, model_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Logged models by id, with the sizes of their files by path."""
    return {row.model_id: row for row in await connection.execute(_MODELS, {"model_ids": list(model_ids)})}


async def registered_model(connection: AsyncConnection, name: str) -> Row[Any] | None:
    """`(versions, aliases)`: stages by version, versions by alias."""
    return (await connection.execute(_REGISTERED_MODEL, {"name": name})).one_or_none()


async def traces(connection: AsyncConnection, trace_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """`(trace_id, state, spans, assessments)`, the last two counted."""
    return {row.trace_id: row for row in await connection.execute(_TRACES, {"trace_ids": list(trace_ids)})}

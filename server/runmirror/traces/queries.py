"""SQL of traces themselves: read, start, end, tags, links, deletion."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, JSON, BigInteger, Text, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.traces.keys import COST_COLUMNS, FINALIZED, TOKEN_COLUMNS

_FIGURES = ("session_id", *TOKEN_COLUMNS, *COST_COLUMNS)
_IDS = bindparam("trace_ids", type_=ARRAY(Text))

_EXPERIMENT = text("SELECT artifact_location, lifecycle_stage FROM experiments WHERE experiment_id = :experiment_id")

_LOAD = (
    text("""
    SELECT t.*,
        (SELECT json_agg(a ORDER BY a.created_ms, a.assessment_id)
         FROM assessments a WHERE a.trace_id = t.trace_id) AS assessments
    FROM unnest(:trace_ids) WITH ORDINALITY AS wanted (trace_id, place) JOIN traces t USING (trace_id)
    WHERE :experiment_ids IS NULL OR t.experiment_id = ANY (:experiment_ids)
    ORDER BY place
""")
    .bindparams(_IDS, bindparam("experiment_ids", type_=ARRAY(BigInteger)))
    .columns(tags=JSONB, trace_metadata=JSONB, assessments=JSON)
)

# A column that is a key of the metadata given is overwritten, even by NULL; the others stay.
_START = text(f"""
    INSERT INTO traces AS t (
        trace_id, experiment_id, request_time_ms, execution_time_ms, state, client_request_id,
        request_preview, response_preview, name, tags, trace_metadata, usage_is_final, cost_is_final,
        {", ".join(_FIGURES)})
    SELECT g.trace_id, g.experiment_id, g.request_time_ms, g.execution_time_ms, g.state, g.client_request_id,
        g.request_preview, g.response_preview, g.name, g.tags, g.trace_metadata, g.usage_is_final, g.cost_is_final,
        {", ".join("g." + f for f in _FIGURES)}
    FROM json_populate_record(NULL::traces, CAST(:row AS json)) AS g
    ON CONFLICT (trace_id) DO UPDATE SET
        experiment_id = excluded.experiment_id,
        request_time_ms = excluded.request_time_ms,
        execution_time_ms = excluded.execution_time_ms,
        state = excluded.state,
        client_request_id = excluded.client_request_id,
        request_preview = coalesce(excluded.request_preview, t.request_preview),
        response_preview = coalesce(excluded.response_preview, t.response_preview),
        name = coalesce(excluded.name, t.name),
        tags = t.tags || excluded.tags,
        trace_metadata = t.trace_metadata || excluded.trace_metadata,
        usage_is_final = t.usage_is_final OR excluded.usage_is_final,
        cost_is_final = t.cost_is_final OR excluded.cost_is_final,
        {", ".join(f"{f} = CASE WHEN '{f}' = ANY (:given) THEN excluded.{f} ELSE t.{f} END" for f in _FIGURES)}
""").bindparams(bindparam("row", type_=Text), bindparam("given", type_=ARRAY(Text)))

_END = text(f"""
    UPDATE traces t SET
        execution_time_ms = :end_time_ms - t.request_time_ms,
        state = :state,
        name = coalesce(:name, t.name),
        tags = t.tags || :tags,
        trace_metadata = t.trace_metadata || :trace_metadata,
        {", ".join(f"{f} = CASE WHEN '{f}' = ANY (:given) THEN g.{f} ELSE t.{f} END" for f in _FIGURES)}
    FROM json_populate_record(NULL::traces, CAST(:row AS json)) AS g
    WHERE t.trace_id = :trace_id
    RETURNING t.trace_id
""").bindparams(
    bindparam("end_time_ms", type_=BigInteger),
    bindparam("name", type_=Text),
    bindparam("tags", type_=JSONB),
    bindparam("trace_metadata", type_=JSONB),
    bindparam("given", type_=ARRAY(Text)),
    bindparam("row", type_=Text),
)

_SET_TAG = text("""
    UPDATE traces SET tags = tags || jsonb_build_object(:key, :value) WHERE trace_id = :trace_id RETURNING trace_id
""").bindparams(bindparam("key", type_=Text), bindparam("value", type_=Text))

_SET_NAME = text("UPDATE traces SET name = :name WHERE trace_id = :trace_id RETURNING trace_id").bindparams(
    bindparam("name", type_=Text)
)

_DELETE_TAG = text("""
    UPDATE traces SET tags = tags - :key WHERE trace_id = :trace_id AND jsonb_exists(tags, :key) RETURNING trace_id
""").bindparams(bindparam("key", type_=Text))

_DELETE_NAME = text("UPDATE traces SET name = NULL WHERE trace_id = :trace_id AND name IS NOT NULL RETURNING trace_id")

_LINK = text("""
    INSERT INTO trace_links (trace_id, kind, target)
    SELECT trace_id, :kind, target FROM unnest(:trace_ids, :targets) AS g (trace_id, target)
    ORDER BY trace_id, target
    ON CONFLICT DO NOTHING
""").bindparams(_IDS, bindparam("kind", type_=Text), bindparam("targets", type_=ARRAY(Text)))

# Locked first, in one order: what else is written for these traces is there, or waits and finds them gone.
_LOCK_BY_ID = text("""
    SELECT trace_id FROM traces WHERE experiment_id = :experiment_id AND trace_id = ANY (:trace_ids)
    ORDER BY request_time_ms, trace_id FOR UPDATE
""").bindparams(_IDS)

_LOCK_BY_AGE = text("""
    SELECT trace_id FROM traces WHERE experiment_id = :experiment_id AND request_time_ms <= :max_timestamp_ms
    ORDER BY request_time_ms, trace_id LIMIT :max_traces FOR UPDATE
""").bindparams(bindparam("max_timestamp_ms", type_=BigInteger), bindparam("max_traces", type_=BigInteger))

_DELETE = text("""
    WITH s AS (DELETE FROM spans WHERE trace_id = ANY (:trace_ids)),
    a AS (DELETE FROM assessments WHERE trace_id = ANY (:trace_ids)),
    l AS (DELETE FROM trace_links WHERE trace_id = ANY (:trace_ids))
    DELETE FROM traces WHERE trace_id = ANY (:trace_ids)
""").bindparams(_IDS)

_ROOT = text("""
    SELECT e.artifact_location FROM traces t JOIN experiments e USING (experiment_id) WHERE t.trace_id = :trace_id
""")


async def experiment(connection: AsyncConnection, experiment_id: int) -> Row[Any] | None:
    """`(artifact_location, lifecycle_stage)`, or None."""
    return (await connection.execute(_EXPERIMENT, {"experiment_id": experiment_id})).one_or_none()


async def load(
    connection: AsyncConnection, trace_ids: Sequence[str], experiment_ids: Sequence[int] | None = None
) -> Sequence[Row[Any]]:
    """Traces in this order, each once, with their assessments; of these experiments only, unless that is None."""
    values = {"trace_ids": list(dict.fromkeys(trace_ids)), "experiment_ids": experiment_ids}
    return (await connection.execute(_LOAD, values)).all()


async def start(connection: AsyncConnection, row: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Create a trace, or complete one that its spans have made; `figures` are columns that metadata gave."""
    final = {
        "usage_is_final": any(figures.get(name) is not None for name in TOKEN_COLUMNS),
        "cost_is_final": any(figures.get(name) is not None for name in COST_COLUMNS),
        "trace_metadata": row["trace_metadata"] | {FINALIZED: "true"},
    }
    await connection.execute(_START, {"row": json.dumps({**row, **figures, **final}), "given": list(figures)})


async def create(connection: AsyncConnection, row: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Create a trace that will be ended later, as clients before MLflow 3 do."""
    final = {"usage_is_final": False, "cost_is_final": False}
    await connection.execute(_START, {"row": json.dumps({**row, **figures, **final}), "given": list(figures)})


async def end(
    connection: AsyncConnection,
    trace_id: str,
    *,
    end_time_ms: int,
    state: str,
    name: str | None,
    tags: Mapping[str, str],
    trace_metadata: Mapping[str, str],
    figures: Mapping[str, Any],
) -> bool:
    """Whether there is such a trace."""
    values = {
        "trace_id": trace_id, "end_time_ms": end_time_ms, "state": state, "name": name, "tags": dict(tags),
        "trace_metadata": dict(trace_metadata), "given": list(figures), "row": json.dumps(dict(figures)),
    }  # fmt: skip
    return await connection.scalar(_END, values) is not None


async def set_tag(connection: AsyncConnection, trace_id: str, key: str, value: str) -> bool:
    """Whether there is such a trace."""
    return await connection.scalar(_SET_TAG, {"trace_id": trace_id, "key": key, "value": value}) is not None


async def set_name(connection: AsyncConnection, trace_id: str, name: str) -> bool:
    """Whether there is such a trace."""
    return await connection.scalar(_SET_NAME, {"trace_id": trace_id, "name": name}) is not None


async def delete_tag(connection: AsyncConnection, trace_id: str, key: str) -> bool:
    """Whether there was such a tag."""
    return await connection.scalar(_DELETE_TAG, {"trace_id": trace_id, "key": key}) is not None


async def delete_name(connection: AsyncConnection, trace_id: str) -> bool:
    """Whether there was one."""
    return await connection.scalar(_DELETE_NAME, {"trace_id": trace_id}) is not None


async def link(connection: AsyncConnection, kind: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Link each `(trace_id, target)`, `kind` being run or prompt; links that are there stay."""
    values = {"kind": kind, "trace_ids": [pair[0] for pair in pairs], "targets": [pair[1] for pair in pairs]}
    await connection.execute(_LINK, values)


async def delete(connection: AsyncConnection, experiment_id: int, trace_ids: Sequence[str]) -> int:
    """Delete traces of an experiment with all that hangs on them; returns how many there were."""
    values = {"experiment_id": experiment_id, "trace_ids": list(trace_ids)}
    return await _delete(connection, (await connection.execute(_LOCK_BY_ID, values)).scalars().all())


async def delete_oldest(
    connection: AsyncConnection, experiment_id: int, max_timestamp_ms: int, max_traces: int | None
) -> int:
    """Delete traces that began at `max_timestamp_ms` or before, oldest first; returns how many."""
    values = {"experiment_id": experiment_id, "max_timestamp_ms": max_timestamp_ms, "max_traces": max_traces}
    return await _delete(connection, (await connection.execute(_LOCK_BY_AGE, values)).scalars().all())


async def artifact_location(connection: AsyncConnection, trace_id: str) -> str | None:
    """Of the trace's experiment; None when there is no such trace."""
    location: str | None = await connection.scalar(_ROOT, {"trace_id": trace_id})
    return location


async def _delete(connection: AsyncConnection, trace_ids: Sequence[str]) -> int:
    if trace_ids:
        await connection.execute(_DELETE, {"trace_ids": list(trace_ids)})
    return len(trace_ids)

"""SQL of spans: they make the trace they belong to, or complete it, and are replaced when they are sent again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.traces.keys import ARTIFACT_LOCATION, CHAT_USAGE, COST_COLUMNS, FINALIZED, LLM_COST, TOKEN_COLUMNS

_ROWS = bindparam("rows", type_=Text)
_SPAN_COLUMNS = (
    "trace_id", "span_id", "parent_span_id", "name", "type", "status", "status_message", "start_time_ns", "end_time_ns",
    "attributes", "events", "links", "model_name", "model_provider", "input_cost", "output_cost", "total_cost",
)  # fmt: skip
_END_MS = "(t.request_time_ms + t.execution_time_ms)"
_GIVEN_END_MS = "(excluded.request_time_ms + excluded.execution_time_ms)"
_IS_FINAL = f"jsonb_exists(t.trace_metadata, '{FINALIZED}')"

# Ordered by id, so that two exports lock traces in one order. What a trace says of itself (start-trace, a tag, an
# earlier span) stands; spans add to it. RETURNING tells what of the sums start-trace has fixed.
_OPEN = text(f"""
    INSERT INTO traces AS t (
        trace_id, experiment_id, request_time_ms, execution_time_ms, state, request_preview, response_preview, name,
        session_id, tags, trace_metadata)
    SELECT trace_id, experiment_id, request_time_ms, execution_time_ms, state, request_preview, response_preview, name,
        session_id, tags, trace_metadata
    FROM json_populate_recordset(NULL::traces, CAST(:rows AS json)) ORDER BY trace_id
    ON CONFLICT (trace_id) DO UPDATE SET
        request_time_ms = CASE WHEN {_IS_FINAL} THEN t.request_time_ms
            ELSE least(t.request_time_ms, excluded.request_time_ms) END,
        execution_time_ms = CASE WHEN {_IS_FINAL} THEN t.execution_time_ms
            ELSE greatest({_END_MS}, {_GIVEN_END_MS}) - least(t.request_time_ms, excluded.request_time_ms) END,
        state = CASE WHEN t.state IN ('IN_PROGRESS', 'STATE_UNSPECIFIED') AND excluded.state <> 'IN_PROGRESS'
            THEN excluded.state ELSE t.state END,
        request_preview = coalesce(t.request_preview, excluded.request_preview),
        response_preview = coalesce(t.response_preview, excluded.response_preview),
        name = coalesce(excluded.name, t.name),
        session_id = coalesce(t.session_id, excluded.session_id),
        tags = t.tags || (excluded.tags - '{ARTIFACT_LOCATION}'),
        trace_metadata = excluded.trace_metadata || t.trace_metadata
    RETURNING t.trace_id, t.usage_is_final, t.cost_is_final
""").bindparams(_ROWS)

_WRITE = text(f"""
    INSERT INTO spans ({", ".join(_SPAN_COLUMNS)})
    SELECT {", ".join(_SPAN_COLUMNS)} FROM json_populate_recordset(NULL::spans, CAST(:rows AS json))
    ON CONFLICT (trace_id, span_id) DO UPDATE SET {", ".join(f"{c} = excluded.{c}" for c in _SPAN_COLUMNS[2:])}
""").bindparams(_ROWS)

_FIGURES = text(f"""
    SELECT trace_id, span_id, parent_span_id,
        attributes ->> '{CHAT_USAGE}' AS usage, attributes ->> '{LLM_COST}' AS cost
    FROM spans WHERE trace_id = ANY (:trace_ids)
""").bindparams(bindparam("trace_ids", type_=ARRAY(Text)))

_SET_FIGURES = text(f"""
    UPDATE traces t SET {", ".join(f"{c} = coalesce(g.{c}, t.{c})" for c in (*TOKEN_COLUMNS, *COST_COLUMNS))}
    FROM json_populate_recordset(NULL::traces, CAST(:rows AS json)) AS g WHERE t.trace_id = g.trace_id
""").bindparams(_ROWS)

_LOAD = (
    text("SELECT * FROM spans WHERE trace_id = ANY (:trace_ids)")
    .bindparams(bindparam("trace_ids", type_=ARRAY(Text)))
    .columns(attributes=JSONB, events=JSONB, links=JSONB)
)


async def open_traces(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> Sequence[Row[Any]]:
    """Create or complete the traces of spans, and lock them: `(trace_id, usage_is_final, cost_is_final)` of each."""
    return (await connection.execute(_OPEN, {"rows": json.dumps(rows)})).all()


async def write(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of traces that the caller has locked; no two of one span."""
    await connection.execute(_WRITE, {"rows": json.dumps(rows)})


async def figures(connection: AsyncConnection, trace_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """`(trace_id, span_id, parent_span_id, usage, cost)` of every span, the last two as JSON text."""
    return (await connection.execute(_FIGURES, {"trace_ids": list(trace_ids)})).all()


async def set_figures(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Columns of `traces` by `trace_id`; what is not there stays."""
    await connection.execute(_SET_FIGURES, {"rows": json.dumps(rows)})


async def load(connection: AsyncConnection, trace_ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """The spans of each trace that has any, in no order."""
    found: dict[str, list[Row[Any]]] = {}
    for row in await connection.execute(_LOAD, {"trace_ids": list(trace_ids)}):
        found.setdefault(row.trace_id, []).append(row)
    return found

"""Traces with their spans, and when they are whole."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.errors import DoesNotExist, InvalidState
from runmirror.traces import keys, queries, spans, spans_queries


class NotInDatabase(InvalidState):
    def __init__(self) -> None:
        super().__init__("Trace data not stored in tracking store")


async def one(connection: AsyncConnection, trace_id: str) -> Row[Any]:
    """Raises `TraceNotFound`."""
    rows = await queries.load(connection, [keys.existing_id(trace_id)])
    if not rows:
        raise keys.TraceNotFound(trace_id)
    return rows[0]


async def with_spans(connection: AsyncConnection, trace_id: str) -> tuple[Row[Any], list[Any]]:
    """A trace and what has arrived of its spans, in order. Raises `NotInDatabase` when its client keeps them in a
    file."""
    if not keys.ID.fullmatch(trace_id) or not (rows := await queries.load(connection, [trace_id])):
        raise DoesNotExist(f"Trace with ID {trace_id[:80]} is not found.")
    if rows[0].tags.get(keys.SPANS_LOCATION) != keys.IN_TRACKING_STORE:
        raise NotInDatabase
    found = await spans_queries.load(connection, [trace_id])
    return rows[0], spans.in_order(found.get(trace_id, ()))


async def whole_ones(
    connection: AsyncConnection, trace_ids: Sequence[str], experiment_ids: Sequence[int] | None
) -> list[tuple[Row[Any], list[Any]]]:
    """Of these traces the ones whose spans are all here, with them."""
    rows = await queries.load(connection, trace_ids, experiment_ids)
    here = [row for row in rows if row.tags.get(keys.SPANS_LOCATION) == keys.IN_TRACKING_STORE]
    found = await spans_queries.load(connection, [row.trace_id for row in here])
    traces = [(row, spans.in_order(found.get(row.trace_id, ()))) for row in here]
    return [(row, members) for row, members in traces if is_whole(row, members)]


def is_whole(row: Row[Any], members: Sequence[Any]) -> bool:
    """Whether as many spans are here as the client said there would be; at least one."""
    try:
        expected = int(json.loads(row.trace_metadata.get(keys.SIZE_STATS, "{}")).get("num_spans", 1))
    except (ValueError, TypeError, AttributeError, RecursionError):
        expected = 1
    return len(members) >= max(expected, 1)

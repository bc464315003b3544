"""Runs as values of the wire, for those who go on working with them; answers with many runs are made in `answers`."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.run_ids import shown_id
from runmirror.runs import queries, search, wire
from runmirror.runs.inputs_queries import load_inputs_outputs
from runmirror.runs.search import SearchPage


async def find(connection: AsyncConnection, request: wire.SearchRuns) -> SearchPage:
    """The runs that a search finds."""
    asked = search.understand(
        experiment_ids=request.experiment_ids,
        filter_string=request.filter,
        run_view_type=request.run_view_type,
        max_results=request.max_results,
        order_by=request.order_by,
        page_token=request.page_token or None,
    )
    return await search.find(connection, asked)


async def load(connection: AsyncConnection, run_ids: Sequence[UUID]) -> list[wire.RunWire]:
    """These runs in this order, those that exist."""
    if not run_ids:
        return []
    rows = await queries.load(connection, run_ids)
    inputs_outputs = await load_inputs_outputs(connection, list(run_ids))
    runs = []
    for row in rows:
        inputs, outputs = inputs_outputs.get(row.run_id, ({}, {}))
        data = wire.RunDataWire.model_construct(
            metrics=[
                wire.MetricOut.model_construct(
                    key=key, value=float("nan") if value is None else float(value), timestamp=timestamp_ms, step=step
                )
                for key, value, timestamp_ms, step in row.metrics or ()
            ] or None,
            params=_pairs(row.params),
            tags=_pairs(row.tags),
        )  # fmt: skip
        runs.append(wire.RunWire.model_construct(info=info(row), data=data, inputs=inputs, outputs=outputs))
    return runs


def _pairs(rows: list[list[str]] | None) -> list[wire.PairOut] | None:
    return [wire.PairOut.model_construct(key=key, value=value) for key, value in rows or ()] or None


def info(row: Row[Any]) -> wire.RunInfoWire:
    """`RunInfo` of MLflow's wire."""
    run_id = shown_id(row.run_id, row.azure_run_id)
    return wire.RunInfoWire(
        run_uuid=run_id,
        experiment_id=str(row.experiment_id),
        run_name=row.name,
        user_id=row.user_id,
        status=row.status,
        start_time=row.start_time_ms,
        end_time=row.end_time_ms or None,
        artifact_uri=row.artifact_uri,
        lifecycle_stage=row.lifecycle_stage,
        run_id=run_id,
    )

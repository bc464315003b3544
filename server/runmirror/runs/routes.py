"""HTTP of runs: parse, call one function, answer."""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.db import ReadConnection, WriteConnection
from runmirror.entities import LifecycleStage
from runmirror.errors import RunNotFound
from runmirror.routing import Permission, mlflow_route
from runmirror.run_ids import shown_id
from runmirror.runs import history, queries, service, wire
from runmirror.runs.inputs_queries import load_inputs_outputs
from runmirror.runs.search import search_runs as find_runs
from runmirror.runs.writes import parse_run_id
from runmirror.wire import Empty

router = APIRouter(tags=["runs"])


@mlflow_route(router, "POST", "/runs/create", permission=Permission.EDIT)
async def create_run(request: wire.CreateRun, connection: WriteConnection) -> wire.RunAnswer:
    """Start a run in an active experiment."""
    run_id = await service.create_run(
        connection,
        experiment_id=request.experiment_id,
        user_id=request.user_id,
        run_name=request.run_name,
        start_time_ms=request.start_time,
        tags=[tag.to_tag() for tag in request.tags],
    )
    [run] = await _load(connection, [run_id])
    return wire.RunAnswer(run=run.model_copy(update={"outputs": None}))  # as MLflow answers


@mlflow_route(router, "GET", "/runs/get", permission=Permission.READ)
async def get_run(request: Annotated[wire.GetRun, Query()], connection: ReadConnection) -> wire.RunAnswer:
    """A run with its params, tags, latest metrics, inputs and outputs."""
    runs = await _load(connection, [parse_run_id(request.the_run_id)])
    if not runs:
        raise RunNotFound(request.the_run_id)
    return wire.RunAnswer(run=runs[0])


@mlflow_route(router, "POST", "/runs/update", permission=Permission.EDIT)
async def update_run(request: wire.UpdateRun, connection: WriteConnection) -> wire.RunInfoAnswer:
    """Set status, end time or name of an active run."""
    row = await service.update_run(
        connection,
        request.the_run_id,
        status=request.status,
        end_time_ms=request.end_time,
        run_name=request.run_name,
    )
    return wire.RunInfoAnswer(run_info=_info(row))


@mlflow_route(router, "POST", "/runs/delete", permission=Permission.EDIT)
async def delete_run(request: wire.GetRun, connection: WriteConnection) -> Empty:
    """Mark a run deleted; nothing is erased."""
    await service.move_run(connection, request.the_run_id, to=LifecycleStage.DELETED)
    return Empty()


@mlflow_route(router, "POST", "/runs/restore", permission=Permission.EDIT)
async def restore_run(request: wire.GetRun, connection: WriteConnection) -> Empty:
    """Bring back a deleted run."""
    await service.move_run(connection, request.the_run_id, to=LifecycleStage.ACTIVE)
    return Empty()


@mlflow_route(router, "POST", "/runs/log-metric", permission=Permission.EDIT)
async def log_metric(request: wire.LogMetric, connection: WriteConnection) -> Empty:
    """Append one point to a metric."""
    await service.log_metric(connection, request.the_run_id, request.to_metric())
    return Empty()


@mlflow_route(router, "POST", "/runs/log-parameter", permission=Permission.EDIT)
async def log_param(request: wire.LogParam, connection: WriteConnection) -> Empty:
    """Write one param; the same value again is fine, another value is refused."""
    await service.log_param(connection, request.the_run_id, request.to_param())
    return Empty()


@mlflow_route(router, "POST", "/runs/set-tag", permission=Permission.EDIT)
async def set_tag(request: wire.SetTag, connection: WriteConnection) -> Empty:
    """Set or overwrite one tag."""
    await service.set_tag(connection, request.the_run_id, request.to_tag())
    return Empty()


@mlflow_route(router, "POST", "/runs/delete-tag", permission=Permission.EDIT)
async def delete_tag(request: wire.DeleteTag, connection: WriteConnection) -> Empty:
    """Delete one tag."""
    await service.delete_tag(connection, request.the_run_id, request.key)
    return Empty()


@mlflow_route(router, "POST", "/runs/log-batch", permission=Permission.EDIT)
async def log_batch(request: wire.LogBatch, connection: WriteConnection) -> Empty:
    """Write metrics, params and tags together: all of it or nothing."""
    await service.log_batch(connection, request.run_id, request.to_batch())
    return Empty()


@mlflow_route(router, "POST", "/runs/search", permission=Permission.READ)
async def search_runs(request: wire.SearchRuns, connection: ReadConnection) -> wire.RunsPage:
    """Runs of some experiments that a filter selects, in the order asked for."""
    found = await find_runs(
        connection,
        experiment_ids=request.experiment_ids,
        filter_string=request.filter,
        run_view_type=request.run_view_type,
        max_results=request.max_results,
        order_by=request.order_by,
        page_token=request.page_token or None,
    )
    runs = await _load(connection, found.run_ids)
    return wire.RunsPage(runs=runs or None, next_page_token=found.next_page_token)


@mlflow_route(router, "GET", "/metrics/get-history", permission=Permission.READ)
async def get_history(request: Annotated[wire.GetHistory, Query()], connection: ReadConnection) -> wire.HistoryPage:
    """Every point of one metric of a run, by time, step and value."""
    points, token = await history.page(
        connection,
        parse_run_id(request.the_run_id),
        request.metric_key,
        max_results=request.max_results,
        page_token=request.page_token,
    )
    metrics = [
        wire.MetricOut.model_construct(key=request.metric_key, value=value, timestamp=timestamp_ms, step=step)
        for timestamp_ms, step, value in points
    ]
    return wire.HistoryPage.model_construct(metrics=metrics or None, next_page_token=token)


async def _load(connection: AsyncConnection, run_ids: Sequence[UUID]) -> list[wire.RunWire]:
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
        runs.append(wire.RunWire.model_construct(info=_info(row), data=data, inputs=inputs, outputs=outputs))
    return runs


def _pairs(rows: list[list[str]] | None) -> list[wire.PairOut] | None:
    return [wire.PairOut.model_construct(key=key, value=value) for key, value in rows or ()] or None


def _info(row: Row[Any]) -> wire.RunInfoWire:
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

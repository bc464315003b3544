"""HTTP of runs: parse, call one function, answer."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from runmirror.db import ReadConnection, WriteConnection
from runmirror.entities import LifecycleStage
from runmirror.errors import RunNotFound
from runmirror.routing import Permission, mlflow_route
from runmirror.runs import answers, history, kept, queries, reads, service, wire
from runmirror.runs.inputs_queries import load_inputs_outputs
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
    [run] = await reads.load(connection, [run_id])
    return wire.RunAnswer(run=run.model_copy(update={"outputs": None}))  # as MLflow answers


@mlflow_route(router, "GET", "/runs/get", permission=Permission.READ, response_model=wire.RunAnswer)
async def get_run(request: Annotated[wire.GetRun, Query()], connection: ReadConnection) -> Response:
    """A run with its params, tags, latest metrics, inputs and outputs."""
    run_id = parse_run_id(request.the_run_id)
    rows = await queries.load_json(connection, [run_id])
    if not rows:
        raise RunNotFound(request.the_run_id)
    inputs_outputs = await load_inputs_outputs(connection, [run_id])
    return answers.run_answer(rows[0], inputs_outputs)


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
    return wire.RunInfoAnswer(run_info=reads.info(row))


@mlflow_route(router, "POST", "/runs/delete", permission=Permission.MANAGE)
async def delete_run(request: wire.GetRun, connection: WriteConnection) -> Empty:
    """Mark a run deleted; nothing is erased."""
    await service.move_run(connection, request.the_run_id, to=LifecycleStage.DELETED)
    return Empty()


@mlflow_route(router, "POST", "/runs/restore", permission=Permission.MANAGE)
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


@mlflow_route(router, "POST", "/runs/search", permission=Permission.READ, response_model=wire.RunsPage)
async def search_runs(request: wire.SearchRuns, connection: ReadConnection, http: Request) -> Response:
    """Runs of some experiments that a filter selects, in the order asked for."""
    found = await reads.find(connection, request)
    runs = await kept.load(connection, http.app.state.kept_runs, found.versions)
    return answers.json_answer(answers.runs_page(runs, found.next_page_token))


@mlflow_route(router, "GET", "/metrics/get-history", permission=Permission.READ, response_model=wire.HistoryPage)
async def get_history(request: Annotated[wire.GetHistory, Query()], connection: ReadConnection) -> Response:
    """Every point of one metric of a run, by time, step and value."""
    points, token = await history.page(
        connection,
        parse_run_id(request.the_run_id),
        request.metric_key,
        max_results=request.max_results,
        page_token=request.page_token,
    )
    return answers.history_page(request.metric_key, points, token)

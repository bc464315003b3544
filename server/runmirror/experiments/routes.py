"""HTTP of experiments: parse, call one function, answer."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy.engine import Row

from runmirror.db import ReadConnection, WriteConnection
from runmirror.entities import LifecycleStage
from runmirror.errors import DoesNotExist, ExperimentNotFound
from runmirror.experiments import queries, service, wire
from runmirror.experiments.search import search_experiments
from runmirror.names import parse_experiment_id
from runmirror.routing import Permission, mlflow_route
from runmirror.wire import Empty

router = APIRouter(tags=["experiments"])


@mlflow_route(router, "POST", "/experiments/create", permission=Permission.EDIT)
async def create_experiment(request: wire.CreateExperiment, connection: WriteConnection) -> wire.ExperimentCreated:
    """Create an experiment; a taken name (a deleted experiment's too) is RESOURCE_ALREADY_EXISTS."""
    tags = [tag.to_tag() for tag in request.tags]
    created = await service.create(connection, request.name, request.artifact_location, tags)
    return wire.ExperimentCreated(experiment_id=str(created))


@mlflow_route(router, "GET", "/experiments/get", permission=Permission.READ)
async def get_experiment(
    request: Annotated[wire.ExperimentId, Query()], connection: ReadConnection
) -> wire.ExperimentAnswer:
    """An experiment by id, active or deleted."""
    key = parse_experiment_id(request.experiment_id)
    rows = await queries.load(connection, [key])
    if not rows:
        raise ExperimentNotFound(str(key))
    return wire.ExperimentAnswer(experiment=to_wire(rows[0]))


@mlflow_route(router, "GET", "/experiments/get-by-name", permission=Permission.READ)
async def get_experiment_by_name(
    request: Annotated[wire.ExperimentByName, Query()], connection: ReadConnection
) -> wire.ExperimentAnswer:
    """An experiment by name, active or deleted."""
    row = await queries.by_name(connection, request.experiment_name)
    if row is None:
        raise DoesNotExist(f"Could not find experiment with name '{request.experiment_name}'")
    return wire.ExperimentAnswer(experiment=to_wire(row))


@mlflow_route(router, "POST", "/experiments/update", permission=Permission.EDIT)
async def update_experiment(request: wire.UpdateExperiment, connection: WriteConnection) -> Empty:
    """Rename an active experiment."""
    await service.rename(connection, request.experiment_id, request.new_name)
    return Empty()


@mlflow_route(router, "POST", "/experiments/delete", permission=Permission.MANAGE)
async def delete_experiment(request: wire.ExperimentId, connection: WriteConnection) -> Empty:
    """Mark an experiment and its runs deleted; nothing is erased."""
    await service.move(connection, request.experiment_id, to=LifecycleStage.DELETED)
    return Empty()


@mlflow_route(router, "POST", "/experiments/restore", permission=Permission.MANAGE)
async def restore_experiment(request: wire.ExperimentId, connection: WriteConnection) -> Empty:
    """Bring back a deleted experiment and its runs."""
    await service.move(connection, request.experiment_id, to=LifecycleStage.ACTIVE)
    return Empty()


@mlflow_route(router, "POST", "/experiments/set-experiment-tag", permission=Permission.EDIT)
async def set_experiment_tag(request: wire.SetExperimentTag, connection: WriteConnection) -> Empty:
    """Set or overwrite a tag of an active experiment."""
    await service.set_tag(connection, request.experiment_id, request.to_tag())
    return Empty()


@mlflow_route(router, "POST", "/experiments/delete-experiment-tag", permission=Permission.EDIT)
async def delete_experiment_tag(request: wire.DeleteExperimentTag, connection: WriteConnection) -> Empty:
    """Delete a tag of an active experiment."""
    await service.delete_tag(connection, request.experiment_id, request.key)
    return Empty()


@mlflow_route(router, "GET", "/experiments/search", permission=Permission.READ)
async def search_experiments_by_query(
    request: Annotated[wire.SearchExperiments, Query()], connection: ReadConnection
) -> wire.ExperimentsPage:
    """Search experiments; the same as the POST, for clients that send a query string."""
    return await _search(connection, request)


@mlflow_route(router, "POST", "/experiments/search", permission=Permission.READ)
async def search_experiments_by_body(
    connection: ReadConnection, request: wire.SearchExperiments
) -> wire.ExperimentsPage:
    """Search experiments by name, times and tags."""
    return await _search(connection, request)


async def _search(connection: ReadConnection, request: wire.SearchExperiments) -> wire.ExperimentsPage:
    ids, token = await search_experiments(
        connection,
        filter_string=request.filter,
        view_type=request.view_type,
        max_results=request.max_results,
        order_by=request.order_by,
        page_token=request.page_token or None,
    )
    rows = await queries.load(connection, ids)
    return wire.ExperimentsPage(experiments=[to_wire(row) for row in rows] or None, next_page_token=token)


def to_wire(row: Row[Any]) -> wire.ExperimentWire:
    return wire.ExperimentWire(
        experiment_id=str(row.experiment_id),
        name=row.name,
        artifact_location=row.artifact_location,
        lifecycle_stage=row.lifecycle_stage,
        last_update_time=row.last_update_time_ms,
        creation_time=row.creation_time_ms,
        tags=[wire.TagWire(**tag) for tag in row.tags] if row.tags else None,
    )

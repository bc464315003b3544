"""HTTP of logged models: parse, call one function, answer."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.artifacts import downloads
from runmirror.artifacts.files import Store
from runmirror.artifacts.places import path_of
from runmirror.artifacts.safe_path import safe_path
from runmirror.artifacts.wire import ListArtifacts, listing
from runmirror.db import ReadConnection, WriteConnection
from runmirror.entities import LifecycleStage, LoggedModelStatus
from runmirror.errors import BadRequest, InvalidParameter, LoggedModelNotFound
from runmirror.logged_models import queries, service, wire
from runmirror.logged_models.search import search
from runmirror.routing import Permission, mlflow_route, route
from runmirror.run_ids import shown_id
from runmirror.wire import Empty

router = APIRouter(tags=["logged_models"])


@mlflow_route(router, "POST", "/logged-models", permission=Permission.EDIT)
async def create_logged_model(request: wire.CreateLoggedModel, connection: WriteConnection) -> wire.LoggedModelAnswer:
    """A new pending logged model, made by a run or by none."""
    model_id = await service.create(
        connection,
        experiment_id=request.experiment_id,
        name=request.name,
        model_type=request.model_type,
        source_run_id=request.source_run_id,
        params=[param.to_param() for param in request.params],
        tags=[tag.to_tag() for tag in request.tags],
    )
    return wire.LoggedModelAnswer(model=_to_wire(await _load(connection, model_id)))


@mlflow_route(router, "POST", "/logged-models/search", permission=Permission.READ)
async def search_logged_models(request: wire.SearchLoggedModels, connection: ReadConnection) -> wire.LoggedModelsPage:
    """Active logged models of some experiments that a filter selects."""
    model_ids, token = await search(connection, request)
    rows = await queries.load(connection, model_ids)
    return wire.LoggedModelsPage(models=[_to_wire(row) for row in rows] or None, next_page_token=token)


@mlflow_route(router, "GET", "/logged-models/{model_id}", permission=Permission.READ)
async def get_logged_model(
    model_id: str, connection: ReadConnection, allow_deleted: Annotated[str, Query()] = "false"
) -> wire.LoggedModelAnswer:
    """A logged model with its params, tags and metrics; a deleted one only with `allow_deleted=true`."""
    row = await _load(connection, model_id, deleted_too=allow_deleted.lower() == "true")
    return wire.LoggedModelAnswer(model=_to_wire(row))


@mlflow_route(router, "PATCH", "/logged-models/{model_id}", permission=Permission.EDIT)
async def finalize_logged_model(
    model_id: str, request: wire.FinalizeLoggedModel, connection: WriteConnection
) -> wire.LoggedModelAnswer:
    """Say that a logged model is ready, or that its upload failed."""
    await service.finalize(connection, _the_model_id(model_id, request.model_id), request.status)
    return wire.LoggedModelAnswer(model=_to_wire(await _load(connection, model_id, deleted_too=True)))


@mlflow_route(router, "DELETE", "/logged-models/{model_id}", permission=Permission.MANAGE)
async def delete_logged_model(model_id: str, connection: WriteConnection) -> Empty:
    """Mark a logged model deleted; nothing is erased."""
    await service.delete(connection, model_id)
    return Empty()


@mlflow_route(router, "POST", "/logged-models/{model_id}/params", permission=Permission.EDIT)
async def log_logged_model_params(model_id: str, request: wire.LogParams, connection: WriteConnection) -> Empty:
    """Add params; a value that is there stays."""
    params = [param.to_param() for param in request.params]
    await service.log_params(connection, _the_model_id(model_id, request.model_id), params)
    return Empty()


@mlflow_route(router, "PATCH", "/logged-models/{model_id}/tags", permission=Permission.EDIT)
async def set_logged_model_tags(model_id: str, request: wire.SetTags, connection: WriteConnection) -> Empty:
    """Set or overwrite tags."""
    await service.set_tags(connection, model_id, [tag.to_tag() for tag in request.tags])
    return Empty()


@mlflow_route(router, "DELETE", "/logged-models/{model_id}/tags/{tag_key}", permission=Permission.EDIT)
async def delete_logged_model_tag(model_id: str, tag_key: str, connection: WriteConnection) -> Empty:
    """Delete one tag."""
    await service.delete_tag(connection, model_id, tag_key)
    return Empty()


@mlflow_route(router, "GET", "/logged-models/{model_id}/artifacts/directories", permission=Permission.READ)
async def list_logged_model_artifacts(
    model_id: str, request: Request, connection: ReadConnection, artifact_directory_path: str = ""
) -> ListArtifacts:
    """What lies directly in a folder of a logged model's artifacts; paths are relative to their root."""
    row = await _load(connection, model_id)
    root = path_of(row.artifact_uri)
    below = safe_path(artifact_directory_path.removesuffix("/")) if artifact_directory_path else ""
    entries = await _store(request).list(f"{root}/{below}" if below else root)
    return listing(entries, below=below, root_uri=row.artifact_uri)


@route(router, "GET", "/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files", permission=Permission.READ)
async def get_logged_model_artifact(
    model_id: str, request: Request, connection: ReadConnection, artifact_file_path: str = ""
) -> Response:
    """One file of a logged model, for MLflow's UI; clients download from the artifact URI."""
    if not artifact_file_path:
        raise BadRequest('Request must include the "artifact_file_path" query parameter.')
    row = await _load(connection, model_id)
    path = f"{path_of(row.artifact_uri)}/{safe_path(artifact_file_path)}"
    return await downloads.answer_download(_store(request), path, request.headers)


def _the_model_id(in_path: str, in_body: str) -> str:
    """MLflow goes by the body's id; a body that contradicts the path is refused here."""
    if in_path != in_body:
        raise InvalidParameter("Parameter 'model_id' differs between the path and the body of the request.")
    return in_path


def _store(request: Request) -> Store:
    store: Store = request.app.state.artifacts
    return store


async def _load(connection: AsyncConnection, model_id: str, *, deleted_too: bool = False) -> Row[Any]:
    rows = await queries.load(connection, [service.check_model_id(model_id)])
    if not rows or (rows[0].lifecycle_stage == LifecycleStage.DELETED and not deleted_too):
        raise LoggedModelNotFound(model_id)
    return rows[0]


def _to_wire(row: Row[Any]) -> wire.LoggedModelWire:
    info = wire.LoggedModelInfo(
        model_id=row.model_id,
        experiment_id=str(row.experiment_id),
        name=row.name,
        creation_timestamp_ms=row.creation_timestamp_ms,
        last_updated_timestamp_ms=row.last_updated_timestamp_ms,
        artifact_uri=row.artifact_uri,
        status=wire.STATUS_NAMES[LoggedModelStatus(row.status)],
        model_type=row.model_type or "",
        source_run_id=shown_id(row.source_run_id, row.azure_run_id) if row.source_run_id else "",
        status_message=row.status_message,
        tags=_pairs(row.tags),
    )
    metrics = [wire.MetricOut(**metric) for metric in row.metrics or ()]
    return wire.LoggedModelWire(
        info=info, data=wire.LoggedModelData(params=_pairs(row.params), metrics=metrics or None)
    )


def _pairs(rows: list[list[str]] | None) -> list[wire.PairOut] | None:
    return [wire.PairOut(key=key, value=value) for key, value in rows or ()] or None

"""HTTP of this slice: MLflow's proxied artifact service, and a run's artifacts by its id."""

from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.requests import ClientDisconnect

from runmirror.artifacts import downloads
from runmirror.artifacts.places import path_of
from runmirror.artifacts.safe_path import safe_path
from runmirror.artifacts.service import Artifacts
from runmirror.artifacts.wire import ListArtifacts, listing
from runmirror.db import read_connection, write_connection
from runmirror.errors import BadRequest, InvalidParameter
from runmirror.routing import Permission, mlflow_route, route
from runmirror.wire import Empty, missing

router = APIRouter(tags=["artifacts"])

_SERVICE = "/api/2.0/mlflow-artifacts/artifacts"
UPLOADS = (_SERVICE + "/", _SERVICE.replace("/api/", "/ajax-api/") + "/")


async def artifacts_of(request: Request) -> Artifacts:
    """Like `run_id_of` a coroutine, or FastAPI would send each to a thread."""
    return Artifacts(
        request.app.state.artifacts,
        reading=partial(asynccontextmanager(read_connection), request),
        writing=partial(asynccontextmanager(write_connection), request),
        hot=request.app.state.hot_connections,
    )


async def run_id_of(run_id: str = "", run_uuid: str = "") -> str:
    """The run asked for under either of its names."""
    return run_id or run_uuid


Service = Annotated[Artifacts, Depends(artifacts_of)]
RunId = Annotated[str, Depends(run_id_of)]


@route(router, "GET", _SERVICE, permission=Permission.READ, twins=True, response_model_exclude_none=True)
async def list_store(service: Service, path: str = "") -> ListArtifacts:
    return listing(await service.store.list(_folder(path)))


@route(router, "GET", _SERVICE + "/{path:path}", permission=Permission.READ, twins=True)
async def download(request: Request, service: Service, path: str) -> Response:
    return await downloads.answer_download(service.store, file_path(path), request.headers)


@route(router, "HEAD", _SERVICE + "/{path:path}", permission=Permission.READ, twins=True)
async def download_head(request: Request, service: Service, path: str) -> Response:
    return await downloads.answer_head(service.store, file_path(path), request.headers)


@route(router, "PUT", _SERVICE + "/{path:path}", permission=Permission.EDIT, twins=True)
async def upload(request: Request, service: Service, path: str) -> Response:
    """Store the body; 200 says that it is stored and recorded."""
    if not path or path.endswith("/"):
        raise InvalidParameter("Artifact path must include a filename (cannot end with '/').")
    try:
        await service.upload(safe_path(path), request.stream())
    except ClientDisconnect as error:
        raise BadRequest("The upload broke off; nothing was stored.") from error
    return Response()


@route(router, "DELETE", _SERVICE + "/{path:path}", permission=Permission.EDIT, twins=True)
async def delete(service: Service, path: str) -> Empty:
    await service.delete(safe_path(path.removesuffix("/")))
    return Empty()


@mlflow_route(router, "GET", "/artifacts/list", permission=Permission.READ)
async def list_run_artifacts(service: Service, run_id: RunId, path: str = "") -> ListArtifacts:
    """Everything in one answer, as MLflow's stores list: there is never a next page."""
    if not run_id:
        raise InvalidParameter(missing("run_id"))
    below = _folder(path)
    root_uri = await service.root_uri(run_id)
    root = path_of(root_uri)
    entries = await service.store.list(f"{root}/{below}" if below else root)
    return listing(entries, below=below, root_uri=root_uri)


@route(router, "GET", "/get-artifact", permission=Permission.READ)
async def get_artifact(request: Request, service: Service, run_id: RunId, path: str | None = None) -> Response:
    found = await service.path_in_run(run_id, _required_file(path))
    return await downloads.answer_download(service.store, found, request.headers)


@route(router, "HEAD", "/get-artifact", permission=Permission.READ)
async def get_artifact_head(request: Request, service: Service, run_id: RunId, path: str | None = None) -> Response:
    found = await service.path_in_run(run_id, _required_file(path))
    return await downloads.answer_head(service.store, found, request.headers)


def _folder(path: str) -> str:
    """A folder to list: empty for the root; a slash at the end changes nothing."""
    return safe_path(path.removesuffix("/")) if path else ""


def file_path(path: str) -> str:
    """`path`, when it is safe and names a file. Raises `InvalidParameter`."""
    if not path or path.endswith("/"):
        raise InvalidParameter(f"Artifact path refers to a directory, not a file: '{path[:200]}'")
    return safe_path(path)


def _required_file(path: str | None) -> str:
    if path is None:
        raise InvalidParameter(missing("path"))
    return file_path(path)

"""HTTP of model versions, their stages, tags and files: parse, call one function, answer."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.artifacts import downloads
from runmirror.artifacts.routes import Service
from runmirror.artifacts.safe_path import safe_path
from runmirror.artifacts.service import Artifacts
from runmirror.db import ReadConnection, WriteConnection
from runmirror.entities import Tag
from runmirror.errors import InvalidParameter, ModelVersionNotFound
from runmirror.registry import convert, queries, rules, service, sources, wire
from runmirror.registry.search import search_versions
from runmirror.routing import Permission, mlflow_route, route
from runmirror.wire import Empty, missing

router = APIRouter(tags=["model registry"])


@mlflow_route(router, "POST", "/model-versions/create", permission=Permission.EDIT)
async def create_model_version(request: wire.CreateVersion, connection: WriteConnection) -> wire.VersionAnswer:
    """Register files that lie in our store as the next version of a registered model."""
    version = await service.create_version(
        connection,
        request.name,
        source=request.source,
        run_id=request.run_id,
        model_id=request.model_id,
        tags=[tag.to_tag() for tag in request.tags],
        run_link=request.run_link,
        description=request.description,
    )
    return await _answer(connection, request.name, version)


@mlflow_route(router, "GET", "/model-versions/get", permission=Permission.READ)
async def get_model_version(
    request: Annotated[wire.VersionOf, Query()], connection: ReadConnection
) -> wire.VersionAnswer:
    """A model version with its tags and aliases."""
    return await _answer(connection, request.name, request.version)


@mlflow_route(router, "PATCH", "/model-versions/update", permission=Permission.EDIT)
async def update_model_version(request: wire.UpdateVersion, connection: WriteConnection) -> wire.VersionAnswer:
    """Replace the description; left out, it is taken away."""
    await service.describe_version(connection, request.name, request.version, request.description)
    return await _answer(connection, request.name, request.version)


@mlflow_route(router, "DELETE", "/model-versions/delete", permission=Permission.MANAGE)
async def delete_model_version(request: wire.VersionOf, connection: WriteConnection) -> Empty:
    """Delete a version and the aliases that point to it; its number is not given out again."""
    await service.delete_version(connection, request.name, request.version)
    return Empty()


@mlflow_route(router, "GET", "/model-versions/search", permission=Permission.READ)
async def search_model_versions(
    request: Annotated[wire.SearchVersions, Query()], connection: ReadConnection
) -> wire.VersionsPage:
    """Search model versions by name, number, run, source and tags, or prompts by the prompt tag."""
    found, token = await search_versions(connection, request)
    rows = await queries.load_versions(connection, found)
    versions = [convert.version_to_wire(row, aliases=False) for row in rows]
    return wire.VersionsPage(model_versions=versions or None, next_page_token=token)


@mlflow_route(router, "GET", "/model-versions/get-download-uri", permission=Permission.READ)
async def get_model_version_download_uri(
    request: Annotated[wire.DownloadUriOf, Query()], connection: ReadConnection
) -> wire.DownloadUri:
    """Where a client downloads the files of a version: a place in our store, or the placeholder of a prompt."""
    row = await load_version(connection, request.name, request.version)
    return wire.DownloadUri(artifact_uri=row.storage_location)


@mlflow_route(router, "POST", "/model-versions/transition-stage", permission=Permission.EDIT)
async def transition_model_version_stage(
    request: wire.TransitionStage, connection: WriteConnection
) -> wire.VersionAnswer:
    """Move a version to a stage; `archive_existing_versions` archives those that are there."""
    await service.move_version(
        connection, request.name, request.version, request.stage, archive=request.archive_existing_versions
    )
    return await _answer(connection, request.name, request.version)


@mlflow_route(router, "POST", "/model-versions/set-tag", permission=Permission.EDIT)
async def set_model_version_tag(request: wire.SetVersionTag, connection: WriteConnection) -> Empty:
    """Set or overwrite a tag."""
    await service.set_version_tag(connection, request.name, request.version, Tag(request.key, request.value))
    return Empty()


@mlflow_route(router, "DELETE", "/model-versions/delete-tag", permission=Permission.EDIT)
async def delete_model_version_tag(request: wire.DeleteVersionTag, connection: WriteConnection) -> Empty:
    """Delete a tag, if it is there."""
    await service.delete_version_tag(connection, request.name, request.version, request.key)
    return Empty()


@route(router, "GET", "/model-versions/get-artifact", permission=Permission.READ)
async def get_model_version_artifact(
    request: Request, artifacts: Service, name: str = "", version: str = "", path: str | None = None
) -> Response:
    """One file of a version, for MLflow's pages; clients download from the version's own URI."""
    found = await _file_of(artifacts, name, version, path)
    return await downloads.answer_download(artifacts.store, found, request.headers)


@route(router, "HEAD", "/model-versions/get-artifact", permission=Permission.READ)
async def get_model_version_artifact_head(
    request: Request, artifacts: Service, name: str = "", version: str = "", path: str | None = None
) -> Response:
    """The headers a download has."""
    found = await _file_of(artifacts, name, version, path)
    return await downloads.answer_head(artifacts.store, found, request.headers)


async def load_version(connection: AsyncConnection, name: str, version: str | int) -> Row[Any]:
    """A version with its `storage_location`. Raises `ModelVersionNotFound`."""
    rules.check_model_name(name)
    number = rules.parse_version(name, version) if isinstance(version, str) else version
    row = await queries.get_version(connection, name, number)
    if row is None:
        raise ModelVersionNotFound(name, number)
    return row


async def _answer(connection: AsyncConnection, name: str, version: str | int) -> wire.VersionAnswer:
    return wire.VersionAnswer(model_version=convert.version_to_wire(await load_version(connection, name, version)))


async def _file_of(artifacts: Artifacts, name: str, version: str, path: str | None) -> str:
    """The store path of a file of a version; no connection is held when it is opened."""
    if path is None:
        raise InvalidParameter(missing("path"))
    if path.endswith("/"):
        raise InvalidParameter(f"Artifact path refers to a directory, not a file: '{path[:200]}'")
    below = safe_path(path)
    async with artifacts.reading() as connection:
        row = await load_version(connection, name, version)
        root = await sources.store_path(connection, row.storage_location)
    return f"{root}/{below}"

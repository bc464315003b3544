"""HTTP of registered models, their tags and aliases: parse, call one function, answer."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.db import ReadConnection, WriteConnection
from runmirror.entities import Tag
from runmirror.errors import DoesNotExist, InvalidParameter, RegisteredModelNotFound
from runmirror.registry import convert, queries, rules, service, wire
from runmirror.registry.routes_versions import load_version
from runmirror.registry.search import search_models
from runmirror.routing import Permission, mlflow_route
from runmirror.wire import Empty

router = APIRouter(tags=["model registry"])


@mlflow_route(router, "POST", "/registered-models/create", permission=Permission.EDIT)
async def create_registered_model(request: wire.CreateModel, connection: WriteConnection) -> wire.ModelAnswer:
    """Create a registered model or a prompt; a taken name is RESOURCE_ALREADY_EXISTS."""
    tags = [tag.to_tag() for tag in request.tags]
    await service.create_model(connection, request.name, request.description, tags)
    return await _answer(connection, request.name)


@mlflow_route(router, "GET", "/registered-models/get", permission=Permission.READ)
async def get_registered_model(
    request: Annotated[wire.ModelName, Query()], connection: ReadConnection
) -> wire.ModelAnswer:
    """A registered model with its tags, aliases and the newest version of each stage."""
    return await _answer(connection, request.name)


@mlflow_route(router, "POST", "/registered-models/rename", permission=Permission.EDIT)
async def rename_registered_model(request: wire.RenameModel, connection: WriteConnection) -> wire.ModelAnswer:
    """Give a registered model another name; versions, tags and aliases stay with it."""
    await service.rename(connection, request.name, request.new_name)
    return await _answer(connection, request.new_name)


@mlflow_route(router, "PATCH", "/registered-models/update", permission=Permission.EDIT)
async def update_registered_model(request: wire.UpdateModel, connection: WriteConnection) -> wire.ModelAnswer:
    """Replace the description; left out, it becomes empty."""
    await service.describe_model(connection, request.name, request.description)
    return await _answer(connection, request.name)


@mlflow_route(router, "DELETE", "/registered-models/delete", permission=Permission.MANAGE)
async def delete_registered_model(request: wire.ModelName, connection: WriteConnection) -> Empty:
    """Erase a registered model with its versions; their files stay where they are."""
    await service.delete_model(connection, request.name)
    return Empty()


@mlflow_route(router, "GET", "/registered-models/search", permission=Permission.READ)
async def search_registered_models(
    request: Annotated[wire.SearchModels, Query()], connection: ReadConnection
) -> wire.ModelsPage:
    """Search registered models by name and tags, or prompts by the prompt tag."""
    found, token = await search_models(connection, request)
    rows = await queries.load_models(connection, found)
    return wire.ModelsPage(
        registered_models=[convert.model_to_wire(row) for row in rows] or None, next_page_token=token
    )


@mlflow_route(router, "GET", "/registered-models/get-latest-versions", permission=Permission.READ)
async def get_latest_versions_by_query(
    request: Annotated[wire.LatestVersionsOf, Query()], connection: ReadConnection
) -> wire.VersionsAnswer:
    """The newest version of each stage, or of the stages asked for; the same as the POST."""
    return await _latest(connection, request)


@mlflow_route(router, "POST", "/registered-models/get-latest-versions", permission=Permission.READ)
async def get_latest_versions(request: wire.LatestVersionsOf, connection: ReadConnection) -> wire.VersionsAnswer:
    """The newest version of each stage, or of the stages asked for."""
    return await _latest(connection, request)


@mlflow_route(router, "POST", "/registered-models/set-tag", permission=Permission.EDIT)
async def set_registered_model_tag(request: wire.SetModelTag, connection: WriteConnection) -> Empty:
    """Set or overwrite a tag."""
    await service.set_model_tag(connection, request.name, Tag(request.key, request.value))
    return Empty()


@mlflow_route(router, "DELETE", "/registered-models/delete-tag", permission=Permission.EDIT)
async def delete_registered_model_tag(request: wire.DeleteModelTag, connection: WriteConnection) -> Empty:
    """Delete a tag, if it is there."""
    await service.delete_model_tag(connection, request.name, request.key)
    return Empty()


@mlflow_route(router, "POST", "/registered-models/alias", permission=Permission.EDIT)
async def set_registered_model_alias(request: wire.SetAlias, connection: WriteConnection) -> Empty:
    """Point an alias to a version."""
    await service.set_alias(connection, request.name, request.alias, request.version)
    return Empty()


@mlflow_route(router, "DELETE", "/registered-models/alias", permission=Permission.EDIT)
async def delete_registered_model_alias(request: wire.AliasOf, connection: WriteConnection) -> Empty:
    """Delete an alias, if it is there."""
    await service.delete_alias(connection, request.name, request.alias)
    return Empty()


@mlflow_route(router, "GET", "/registered-models/alias", permission=Permission.READ)
async def get_model_version_by_alias(
    request: Annotated[wire.AliasOf, Query()], connection: ReadConnection
) -> wire.VersionAnswer:
    """The version an alias points to; `latest` is the newest of all."""
    rules.check_model_name(request.name)
    rules.check_alias(request.alias)
    row = await queries.aliased(connection, request.name, request.alias)
    if row is None:
        raise RegisteredModelNotFound(request.name)
    latest = request.alias.lower() == rules.LATEST
    version = row.newest if latest else row.version
    if version is None and latest:
        raise DoesNotExist(f"Latest version not found for model {request.name}.")
    if version is None:
        raise InvalidParameter(f"Registered model alias {request.alias} not found.")
    found = await load_version(connection, request.name, version)
    return wire.VersionAnswer(model_version=convert.version_to_wire(found))


async def _answer(connection: AsyncConnection, name: str) -> wire.ModelAnswer:
    rules.check_model_name(name)
    rows = await queries.load_models(connection, [name])
    if not rows:
        raise RegisteredModelNotFound(name)
    return wire.ModelAnswer(registered_model=convert.model_to_wire(rows[0]))


async def _latest(connection: AsyncConnection, request: wire.LatestVersionsOf) -> wire.VersionsAnswer:
    rules.check_model_name(request.name)
    rows = await queries.load_models(connection, [request.name])
    if not rows:
        raise RegisteredModelNotFound(request.name)
    wanted = {rules.canonical_stage(stage) for stage in request.stages or rules.STAGES}
    found = [version for version in convert.latest_to_wire(rows[0]) if version.current_stage in wanted]
    return wire.VersionsAnswer(model_versions=found or None)

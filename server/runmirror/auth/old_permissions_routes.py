"""HTTP of permissions for clients of MLflow before it had roles: `create_experiment_permission` and its like.

They are the grants of `people_routes`, one user's for one experiment or registered model; managers of it give them.
"""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth import old_permissions_wire as wire
from runmirror.auth import people, people_queries
from runmirror.auth.levels import Kind, Level, parse_level, word_for
from runmirror.db import ReadConnection, WriteConnection
from runmirror.errors import AlreadyExists, DoesNotExist
from runmirror.routing import Permission, mlflow_route
from runmirror.wire import Empty

router = APIRouter(tags=["users"])

_manage = partial(mlflow_route, router, permission=Permission.MANAGE)
_EXPERIMENTS, _MODELS = "/experiments/permissions", "/registered-models/permissions"
_NOUNS = {Kind.EXPERIMENT: ("Experiment", "experiment_id"), Kind.REGISTERED_MODEL: ("Registered model", "name")}


@_manage("POST", f"{_EXPERIMENTS}/create")
async def create_experiment_permission(
    request: wire.PermitExperiment, connection: WriteConnection
) -> wire.ExperimentPermissionAnswer:
    user = await _create(connection, Kind.EXPERIMENT, request.experiment_id, request.username, request.permission)
    return _of_experiment(request.experiment_id, user.id, request.permission)


@_manage("GET", f"{_EXPERIMENTS}/get")
async def get_experiment_permission(
    request: Annotated[wire.OfExperiment, Query()], connection: ReadConnection
) -> wire.ExperimentPermissionAnswer:
    user, level = await _get(connection, Kind.EXPERIMENT, request.experiment_id, request.username)
    return _of_experiment(request.experiment_id, user.id, word_for(level))


@_manage("PATCH", f"{_EXPERIMENTS}/update")
async def update_experiment_permission(request: wire.PermitExperiment, connection: WriteConnection) -> Empty:
    await _update(connection, Kind.EXPERIMENT, request.experiment_id, request.username, request.permission)
    return Empty()


@_manage("DELETE", f"{_EXPERIMENTS}/delete")
async def delete_experiment_permission(request: wire.OfExperiment, connection: WriteConnection) -> Empty:
    await _delete(connection, Kind.EXPERIMENT, request.experiment_id, request.username)
    return Empty()


@_manage("POST", f"{_MODELS}/create")
async def create_registered_model_permission(
    request: wire.PermitModel, connection: WriteConnection
) -> wire.ModelPermissionAnswer:
    user = await _create(connection, Kind.REGISTERED_MODEL, request.name, request.username, request.permission)
    return _of_model(request.name, user.id, request.permission)


@_manage("GET", f"{_MODELS}/get")
async def get_registered_model_permission(
    request: Annotated[wire.OfModel, Query()], connection: ReadConnection
) -> wire.ModelPermissionAnswer:
    user, level = await _get(connection, Kind.REGISTERED_MODEL, request.name, request.username)
    return _of_model(request.name, user.id, word_for(level))


@_manage("PATCH", f"{_MODELS}/update")
async def update_registered_model_permission(request: wire.PermitModel, connection: WriteConnection) -> Empty:
    await _update(connection, Kind.REGISTERED_MODEL, request.name, request.username, request.permission)
    return Empty()


@_manage("DELETE", f"{_MODELS}/delete")
async def delete_registered_model_permission(request: wire.OfModel, connection: WriteConnection) -> Empty:
    await _delete(connection, Kind.REGISTERED_MODEL, request.name, request.username)
    return Empty()


def _of_experiment(experiment_id: str, user_id: int, word: str) -> wire.ExperimentPermissionAnswer:
    permission = wire.ExperimentPermission(experiment_id=experiment_id, user_id=user_id, permission=word)
    return wire.ExperimentPermissionAnswer(experiment_permission=permission)


def _of_model(name: str, user_id: int, word: str) -> wire.ModelPermissionAnswer:
    permission = wire.ModelPermission(name=name, user_id=user_id, permission=word)
    return wire.ModelPermissionAnswer(registered_model_permission=permission)


async def _create(connection: AsyncConnection, kind: Kind, which: str, username: str, word: str) -> Row[Any]:
    """The user, who had no permission there."""
    level = parse_level(word)
    what = await people.require_manager(connection, kind, which)
    user = await people.user(connection, username)
    if await people_queries.level_of(connection, user.id, *what) is not None:
        noun, key = _NOUNS[kind]
        raise AlreadyExists(f"{noun} permission ({key}={which}, username={username}) already exists.")
    await people.grant(connection, user, what, level)
    return user


async def _get(connection: AsyncConnection, kind: Kind, which: str, username: str) -> tuple[Row[Any], int]:
    """What the user was granted there, alone: not what groups of theirs were."""
    what = await people.require_manager(connection, kind, which)
    user = await people.user(connection, username)
    level = await people_queries.level_of(connection, user.id, *what)
    if level is None:
        raise _not_found(kind, which, username)
    return user, level


async def _update(connection: AsyncConnection, kind: Kind, which: str, username: str, word: str) -> None:
    level: Level = parse_level(word)
    user, _ = await _get(connection, kind, which, username)
    await people.grant(connection, user, await people.require_manager(connection, kind, which), level)


async def _delete(connection: AsyncConnection, kind: Kind, which: str, username: str) -> None:
    what = await people.require_manager(connection, kind, which)
    if not await people.revoke(connection, await people.user(connection, username), what):
        raise _not_found(kind, which, username)


def _not_found(kind: Kind, which: str, username: str) -> DoesNotExist:
    noun, key = _NOUNS[kind]
    return DoesNotExist(f"{noun} permission with {key}={which} and username={username} not found")

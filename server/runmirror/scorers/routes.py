"""HTTP of scorers: parse, call one function, answer."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy.engine import Row

from runmirror.auth import permits
from runmirror.auth.levels import Level
from runmirror.auth.subjects import Thing
from runmirror.db import ReadConnection, WriteConnection
from runmirror.errors import InvalidParameter
from runmirror.names import parse_experiment_id
from runmirror.routing import Permission, mlflow_route
from runmirror.scorers import queries, service, wire
from runmirror.wire import Empty

router = APIRouter(tags=["scorers"])
_route = partial(mlflow_route, router, version="3.0")


@_route("POST", "/scorers/register", permission=Permission.EDIT)
async def register_scorer(request: wire.RegisterScorer, connection: WriteConnection) -> wire.RegisteredScorer:
    """Keep a new version of a scorer."""
    scorer_id, version, creation_time_ms = await service.register(
        connection, request.experiment_id, request.name, request.serialized_scorer
    )
    return wire.RegisteredScorer(
        version=version,
        scorer_id=str(scorer_id),
        experiment_id=request.experiment_id,
        name=request.name,
        serialized_scorer=request.serialized_scorer,
        creation_time=creation_time_ms,
    )


@_route("GET", "/scorers/list", permission=Permission.READ)
async def list_scorers(request: Annotated[wire.ListScorers, Query()], connection: ReadConnection) -> wire.Scorers:
    """The newest version of every scorer of one experiment, of some, or of all."""
    wanted: list[int] | None = None
    if request.experiment_ids is not None:
        if request.experiment_id:
            raise InvalidParameter("Cannot specify both 'experiment_id' and 'experiment_ids'.")
        asked = [parse_experiment_id(experiment_id) for experiment_id in request.experiment_ids]
        wanted = await permits.current().readable(connection, asked)
    elif request.experiment_id:
        await permits.current().require(Thing.EXPERIMENT, [request.experiment_id], Level.READ, connection=connection)
        wanted = [await service.active_experiment(connection, request.experiment_id)]
    return _scorers(await queries.latest(connection, wanted))


@_route("GET", "/scorers/versions", permission=Permission.READ)
async def list_scorer_versions(
    request: Annotated[wire.ScorerName, Query()], connection: ReadConnection
) -> wire.Scorers:
    """Every version of a scorer, oldest first."""
    experiment = await service.active_experiment(connection, request.experiment_id)
    rows = await queries.versions(connection, experiment, request.name)
    if not rows:
        raise service.not_found(experiment, request.name)
    return _scorers(rows)


@_route("GET", "/scorers/get", permission=Permission.READ)
async def get_scorer(request: Annotated[wire.VersionOf, Query()], connection: ReadConnection) -> wire.ScorerAnswer:
    """One version of a scorer, or the newest."""
    experiment = await service.active_experiment(connection, request.experiment_id)
    row = await queries.get(connection, experiment, request.name, request.version)
    if row is None:
        raise service.not_found(experiment, request.name, request.version)
    return wire.ScorerAnswer(scorer=_to_wire(row))


@_route("DELETE", "/scorers/delete", permission=Permission.MANAGE)
async def delete_scorer(request: wire.VersionOf, connection: WriteConnection) -> Empty:
    """Erase one version of a scorer, or all of them."""
    await service.delete(connection, request.experiment_id, request.name, request.version)
    return Empty()


@_route("GET", "/scorers/online-configs", permission=Permission.READ)
async def get_online_configs(_: Annotated[wire.OnlineConfigsOf, Query()]) -> wire.OnlineConfigs:
    """Asked by clients before they list scorers: there are none, as `PUT …/online-config` is not served."""
    return wire.OnlineConfigs()


def _scorers(rows: Any) -> wire.Scorers:
    return wire.Scorers(scorers=[_to_wire(row) for row in rows] or None)


def _to_wire(row: Row[Any]) -> wire.ScorerWire:
    return wire.ScorerWire(
        experiment_id=row.experiment_id,
        scorer_name=row.name,
        scorer_version=row.version,
        serialized_scorer=row.serialized_scorer,
        creation_time=row.creation_time_ms,
        scorer_id=str(row.scorer_id),
    )

"""How a field of the schema finds its value.

Execution runs in a thread, so that a large answer does not hold up other requests; a resolver calls the endpoint
behind its field back in the event loop. One resolver runs at a time, so all of them share one connection.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio.from_thread
from graphql import GraphQLList, GraphQLNonNull, GraphQLObjectType, GraphQLOutputType, GraphQLResolveInfo
from pydantic import ValidationError
from pydantic.alias_generators import to_snake
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.artifacts import routes as artifacts
from runmirror.artifacts.service import Artifacts
from runmirror.auth import permits
from runmirror.auth.levels import Level
from runmirror.auth.subjects import Thing
from runmirror.errors import InvalidParameter, RunNotFound
from runmirror.experiments import queries as experiment_queries
from runmirror.experiments import routes as experiments
from runmirror.experiments.datasets_routes import dataset_summaries
from runmirror.experiments.wire import ExperimentId
from runmirror.graphql import queries
from runmirror.registry import routes_versions as registry
from runmirror.registry.convert import version_to_wire
from runmirror.registry.queries import load_versions
from runmirror.registry.wire import SearchVersions
from runmirror.runs import charts_routes, reads
from runmirror.runs.charts_wire import BulkInterval
from runmirror.runs.wire import GetRun, RunWire, SearchRuns
from runmirror.runs.writes import parse_run_id
from runmirror.wire import Wire

W = TypeVar("W", bound=Wire)
Resolver = Callable[["Context", dict[str, Any]], Coroutine[Any, Any, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Context:
    """What one request resolves with."""

    connection: AsyncConnection
    artifacts: Artifacts


async def get_experiment(context: Context, given: dict[str, Any]) -> Mapping[str, Any]:
    request = _request(ExperimentId, given)
    await _may_read(context, Thing.EXPERIMENT, [request.experiment_id])
    answer = await experiments.get_experiment(request, context.connection)
    return {"experiment": answer.experiment}


async def get_run(context: Context, given: dict[str, Any]) -> Mapping[str, Any]:
    run_id = _request(GetRun, given).the_run_id
    await _may_read(context, Thing.RUN, [run_id])
    found = await reads.load(context.connection, [parse_run_id(run_id)])
    if not found:
        raise RunNotFound(run_id)
    [run] = await _with_neighbours(context.connection, found)
    return {"run": run}


async def search_runs(context: Context, given: dict[str, Any]) -> Mapping[str, Any]:
    page = await reads.find(context.connection, _request(SearchRuns, given))
    found = await _with_neighbours(context.connection, await reads.load(context.connection, page.run_ids))
    return {"runs": found, "next_page_token": page.next_page_token}


async def list_artifacts(context: Context, given: dict[str, Any]) -> Mapping[str, Any]:
    run_id = given.get("run_id") or given.get("run_uuid") or ""
    await _may_read(context, Thing.RUN, [run_id])
    answer = await artifacts.list_run_artifacts(context.artifacts, run_id, given.get("path") or "")
    return {"root_uri": answer.root_uri, "files": answer.files}


async def get_metric_history_bulk_interval(context: Context, given: dict[str, Any]) -> Mapping[str, Any]:
    request = _request(BulkInterval, given)
    await _may_read(context, Thing.RUN, request.run_ids)
    return {"metrics": await charts_routes.sampled_metrics(context.connection, request)}


async def search_datasets(context: Context, given: dict[str, Any]) -> Mapping[str, Any]:
    experiment_ids = given.get("experiment_ids") or []
    await _may_read(context, Thing.EXPERIMENT, experiment_ids)
    return {"dataset_summaries": await dataset_summaries(context.connection, experiment_ids)}


async def search_model_versions(context: Context, given: dict[str, Any]) -> Mapping[str, Any]:
    answer = await registry.search_model_versions(_request(SearchVersions, given), context.connection)
    return {"model_versions": answer.model_versions, "next_page_token": answer.next_page_token}


ROOTS: Mapping[str, Resolver] = {
    "mlflowGetExperiment": get_experiment,
    "mlflowGetRun": get_run,
    "mlflowSearchRuns": search_runs,
    "mlflowListArtifacts": list_artifacts,
    "mlflowGetMetricHistoryBulkInterval": get_metric_history_bulk_interval,
    "mlflowSearchDatasets": search_datasets,
    "mlflowSearchModelVersions": search_model_versions,
}


def resolve(source: Any, info: GraphQLResolveInfo, **arguments: Any) -> Any:
    """A root field by its resolver; any other by its name in `source`, as a field of a protobuf message would be."""
    if info.path.prev is None:
        given = {to_snake(name): value for name, value in (arguments.get("input") or {}).items()}
        return anyio.from_thread.run(partial(ROOTS[info.field_name], info.context, given))
    name = to_snake(info.field_name)
    value = source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
    if value is None:
        return None if info.field_name == "apiError" else _unset(info.return_type)
    return None if isinstance(value, float) and not math.isfinite(value) else value  # Float has no NaN


def _unset(of: GraphQLOutputType) -> Any:
    """What protobuf reads where nothing was set, and so what MLflow answers."""
    if isinstance(of, GraphQLNonNull):
        return _unset(of.of_type)
    if isinstance(of, GraphQLList):
        return []
    if isinstance(of, GraphQLObjectType):
        return {}
    return {"String": "", "LongString": 0, "Float": 0.0, "Boolean": False}.get(str(of))


async def _with_neighbours(connection: AsyncConnection, found: Sequence[RunWire]) -> list[dict[str, Any]]:
    """The runs, each with its experiment and the model versions made from it, in three statements for all."""
    ids = sorted({int(run.info.experiment_id) for run in found})
    rows = await experiment_queries.load(connection, ids)
    by_id = {str(row.experiment_id): experiments.to_wire(row) for row in rows}
    versions = defaultdict(list)
    keys = await queries.versions_of_runs(connection, [run.info.run_id for run in found])
    for row in await load_versions(connection, keys):
        versions[row.run_id].append(version_to_wire(row, aliases=False))
    return [
        {
            "info": run.info, "data": run.data, "inputs": run.inputs, "outputs": run.outputs,
            "experiment": by_id.get(run.info.experiment_id),
            "model_versions": versions[run.info.run_id],
        }
        for run in found
    ]  # fmt: skip


async def _may_read(context: Context, thing: Thing, ids: Sequence[str]) -> None:
    """Raises `PermissionDenied`. What a document names stands inside it, where no gate looks."""
    await permits.current().require(thing, ids, Level.READ, connection=context.connection)


def _request(model: type[W], given: dict[str, Any]) -> W:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise InvalidParameter(f"Invalid value for parameter '{place}' supplied: {problem['msg']}.") from error

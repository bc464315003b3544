"""HTTP of traces: parse, call one function, answer."""

import asyncio
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from runmirror.db import ReadConnection, WriteConnection, read_connection
from runmirror.errors import DoesNotExist, InvalidParameter
from runmirror.routing import Permission, mlflow_route
from runmirror.search.clauses import parse_experiment_ids
from runmirror.traces import (
    artifact_routes,
    assessments_routes,
    metrics_routes,
    otlp_routes,
    queries,
    reads,
    routes_v2,
    service,
    spans,
    wire,
)
from runmirror.traces.search import search_traces
from runmirror.wire import Empty, missing

router = APIRouter(tags=["traces"])

# A client's threads send spans and trace apart, so the one may come before the other: look again before saying no.
_PAUSES_S = (0.0, 0.2, 0.4, 0.8, 1.6)


@mlflow_route(router, "POST", "/traces", permission=Permission.EDIT, version="3.0")
async def start_trace(request: wire.StartTrace, connection: WriteConnection) -> JSONResponse:
    """Create a trace, or complete one that spans have made."""
    trace = request.trace.trace_info.to_trace()
    await service.start(connection, trace)
    return JSONResponse({"trace": {"trace_info": wire.info(await reads.one(connection, trace.trace_id))}})


@mlflow_route(router, "POST", "/traces/search", permission=Permission.READ, version="3.0")
async def search(request: wire.SearchTraces, connection: ReadConnection) -> JSONResponse:
    """Traces of some experiments that a filter selects, without their spans."""
    trace_ids, token = await search_traces(
        connection,
        experiment_ids=request.experiment_ids,
        filter_string=request.filter,
        max_results=request.max_results,
        order_by=request.order_by,
        page_token=request.page_token,
    )
    rows = await queries.load(connection, trace_ids)
    answer: dict[str, Any] = {"traces": [wire.info(row) for row in rows]} if rows else {}
    return JSONResponse(answer | ({"next_page_token": token} if token else {}))


@mlflow_route(router, "GET", "/traces/get", permission=Permission.READ, version="3.0")
async def get_trace(request: Request, trace_id: str = "", allow_partial: str = "false") -> JSONResponse:
    """A trace with its spans; unless `allow_partial`, only when all of them are here."""
    if not trace_id:
        raise InvalidParameter(missing("trace_id"))
    if allow_partial.lower() not in {"true", "false"}:
        raise InvalidParameter(f"Invalid boolean value: {allow_partial[:80]}, must be 'true' or 'false'.")
    for pause_s in _PAUSES_S:
        await asyncio.sleep(pause_s)  # holds no connection
        async with asynccontextmanager(read_connection)(request) as connection:
            row, members = await reads.with_spans(connection, trace_id)
        if allow_partial.lower() == "true" or reads.is_whole(row, members):
            return JSONResponse({"trace": _complete(row, members)})
    raise DoesNotExist(f"Trace with ID {trace_id} is not fully exported yet, please try again later.")


@mlflow_route(router, "GET", "/traces/batchGet", permission=Permission.READ, version="3.0")
async def batch_get_traces(
    connection: ReadConnection,
    trace_ids: Annotated[list[str] | None, Query()] = None,
    experiment_ids: Annotated[list[str] | None, Query()] = None,
) -> JSONResponse:
    """Those of the traces whose spans are all here, with them."""
    if trace_ids is None:
        raise InvalidParameter(missing("trace_ids"))
    scope = parse_experiment_ids(experiment_ids) if experiment_ids else None
    found = await reads.whole_ones(connection, trace_ids, scope)
    return JSONResponse({"traces": [_complete(*trace) for trace in found]} if found else {})


@mlflow_route(router, "POST", "/traces/batchGetInfos", permission=Permission.READ, version="3.0")
async def batch_get_trace_infos(request: wire.TraceIds, connection: ReadConnection) -> JSONResponse:
    """Those of the traces that are here, without their spans."""
    scope = parse_experiment_ids(request.experiment_ids) if request.experiment_ids else None
    rows = await queries.load(connection, request.trace_ids, scope)
    return JSONResponse({"trace_infos": [wire.info(row) for row in rows]} if rows else {})


@mlflow_route(router, "GET", "/traces/{trace_id}", permission=Permission.READ, version="3.0")
async def get_trace_info(trace_id: str, connection: ReadConnection) -> JSONResponse:
    """A trace without its spans."""
    return JSONResponse({"trace": {"trace_info": wire.info(await reads.one(connection, trace_id))}})


@mlflow_route(router, "PATCH", "/traces/{trace_id}/tags", permission=Permission.EDIT, version="3.0")
@mlflow_route(router, "PATCH", "/traces/{trace_id}/tags", permission=Permission.EDIT)
async def set_trace_tag(trace_id: str, request: wire.SetTag, connection: WriteConnection) -> Empty:
    """Set or overwrite a tag."""
    await service.set_tag(connection, trace_id, request.key, request.value)
    return Empty()


@mlflow_route(router, "DELETE", "/traces/{trace_id}/tags", permission=Permission.EDIT, version="3.0")
@mlflow_route(router, "DELETE", "/traces/{trace_id}/tags", permission=Permission.EDIT)
async def delete_trace_tag(trace_id: str, request: wire.DeleteTag, connection: WriteConnection) -> Empty:
    """Delete a tag."""
    await service.delete_tag(connection, trace_id, request.key)
    return Empty()


@mlflow_route(router, "POST", "/traces/delete-traces", permission=Permission.MANAGE, version="3.0")
@mlflow_route(router, "POST", "/traces/delete-traces", permission=Permission.MANAGE)
async def delete_traces(request: wire.DeleteTraces, connection: WriteConnection) -> wire.TracesDeleted:
    """Delete traces of an experiment, by id or the oldest first."""
    deleted = await service.delete(
        connection,
        request.experiment_id,
        max_timestamp_ms=request.max_timestamp_millis,
        max_traces=request.max_traces,
        trace_ids=request.request_ids,
    )
    return wire.TracesDeleted(traces_deleted=deleted)


@mlflow_route(router, "POST", "/traces/link-to-run", permission=Permission.EDIT)
async def link_traces_to_run(request: wire.LinkTraces, connection: WriteConnection) -> Empty:
    """Link traces to a run, so that a search by the run finds them."""
    if len(request.trace_ids) > service.MAX_LINKS:
        raise InvalidParameter(
            f"Cannot link more than {service.MAX_LINKS} traces to a run in a single request. "
            f"Provided {len(request.trace_ids)} traces."
        )
    await service.link_to_run(connection, request.trace_ids, request.run_id)
    return Empty()


@mlflow_route(router, "POST", "/traces/link-prompts", permission=Permission.EDIT)
async def link_prompts_to_trace(request: wire.LinkPrompts, connection: WriteConnection) -> Empty:
    """Link a trace to prompt versions, so that a search by the prompt finds it."""
    versions = [(version.name, version.version) for version in request.prompt_versions]
    await service.link_to_prompts(connection, request.trace_id, versions)
    return Empty()


def _complete(row: Any, members: list[Any]) -> dict[str, Any]:
    return {"trace_info": wire.info(row), "spans": [spans.to_wire(member) for member in members]}


for module in (routes_v2, assessments_routes, artifact_routes, otlp_routes, metrics_routes):
    router.routes.extend(module.router.routes)

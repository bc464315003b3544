"""HTTP of traces as clients before MLflow 3 speak it, and MLflow still answers."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from runmirror.db import ReadConnection, WriteConnection
from runmirror.errors import InvalidParameter
from runmirror.routing import Permission, mlflow_route
from runmirror.traces import queries, reads, service, wire
from runmirror.traces.search import search_traces
from runmirror.wire import missing

router = APIRouter(tags=["traces"])


@mlflow_route(router, "POST", "/traces", permission=Permission.EDIT)
async def start_trace_v2(request: wire.StartTraceV2, connection: WriteConnection) -> JSONResponse:
    """A new trace in progress, with an id of the server's."""
    trace_id = await service.start_v2(
        connection,
        request.experiment_id,
        request.timestamp_ms,
        wire.pairs(request.request_metadata),
        wire.pairs(request.tags),
    )
    return JSONResponse({"trace_info": wire.info_v2(await reads.one(connection, trace_id))})


@mlflow_route(router, "PATCH", "/traces/{request_id}", permission=Permission.EDIT)
async def end_trace_v2(request_id: str, request: wire.EndTraceV2, connection: WriteConnection) -> JSONResponse:
    """Say how a trace ended, and when."""
    await service.end_v2(
        connection,
        request_id,
        end_time_ms=request.timestamp_ms,
        state=request.status,
        trace_metadata=wire.pairs(request.request_metadata),
        tags=wire.pairs(request.tags),
    )
    return JSONResponse({"trace_info": wire.info_v2(await reads.one(connection, request_id))})


@mlflow_route(router, "GET", "/traces/{request_id}/info", permission=Permission.READ)
async def get_trace_info_v2(request_id: str, connection: ReadConnection) -> JSONResponse:
    """A trace without its spans."""
    return JSONResponse({"trace_info": wire.info_v2(await reads.one(connection, request_id))})


@mlflow_route(router, "GET", "/traces", permission=Permission.READ)
async def search_traces_v2(  # noqa: PLR0917 FastAPI names its arguments
    connection: ReadConnection,
    experiment_ids: Annotated[list[str] | None, Query()] = None,
    filter: str = "",  # noqa: A002 MLflow's word
    max_results: Annotated[int, Query(le=wire.MAX_PAGE)] = 100,
    order_by: Annotated[list[str] | None, Query()] = None,
    page_token: str = "",
) -> JSONResponse:
    """Traces of some experiments that a filter selects."""
    if experiment_ids is None:
        raise InvalidParameter(missing("experiment_ids"))
    trace_ids, token = await search_traces(
        connection,
        experiment_ids=experiment_ids,
        filter_string=filter,
        max_results=max_results,
        order_by=order_by or [],
        page_token=page_token,
    )
    rows = await queries.load(connection, trace_ids)
    answer: dict[str, Any] = {"traces": [wire.info_v2(row) for row in rows]} if rows else {}
    return JSONResponse(answer | ({"next_page_token": token} if token else {}))

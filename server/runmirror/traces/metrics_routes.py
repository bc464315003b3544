"""HTTP of figures over traces."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from runmirror.db import ReadConnection
from runmirror.routing import Permission, mlflow_route
from runmirror.traces import correlation, metrics, wire

router = APIRouter(tags=["traces"])


@mlflow_route(router, "POST", "/traces/metrics", permission=Permission.READ, version="3.0")
async def query_trace_metrics(request: wire.QueryMetrics, connection: ReadConnection) -> JSONResponse:
    """Counts, sums, means and percentiles over traces, spans or assessments, by time and dimensions."""
    points = await metrics.query(connection, request)
    return JSONResponse({"data_points": points} if points else {})


@mlflow_route(router, "POST", "/traces/calculate-filter-correlation", permission=Permission.READ, version="3.0")
async def calculate_trace_filter_correlation(request: wire.Correlate, connection: ReadConnection) -> JSONResponse:
    """How much two filters agree."""
    return JSONResponse(
        await correlation.correlate(
            connection, request.experiment_ids, request.filter_string1, request.filter_string2, request.base_filter
        )
    )

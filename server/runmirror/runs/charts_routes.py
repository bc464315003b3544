"""HTTP of what charts are drawn from."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from sqlalchemy.engine import Row

from runmirror.db import ReadConnection
from runmirror.routing import Permission, mlflow_route, route
from runmirror.run_ids import stored_id
from runmirror.runs import charts_queries
from runmirror.runs import charts_wire as wire

router = APIRouter(tags=["charts"])


class Asked(NamedTuple):
    """The runs of a request in its order, one perhaps twice, and how it wrote each."""

    keys: list[UUID]
    names: dict[UUID, str]


@route(router, "GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk", permission=Permission.READ)
async def get_history_bulk(request: Annotated[wire.Bulk, Query()], connection: ReadConnection) -> JSONResponse:
    """Every point of one metric of some runs, by run and time, up to a limit for all of them together."""
    request.check()
    asked = _asked(request.run_id)
    points = await charts_queries.whole(connection, asked.keys, request.metric_key, limit=request.limit)
    return JSONResponse({"metrics": metrics(request.metric_key, points, asked.names)})


@mlflow_route(router, "GET", "/metrics/get-history-bulk-interval", permission=Permission.READ)
async def get_history_bulk_interval(
    request: Annotated[wire.BulkInterval, Query()], connection: ReadConnection
) -> JSONResponse:
    """Points of one metric of some runs, sampled evenly when there are more than `max_results` of a run."""
    found = await sampled_metrics(connection, request)
    return JSONResponse({"metrics": found} if found else {})


async def sampled_metrics(connection: ReadConnection, request: wire.BulkInterval) -> list[dict[str, Any]]:
    """What /get-history-bulk-interval answers, for GraphQL too."""
    request.check()
    asked = _asked(request.run_ids)
    points = await charts_queries.sampled(
        connection, asked.keys, request.metric_key, limit=request.max_results, steps=request.steps
    )
    return metrics(request.metric_key, points, asked.names)


def metrics(key: str, points: Iterable[Row[Any]], names: Mapping[UUID, str]) -> list[dict[str, Any]]:
    """`MetricWithRunId` of MLflow's wire."""
    return [
        {
            "key": key,
            "value": "NaN" if math.isnan(point.value) else point.value,
            "timestamp": point.timestamp_ms,
            "step": point.step,
            "run_id": names[point.run_id],
        }
        for point in points
    ]


def _asked(run_ids: Iterable[str]) -> Asked:
    """Those that can be ids of runs; like ids of runs that are not there, others have no points."""
    keys = [(key, run_id) for run_id in run_ids if (key := stored_id(run_id)) is not None]
    return Asked([key for key, _ in keys], dict(keys))

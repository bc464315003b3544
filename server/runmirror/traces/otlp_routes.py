"""HTTP of OpenTelemetry's export: `POST /v1/traces`, where every OpenTelemetry exporter can send its spans."""

import asyncio
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from runmirror.auth import permits
from runmirror.auth.levels import Level
from runmirror.auth.subjects import Thing
from runmirror.db import write_connection
from runmirror.routing import Permission, route
from runmirror.settings import Settings
from runmirror.traces import otlp
from runmirror.traces.spans_service import log_spans

router = APIRouter(tags=["traces"])


@route(router, "POST", "/v1/traces", permission=Permission.EDIT)
async def export_traces(
    request: Request,
    x_mlflow_experiment_id: Annotated[str, Header()],
    x_mlflow_run_id: Annotated[str, Header()] = "",
    content_type: Annotated[str, Header()] = "",
    content_encoding: Annotated[str, Header()] = "",
) -> Response:
    """Write the spans of one export, in protobuf or JSON; all of it or nothing."""
    settings: Settings = request.app.state.settings
    spans = await asyncio.to_thread(
        otlp.parse_export,
        await request.body(),
        content_type=content_type,
        content_encoding=content_encoding,
        limit_bytes=settings.max_body_bytes,
    )
    # Who may write to an experiment may not so write to a trace of another, by its id.
    await permits.current().require(Thing.TRACE, sorted({span.trace_id for span in spans}), Level.EDIT)
    async with asynccontextmanager(write_connection)(request) as connection:  # none is held while the body arrives
        await log_spans(connection, x_mlflow_experiment_id, spans, x_mlflow_run_id)
    return Response(media_type=otlp.PROTOBUF)  # an empty ExportTraceServiceResponse: nothing was refused

"""HTTP of the files of traces, as MLflow's UI asks for them: spans as `traces.json`, and attachments.

Clients upload and download through the artifact service, at the trace's `mlflow.artifactLocation`.
"""

import json
from contextlib import asynccontextmanager
from uuid import UUID

from fastapi import APIRouter, Request, Response

from runmirror.artifacts import downloads
from runmirror.artifacts.files import Store
from runmirror.artifacts.places import path_of
from runmirror.artifacts.safe_path import safe_path
from runmirror.db import read_connection
from runmirror.errors import BadRequest, InvalidParameter
from runmirror.routing import Permission, route
from runmirror.traces import queries, reads, service, spans
from runmirror.traces.keys import TraceNotFound, existing_id

router = APIRouter(tags=["traces"])

_FILE = "traces.json"
_PATH = "/ajax-api/{version}/mlflow/get-trace-artifact"


@route(router, "GET", _PATH.format(version="2.0"), permission=Permission.READ)
@route(router, "GET", _PATH.format(version="3.0"), permission=Permission.READ)
async def get_trace_artifact(request: Request, request_id: str = "", path: str = "") -> Response:
    """The spans of a trace, as far as they have come; with `path` (a UUID) one of its attachments."""
    if not request_id:
        raise BadRequest('Request must include the "request_id" query parameter.')
    if path:
        return await _download(request, request_id, f"attachments/{_attachment(path)}")
    try:
        async with asynccontextmanager(read_connection)(request) as connection:
            _, members = await reads.with_spans(connection, request_id)
    except reads.NotInDatabase:
        return await _download(request, request_id, _FILE)
    headers = {
        "Content-Disposition": downloads.attachment(_FILE),
        "Content-Security-Policy": "sandbox",
        "Cache-Control": "no-cache",
    }
    body = json.dumps({"spans": [spans.to_artifact(member) for member in members]}, ensure_ascii=False)
    return Response(body, media_type=downloads.content_type(_FILE), headers=headers)


async def _download(request: Request, trace_id: str, path: str) -> Response:
    """A file below the trace's own root: never where a tag, which clients write, says."""
    async with asynccontextmanager(read_connection)(request) as connection:
        location = await queries.artifact_location(connection, existing_id(trace_id))
    if location is None:
        raise TraceNotFound(trace_id)
    store: Store = request.app.state.artifacts
    place = safe_path(f"{path_of(service.artifact_root(location, trace_id))}/{path}")
    return await downloads.answer_download(store, place, request.headers)


def _attachment(path: str) -> str:
    safe_path(path)
    try:
        UUID(path)
    except ValueError:
        raise InvalidParameter(
            f"Invalid attachment path: '{path[:80]}'. Attachment path must be a valid UUID."
        ) from None
    return path

"""HTTP of the pages' own upload of a small artifact to a run."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from runmirror.artifacts.routes import Service
from runmirror.artifacts.safe_path import safe_path
from runmirror.errors import InvalidParameter
from runmirror.routing import Permission, route

router = APIRouter(tags=["ui"])

MAX_BYTES = 10 * 1024**2


async def small_body(request: Request) -> bytes:
    """The body, read no further than it may be long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise InvalidParameter("Artifact size is too large. Max size is 10MB.")
    return bytes(body)


@route(router, "POST", "/ajax-api/2.0/mlflow/upload-artifact", permission=Permission.EDIT)
async def upload_artifact(
    service: Service, body: Annotated[bytes, Depends(small_body)], run_uuid: str = "", path: str = ""
) -> Response:
    """Store the body as a file of a run; the answer is JSON without a body, as MLflow's."""
    if not run_uuid:
        raise InvalidParameter("Request must specify run_uuid.")
    if not path:
        raise InvalidParameter("Request must specify path.")
    if not body:
        raise InvalidParameter("Request must specify data.")
    where = await service.path_in_run(run_uuid, safe_path(path))

    async def once() -> AsyncIterator[bytes]:
        yield body

    await service.upload(where, once())
    return Response(media_type="application/json")

"""The artifact service v2.0: every operation by origin, container and path, in both route orders."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import artifact_store, fields
from azureml_emulator.blob_store import read_file, receive
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import InvalidParameter, NotFound, UnknownRoute
from azureml_emulator.sas import WRITE


def _place(request: Request) -> tuple[str, str, str]:
    """Origin, container and path; clients leave empty segments behind."""
    params = request.path_params
    path = params.get("path") or request.query_params.get("path") or ""
    return params["origin"], params["container"], path.strip("/")


def _address(emulator: Emulator, request: Request) -> str:
    """This route's own URL without a page token, for nextLink."""
    scope = f"{emulator.workspace.api_url}/artifact/v2.0{emulator.workspace.arm_id}{request.url.path}"
    path = request.query_params.get("path")
    return f"{scope}?path={path}" if path else scope


async def register_batch(emulator: Emulator, request: Request) -> Response:
    origin, container, _ = _place(request)
    body = await fields.read_json(request)
    paths = [fields.text(entry, "path") for entry in fields.objects(body, "paths")]
    return JSONResponse(artifact_store.register_batch(emulator, origin, container, paths))


async def list_artifacts(emulator: Emulator, request: Request) -> Response:
    found = emulator.state.artifacts_of(*_place(request))
    token = request.query_params.get("continuationToken")
    return JSONResponse(artifact_store.list_page(emulator, _address(emulator, request), found, token))


async def list_signed(emulator: Emulator, request: Request) -> Response:
    found = emulator.state.artifacts_of(*_place(request))
    token = request.query_params.get("continuationToken")
    address = _address(emulator, request)
    return JSONResponse(artifact_store.list_page(emulator, address, found, token, signed=True))


async def read_url(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(artifact_store.write_content(emulator, artifact_store.find(emulator, *_place(request))))


async def write_url(emulator: Emulator, request: Request) -> Response:
    """A URL that may write, for a new path or one that is there: whether the service grants it is a switch."""
    if not emulator.settings.write_sas:
        raise UnknownRoute("Write URLs are switched off")
    origin, container, path = _place(request)
    artifact = emulator.state.artifacts.get(f"{origin}/{container}/{path}")
    artifact = artifact or artifact_store.register(emulator, origin, container, path)
    return JSONResponse(artifact_store.write_content(emulator, artifact, WRITE))


async def get_metadata(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(artifact_store.write_artifact(artifact_store.find(emulator, *_place(request))))


async def create_metadata(emulator: Emulator, request: Request) -> Response:
    body = await fields.read_json(request)
    place = (fields.text(body, key) for key in ("origin", "container", "path"))
    return JSONResponse(artifact_store.write_artifact(artifact_store.register(emulator, *place)))


async def delete_metadata(emulator: Emulator, request: Request) -> Response:
    artifact_store.remove(emulator, artifact_store.find(emulator, *_place(request)))
    return JSONResponse({})


async def get_content(emulator: Emulator, request: Request) -> Response:
    artifact = artifact_store.find(emulator, *_place(request))
    blob = emulator.state.blobs.get(artifact.artifact_id)
    if blob is None:
        raise NotFound(f"No content: ArtifactId {artifact.artifact_id}")
    return read_file(blob.file, 0, blob.size, 200, {"content-type": blob.content_type})


async def put_content(emulator: Emulator, request: Request) -> Response:
    """Content through the service instead of Blob storage, in one piece."""
    if request.query_params.get("append", "false").lower() == "true":
        raise InvalidParameter("Appending is not emulated")
    origin, container, path = _place(request)
    artifact = artifact_store.register(emulator, origin, container, path)
    emulator.state.blobs[artifact.artifact_id] = await receive(emulator.blob_dir, request)
    return JSONResponse(artifact_store.write_artifact(artifact))


PLACE = "{origin}/{container}"
ROUTES = [
    ("POST", f"/artifacts/batch/metadata/{PLACE}", register_batch),
    ("POST", f"/artifacts/{PLACE}/batch/metadata", register_batch),
    ("GET", f"/artifacts/contentinfo/{PLACE}/{{path:path}}", read_url),
    ("GET", f"/artifacts/{PLACE}/contentinfo", read_url),
    ("GET", f"/artifacts/prefix/contentinfo/{PLACE}", list_signed),
    ("GET", f"/artifacts/prefix/contentinfo/{PLACE}/{{path:path}}", list_signed),
    ("GET", f"/artifacts/{PLACE}/prefix/contentinfo", list_signed),
    ("GET", f"/artifacts/write/{PLACE}/{{path:path}}", write_url),
    ("GET", f"/artifacts/content/{PLACE}/{{path:path}}", get_content),
    ("POST", f"/artifacts/content/{PLACE}/{{path:path}}", put_content),
    ("POST", "/artifacts/metadata", create_metadata),
    ("GET", f"/artifacts/metadata/{PLACE}/{{path:path}}", get_metadata),
    ("DELETE", f"/artifacts/metadata/{PLACE}/{{path:path}}", delete_metadata),
    ("GET", f"/artifacts/{PLACE}/metadata", get_metadata),
    ("GET", f"/artifacts/{PLACE}", list_artifacts),
    ("GET", f"/artifacts/{PLACE}/{{path:path}}", list_artifacts),
]

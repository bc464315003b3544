"""A run's artifacts by way of run history: the routes that azureml-mlflow uses."""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import artifact_store, fields
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import InvalidParameter
from azureml_emulator.history_paths import find_run
from azureml_emulator.state import Artifact


def _find(emulator: Emulator, request: Request) -> Artifact:
    run = find_run(emulator, request)
    path = request.query_params.get("path")
    if not path:
        raise InvalidParameter("The path query parameter is required")
    return artifact_store.find(emulator, artifact_store.RUN_ORIGIN, run.container, path)


async def register_batch(emulator: Emulator, request: Request) -> Response:
    run = find_run(emulator, request)
    body = await fields.read_json(request)
    paths = [fields.text(entry, "path") for entry in fields.objects(body, "paths")]
    origin = artifact_store.RUN_ORIGIN
    return JSONResponse(artifact_store.register_batch(emulator, origin, run.container, paths))


def _list(emulator: Emulator, request: Request, *, signed: bool) -> Response:
    run = find_run(emulator, request)
    prefix = request.query_params.get("path", "")
    found = emulator.state.artifacts_of(artifact_store.RUN_ORIGIN, run.container, prefix)
    address = f"{emulator.workspace.api_url}/history/v1.0{emulator.workspace.arm_id}{request.url.path}"
    address += f"?path={quote(prefix)}" if prefix else ""
    token = request.query_params.get("continuationToken")
    return JSONResponse(artifact_store.list_page(emulator, address, found, token, signed=signed))


async def list_artifacts(emulator: Emulator, request: Request) -> Response:
    return _list(emulator, request, signed=False)


async def list_signed(emulator: Emulator, request: Request) -> Response:
    return _list(emulator, request, signed=True)


async def read_url(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(artifact_store.write_content(emulator, _find(emulator, request)))


async def get_metadata(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(artifact_store.write_artifact(_find(emulator, request)))


async def get_uri(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(artifact_store.write_content(emulator, _find(emulator, request))["contentUri"])


ROUTES = [
    ("POST", "/artifacts/batch/metadata", register_batch),
    ("GET", "/artifacts", list_artifacts),
    ("GET", "/artifacts/path", list_artifacts),
    ("GET", "/artifacts/contentinfo", read_url),
    ("GET", "/artifacts/prefix/contentinfo", list_signed),
    ("GET", "/artifacts/metadata", get_metadata),
    ("GET", "/artifacts/artifacturi", get_uri),
]

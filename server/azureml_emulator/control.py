"""The control port: what stands in the workspace, what was asked, and switches for tests."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from azureml_emulator import damage, entra, fields
from azureml_emulator.blob_store import read_file
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import NotFound, answer_plain
from azureml_emulator.recorder import Recorded
from azureml_emulator.service import RouteRow, build_service
from azureml_emulator.state_view import write_state

PREFIX = "/_emulator"


async def health(_emulator: Emulator, _request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def state(emulator: Emulator, request: Request) -> Response:
    """Of the first workspace, or of the one that is named."""
    name = request.query_params.get("workspace", emulator.workspace.name)
    found = next((each for each in emulator if each.workspace.name == name), None)
    if found is None:
        raise NotFound(f"No workspace {name}")
    return JSONResponse(write_state(found))


async def requests(emulator: Emulator, request: Request) -> Response:
    query = request.query_params
    unknown, refused = query.get("unknown") == "1", query.get("refused") == "1"
    return JSONResponse({"requests": emulator.recorder.as_json(unknown=unknown, refused=refused)})


async def effects(emulator: Emulator, _request: Request) -> Response:
    return JSONResponse({"effects": emulator.recorder.effects_as_json()})


async def blob(emulator: Emulator, request: Request) -> Response:
    """The content of an artifact, by the id that the state gives it."""
    held = emulator.state.blobs.get(request.path_params["artifact_id"])
    if held is None:
        raise NotFound("No such blob")
    return read_file(held.file, 0, held.size, 200, {})


async def reset(emulator: Emulator, _request: Request) -> Response:
    emulator.reset()
    return JSONResponse({})


async def get_settings(emulator: Emulator, _request: Request) -> Response:
    return JSONResponse(emulator.settings.as_json())


async def change_settings(emulator: Emulator, request: Request) -> Response:
    emulator.settings.change(await fields.read_json(request))
    return JSONResponse(emulator.settings.as_json())


async def add_fault(emulator: Emulator, request: Request) -> Response:
    return JSONResponse({"id": emulator.faults.add(await fields.read_json(request)).id})


async def list_faults(emulator: Emulator, _request: Request) -> Response:
    return JSONResponse({"faults": emulator.faults.as_json()})


async def delete_fault(emulator: Emulator, request: Request) -> Response:
    emulator.faults.remove(request.path_params["fault_id"])
    return JSONResponse({})


async def delete_faults(emulator: Emulator, _request: Request) -> Response:
    emulator.faults.clear()
    return JSONResponse({})


ROUTES: list[RouteRow] = [
    ("GET", PREFIX + "/health", health),
    ("GET", PREFIX + "/state", state),
    ("GET", PREFIX + "/requests", requests),
    ("GET", PREFIX + "/effects", effects),
    ("GET", PREFIX + "/blobs/{artifact_id:path}", blob),
    ("POST", PREFIX + "/reset", reset),
    ("GET", PREFIX + "/settings", get_settings),
    ("POST", PREFIX + "/settings", change_settings),
    ("GET", PREFIX + "/faults", list_faults),
    ("POST", PREFIX + "/faults", add_fault),
    ("DELETE", PREFIX + "/faults", delete_faults),
    ("DELETE", PREFIX + "/faults/{fault_id}", delete_fault),
    *((method, PREFIX + path, handler) for method, path, handler in damage.ROUTES),
]
IDENTITY_ROUTES: list[RouteRow] = [("GET", "/msi/token", entra.managed_identity)]


def build_control(emulator: Emulator) -> ASGIApp:
    """Only the identity endpoint is part of Azure, so only its requests are recorded."""
    control = build_service(emulator, ROUTES, answer_plain)
    identity = build_service(emulator, IDENTITY_ROUTES, answer_plain)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith("/msi/"):
            scope["emulator.recorded"] = Recorded(0, "control", scope["method"], scope["path"])
            await control(scope, receive, send)
            return
        recorded = emulator.recorder.add("control", scope["method"], scope["path"])
        scope["emulator.recorded"] = recorded

        async def answer(message: Message) -> None:
            recorded.status = message.get("status", recorded.status)
            await send(message)

        await identity(scope, receive, answer)

    return serve

"""The discovery service: which host serves what, asked without a token."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator.emulator import Emulator

SERVICES = (
    "api",
    "artifact",
    "assets",
    "catalog",
    "credential",
    "dataset",
    "discovery",
    "environment",
    "execution",
    "experimentation",
    "gallery",
    "history",
    "hyperdrive",
    "inferencing",
    "jobs",
    "labeling",
    "metric",
    "mlflow",
    "modelmanagement",
    "onlineendpoint",
    "pipelines",
    "projectcontent",
    "rai",
    "registry",
)


async def discovery(emulator: Emulator, _request: Request) -> Response:
    answer = dict.fromkeys(SERVICES, emulator.workspace.api_url)
    return JSONResponse({**answer, "studio": emulator.workspace.studio_url})


ROUTES = [
    ("GET", "/discovery", discovery),
    ("GET", "/discovery/workspaces/{guid}", discovery),
]

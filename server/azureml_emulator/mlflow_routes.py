"""All MLflow routes of the workspace, and the logged models that it does not have."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import experiments, registry, run_logging, runs
from azureml_emulator.emulator import Emulator
from azureml_emulator.service import RouteRow

BASE = "/api/2.0/mlflow"
PREVIEW = "/api/2.0/preview/mlflow"
METHODS = ("GET", "POST", "PATCH", "DELETE")


async def logged_models(emulator: Emulator, request: Request) -> Response:
    """The real service answers 404 with no body; the switch makes searches find nothing instead."""
    if emulator.settings.logged_models and request.url.path.endswith("/search"):
        return JSONResponse({})
    return Response(status_code=404)


async def server_info(_emulator: Emulator, _request: Request) -> Response:
    """MLflow probes this and takes a 404 for an answer."""
    return Response(status_code=404)


ROUTES: list[RouteRow] = [
    *((m, BASE + p, h) for rows in (experiments, runs, run_logging, registry) for m, p, h in rows.ROUTES),
    *((m, PREVIEW + p, h) for m, p, h in run_logging.PREVIEW_ROUTES),
    *((m, BASE + p, h) for m, p, h in run_logging.PREVIEW_ROUTES),
    *((m, BASE + "/logged-models", logged_models) for m in METHODS),
    *((m, BASE + "/logged-models/{rest:path}", logged_models) for m in METHODS),
    ("POST", BASE + "/runs/outputs", logged_models),
    ("GET", "/api/3.0/mlflow/server-info", server_info),
]

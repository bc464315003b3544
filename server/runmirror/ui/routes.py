"""Endpoints that only MLflow's pages ask for, and that are about nothing of ours: answered so that they stay calm."""

from typing import Any

from fastapi import APIRouter, Request

from runmirror.routing import Permission, mlflow_route, route
from runmirror.ui.wire import ServerInfo

router = APIRouter(tags=["ui"])

_PAGES = "/ajax-api/3.0/mlflow"


@mlflow_route(router, "GET", "/server-info", permission=Permission.PUBLIC, version="3.0")
async def server_info(request: Request) -> ServerInfo:
    """Clients and pages ask this before they log in."""
    state = request.app.state
    offered = state.settings.direct_transfers == "offered" and state.artifacts.direct is not None
    return ServerInfo(multipart_uploads_enabled=offered, multipart_downloads_enabled=offered)


@route(router, "GET", f"{_PAGES}/ui-telemetry", permission=Permission.PUBLIC)
async def telemetry_settings() -> dict[str, Any]:
    """Nothing that people do on the pages is reported to anybody."""
    return {"disable_ui_telemetry": True, "disable_ui_events": [], "ui_rollout_percentage": 0}


@route(router, "POST", f"{_PAGES}/ui-telemetry", permission=Permission.PUBLIC)
async def telemetry() -> dict[str, str]:
    """Tells a page that has records to stop sending them; they are not read."""
    return {"status": "disabled"}


@route(router, "GET", "/ajax-api/2.0/mlflow/gateway-proxy", permission=Permission.READ)
@route(router, "POST", "/ajax-api/2.0/mlflow/gateway-proxy", permission=Permission.READ)
async def gateway_proxy() -> dict[str, list[str]]:
    """As `mlflow server` without a deployments target: a gateway with no endpoints."""
    return {"endpoints": []}


@route(router, "GET", f"{_PAGES}/assistant/config", permission=Permission.READ)
async def assistant_config() -> dict[str, Any]:
    """No assistant is set up, and none can be."""
    return {"providers": {}, "projects": {}, "remote_access_allowed": False}


@route(router, "GET", f"{_PAGES}/assistant/providers", permission=Permission.READ)
async def assistant_providers() -> dict[str, Any]:
    """Nobody to choose from."""
    return {"providers": [], "resolved": None, "gateway_vendor_options": {}}

"""What machines ask of a server before its users do: is it there, is it ready, which version."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror import __version__
from runmirror.migrate import head_revision
from runmirror.routing import Permission, route

router = APIRouter(tags=["probes"])

MLFLOW_VERSION = "3.17.2"  # the release whose behaviour ours is compared with; clients read it from /version


@route(router, "GET", "/health", permission=Permission.PUBLIC, response_class=PlainTextResponse)
async def health() -> str:
    """`OK` whatever the database does, as `mlflow server` answers."""
    return "OK"


@route(router, "GET", "/version", permission=Permission.PUBLIC, response_class=PlainTextResponse)
async def version() -> str:
    """The MLflow release this server behaves as."""
    return MLFLOW_VERSION


@route(router, "GET", "/livez", permission=Permission.PUBLIC)
async def livez() -> dict[str, str]:
    """The process runs; says nothing of what it depends on."""
    return {"status": "ok", "version": __version__}


_PATIENCE_S = 3.0  # a database that stands still says no by saying nothing

_UNREADY: dict[int | str, dict[str, Any]] = {
    503: {"description": "The check that failed.", "content": {"application/json": {"schema": {"type": "object"}}}}
}


@route(router, "GET", "/readyz", permission=Permission.PUBLIC, responses=_UNREADY)
async def readyz(request: Request) -> JSONResponse:
    """200 when requests can be served; 503 names the check that failed. The mirror is never a reason."""
    state = request.app.state
    database, problem = await asyncio.gather(_database(state.engine), state.artifacts.problem())
    checks: dict[str, Any] = {**database}
    checks["artifacts"] = problem or "ok"
    ready = all(state == "ok" for state in checks.values())
    return JSONResponse({"status": "ok" if ready else "unavailable", "checks": checks}, 200 if ready else 503)


async def _database(engine: AsyncEngine) -> dict[str, str]:
    try:
        async with asyncio.timeout(_PATIENCE_S), engine.connect() as connection:
            revision = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    except (SQLAlchemyError, OSError) as error:
        return {"database": f"unreachable ({type(error).__name__})", "migrations": "unknown"}
    expected = head_revision()
    return {"database": "ok", "migrations": "ok" if revision == expected else f"at {revision}, need {expected}"}

"""HTTP of the dashboard. Forms answer with a redirect, so that a reload repeats nothing."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from runmirror.dashboard import queries, run_queries
from runmirror.dashboard.origin import SameOrigin
from runmirror.dashboard.pages import STATIC, page
from runmirror.db import ReadConnection, WriteConnection
from runmirror.deployments import queries as deployment_queries
from runmirror.errors import EndpointNotFound, InvalidParameter, RunNotFound
from runmirror.mirror.overflow import PATH
from runmirror.mirror.overview import AGES, overview
from runmirror.mirror.retry_now import retry_now
from runmirror.routing import Permission, route
from runmirror.runs.writes import parse_run_id
from runmirror.wire import RUN_ID

router = APIRouter(tags=["dashboard"], include_in_schema=False)

_Refresh = Annotated[int, Query(ge=0, le=3600)]  # seconds; 0: never

_REFRESH_S = 15
_TROUBLED_SHOWN = 20
_DEPLOYMENTS_SHOWN = 20
_PAGE = 50
_OVERFLOWS_SHOWN = 25  # of each kind


@route(router, "GET", "/mirror", permission=Permission.READ)
async def mirror_page(request: Request, connection: ReadConnection, refresh: _Refresh = _REFRESH_S) -> Response:
    """The mirror as a whole."""
    return page(
        request, "overview.html", depth=0, ages=AGES,
        seen=await overview(connection),
        hour=await queries.last_hour(connection),
        troubled=await queries.troubled(connection, _TROUBLED_SHOWN),
        deployments=await deployment_queries.newest(connection, name=None, ended=False, most=_DEPLOYMENTS_SHOWN),
        refresh_s=refresh,
    )  # fmt: skip


@route(router, "GET", "/mirror/", permission=Permission.PUBLIC)
async def slash() -> Response:
    """The pages' links are relative, so their own addresses must be exact."""
    return RedirectResponse("../mirror", status_code=308)


@route(router, "GET", "/mirror/runs", permission=Permission.READ)
async def runs_page(
    request: Request,
    connection: ReadConnection,
    wanted: Annotated[str, Query(alias="q", max_length=500)] = "",
    state: str = "",
    after: str = "",
) -> Response:
    """Runs, the newest first."""
    if state not in queries.STATES:
        raise InvalidParameter(f"state is one of {', '.join(filter(None, queries.STATES))}, or left out.")
    if after and not RUN_ID.match(after):
        raise InvalidParameter("after is the id of the last run of the page before.")
    wanted = wanted.strip()
    last = UUID(after) if after else None
    found = await queries.runs(connection, wanted=wanted, state=state, after=last, most=_PAGE + 1)
    shown, more = found[:_PAGE], found[_PAGE:]
    return page(
        request, "runs.html", depth=1, runs=shown, wanted=wanted, state=state, after=after, states=queries.STATES,
        next=shown[-1].run_id.hex if more else None,
    )  # fmt: skip


@route(router, "GET", "/mirror/runs/{run_id}", permission=Permission.READ)
async def run_page(
    request: Request, run_id: str, connection: ReadConnection, refresh: _Refresh = _REFRESH_S, retried: str = ""
) -> Response:
    """One run's copy."""
    try:
        found = await run_queries.run(connection, parse_run_id(run_id))
    except RunNotFound:
        found = None
    if found is None:
        return page(request, "missing.html", depth=2, status=404, run_id=run_id[:200])
    overflow = await run_queries.not_native(connection, found.run_id, _OVERFLOWS_SHOWN) if found.partial else None
    moving = found.state in {"due", "leased"}
    return page(
        request, "run.html", depth=2, run=found, retried=retried, most=run_queries.MOST_COUNTED, overflow=overflow,
        overflow_path=PATH, refresh_s=refresh if moving else 0, moving=moving,
    )  # fmt: skip


@route(router, "POST", "/mirror/runs/{run_id}/retry", permission=Permission.MANAGE)
async def retry_run(run_id: str, connection: WriteConnection, _: SameOrigin) -> Response:
    """Try one run again at once."""
    done = await retry_now(connection, parse_run_id(run_id))
    return RedirectResponse(f"../{run_id}?retried={'yes' if done else 'no'}", status_code=303)


@route(router, "GET", "/mirror/files/{name}", permission=Permission.PUBLIC)
async def static_file(name: str) -> Response:
    """The pages' style and icon."""
    if name not in STATIC:
        raise EndpointNotFound("No such file")
    body, media_type = STATIC[name]
    return Response(body, media_type=media_type, headers={"Cache-Control": "max-age=300"})

"""`create_app(settings)`: routers, what lives as long as the process, and how errors are answered."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from runmirror import __version__, openapi, probes
from runmirror.admission import Admission, admitted
from runmirror.adoption import again
from runmirror.adoption.service import Adoption
from runmirror.answers import error_answer
from runmirror.artifacts import direct_routes
from runmirror.artifacts import routes as artifact_routes
from runmirror.artifacts.small import MAX_BYTES, SmallUploads
from runmirror.artifacts.store import create_store
from runmirror.auth import old_permissions_routes, people_routes
from runmirror.auth import routes as auth_routes
from runmirror.auth.gate import ask_permission
from runmirror.auth.install import identifying
from runmirror.auth.install import install as install_auth
from runmirror.body_limit import BodyLimit
from runmirror.dashboard import routes as dashboard_routes
from runmirror.db import BESIDE, answer_for, create_engine, gate, hot_connections, shares, unstorable
from runmirror.deployments import routes as deployment_routes
from runmirror.door.middleware import ASKED_BY_ADDRESS, Door, security_headers
from runmirror.door.rate import RateLimit
from runmirror.errors import BadRequest, EndpointNotFound, InvalidParameter, RunmirrorError
from runmirror.evaluation_datasets import routes as evaluation_dataset_routes
from runmirror.experiments import datasets_routes
from runmirror.experiments import routes as experiment_routes
from runmirror.graphql import routes as graphql_routes
from runmirror.hot.middleware import HotRoutes, check_hot, check_hot_folders
from runmirror.logged_models import routes as logged_model_routes
from runmirror.logs import request_id
from runmirror.metrics import routes as metrics_routes
from runmirror.metrics.http import CountRequests, HttpMetrics
from runmirror.mirror import quarantine_routes
from runmirror.mirror import routes as mirror_routes
from runmirror.outage import Outage
from runmirror.registry import routes as registry_routes
from runmirror.routing import check_permissions
from runmirror.runs import charts_routes, hot_search, inputs_routes, log_model
from runmirror.runs import routes as run_routes
from runmirror.runs.hot import HotRuns
from runmirror.runs.hot_search import HotSearch
from runmirror.runs.kept import KeptRuns
from runmirror.scorers import routes as scorer_routes
from runmirror.settings import Settings
from runmirror.signin import routes as signin_routes
from runmirror.signin import session_routes
from runmirror.telemetry.install import open_tracing
from runmirror.traces import routes as trace_routes
from runmirror.ui import nothing, static, upload
from runmirror.ui import routes as ui_routes
from runmirror.ui.folder import files_below, ui_folder
from runmirror.ui.prefix import StaticPrefix
from runmirror.unserved import routes as unserved_routes
from runmirror.webhooks import routes as webhook_routes
from runmirror.webhooks.deliverer import delivering
from runmirror.webhooks.sender import Sender
from runmirror.wire import missing

if TYPE_CHECKING:
    from runmirror.telemetry.tracing import Tracing

log = logging.getLogger(__name__)


def create_app(settings: Settings, database_url: str) -> FastAPI:
    """The application production runs; `database_url` has been migrated already."""
    tracing = open_tracing(settings, "runmirror")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = create_engine(
            settings, database_url, statement_timeout=settings.db_statement_timeout, beside=BESIDE
        )
        app.state.read_engine = app.state.engine.execution_options(isolation_level="AUTOCOMMIT")
        app.state.gate = gate(settings)
        app.state.admitted = admitted(app, shares(app.state.gate))
        app.state.http_metrics.watch(app.state.engine)
        if tracing is not None:
            tracing.watch(app.state.engine)
        app.state.artifacts = create_store(settings)
        app.state.webhook_sender = Sender(settings)
        app.state.adoption = Adoption(app.state.engine, settings)
        app.state.hot_connections = hot_connections(settings, database_url)
        hot_runs = HotRuns(app.state.hot_connections, chunks=settings.metric_chunks)
        app.state.hot = check_hot(app, hot_runs.handlers())
        app.state.hot |= check_hot(app, HotSearch(app.state).handlers(), hot_search.MAX_BYTES)
        small_uploads = SmallUploads(lambda: app.state.artifacts, app.state.hot_connections)
        app.state.hot_folders = check_hot_folders(app, small_uploads.upload, MAX_BYTES, *artifact_routes.UPLOADS)
        try:
            async with (
                delivering(settings, app.state.engine, app.state.webhook_sender),
                identifying(app, settings, database_url),
            ):
                yield
        finally:
            await hot_runs.close()
            await small_uploads.close()
            await app.state.hot_connections.close()
            await app.state.adoption.close()
            await app.state.webhook_sender.close()
            await app.state.artifacts.close()
            if tracing is not None:
                await tracing.close()
            await app.state.engine.dispose()

    app = FastAPI(
        title="runmirror", version=__version__, lifespan=lifespan, openapi_url="/api/runmirror/v1/openapi.json",
        docs_url=None, redoc_url=None,  # their pages load scripts from elsewhere
        telemetry={"tracing": False, "metrics": False, "logs": False},  # a look at the environment for each request
    )  # fmt: skip
    app.state.settings = settings
    app.state.http_metrics = HttpMetrics()
    app.state.outage = Outage()
    app.state.kept_runs = KeptRuns(settings.kept_runs_bytes)
    app.state.glance = metrics_routes.Glance()
    folder = ui_folder(settings)
    app.state.ui = files_below(folder) if folder else {}
    for module in (
        probes, experiment_routes, run_routes, inputs_routes, logged_model_routes, artifact_routes, direct_routes,
        mirror_routes, quarantine_routes, deployment_routes, dashboard_routes, registry_routes, webhook_routes,
        trace_routes,
        evaluation_dataset_routes, scorer_routes, datasets_routes, charts_routes, log_model, graphql_routes,
        ui_routes, nothing, static, upload, auth_routes, people_routes, old_permissions_routes,
        *([metrics_routes] if settings.metrics else []),
        *([signin_routes, session_routes] if settings.auth != "none" else []),
        unserved_routes,  # last: what is served comes first
    ):  # fmt: skip
        if settings.auth != "none":
            app.include_router(module.router, dependencies=[Depends(ask_permission)])
        else:
            app.router.routes.extend(module.router.routes)  # include_router would build each route a second time
    check_permissions(app)
    openapi.describe(app)
    _answer_errors(app, settings)
    again.install(app)
    _add_middleware(app, settings, tracing)
    return app


def _add_middleware(app: FastAPI, settings: Settings, tracing: "Tracing | None") -> None:
    """From the inside out: the door is asked before who calls is known, and what is counted last is all of it."""
    app.add_middleware(BodyLimit, limit_bytes=settings.max_body_bytes)
    app.add_middleware(Admission)
    app.add_middleware(HotRoutes, limit_bytes=settings.max_body_bytes)
    install_auth(app, settings)
    if settings.static_prefix:
        app.add_middleware(StaticPrefix, prefix=settings.static_prefix)
    if settings.rate_limit:
        app.add_middleware(RateLimit, per_second=settings.rate_limit, free=ASKED_BY_ADDRESS)
    app.add_middleware(Door, settings=settings)
    app.add_middleware(CountRequests, metrics=app.state.http_metrics, logged=settings.access_log)
    if tracing is not None:
        from runmirror.telemetry.tracing import TraceRequests  # noqa: PLC0415 - as in open_tracing

        app.add_middleware(TraceRequests, tracing=tracing)


def _answer_errors(app: FastAPI, settings: Settings) -> None:
    @app.exception_handler(RunmirrorError)
    async def ours(_: Request, error: RunmirrorError) -> JSONResponse:
        return error_answer(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_answer(InvalidParameter(_say(error.errors()[0])))

    @app.exception_handler(DBAPIError)
    async def database(_: Request, error: DBAPIError) -> JSONResponse:
        answer = answer_for(error, wrote_nothing=False)
        if not isinstance(answer, RunmirrorError):
            raise error
        return error_answer(answer)

    @app.exception_handler(UnicodeEncodeError)
    async def lone_surrogate(_: Request, __: UnicodeEncodeError) -> JSONResponse:
        return error_answer(unstorable())

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code in {404, 405}:
            return error_answer(EndpointNotFound(f"No endpoint {request.method} {request.url.path}"))
        if isinstance(error.__cause__, RunmirrorError):  # FastAPI wraps what goes wrong while it reads a body
            return error_answer(error.__cause__)
        if error.status_code == 400:  # a body that is not even text
            return error_answer(InvalidParameter(f"The request cannot be read: {error.detail}."))
        return error_answer(BadRequest(str(error.detail)), status=error.status_code)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        log.error("unforeseen error in %s %r", request.method, request.url.path, exc_info=error)
        answer = error_answer(RunmirrorError("Internal error; the server's log says more."))
        answer.raw_headers += security_headers(settings.x_frame_options)  # this one is answered outside of the door
        answer.headers["X-Request-Id"] = request_id.get()
        return answer


def _say(problem: dict[str, Any]) -> str:
    """One sentence about what a request got wrong, without repeating more than a little of it."""
    _, *place = problem["loc"]  # the first part says body, query or path
    where = [str(part) for part in place]
    if problem["type"] == "missing" and where:
        return missing(".".join(where))
    if problem["type"] == "json_invalid":
        return f"The request body is not valid JSON: {problem.get('ctx', {}).get('error', 'it cannot be parsed')}."
    if not where:
        return "The request body must be a JSON object, sent as Content-Type: application/json."
    given = repr(problem.get("input"))
    shown = given if len(given) <= 80 else f"{given[:80]}…"
    return f"Invalid value {shown} for parameter '{'.'.join(where)}' supplied: {problem['msg']}."

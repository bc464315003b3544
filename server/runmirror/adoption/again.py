"""Handles a request once more, after what it named by Azure ML's ids was adopted.

An error handler runs when the request's transaction is over and nothing is answered yet. So it may ask the workspace,
and answer with all that the application answers the second time.
"""

from collections.abc import Mapping

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from runmirror import names
from runmirror.adoption.service import Adoption
from runmirror.answers import error_answer
from runmirror.errors import AzureExperimentNotFound, RunmirrorError, RunNotFound
from runmirror.run_ids import is_foreign

_RUNS, _EXPERIMENTS = "runmirror.adopted_runs", "runmirror.adopted_experiments"
_MOST_EXPERIMENTS = 50
# What routing added to the scope the first time.
_OF_FIRST_TIME = frozenset(
    {"endpoint", "path_params", "route", "router", "fastapi", "fastapi_inner_astack", "fastapi_function_astack"}
)


class Again(Response):
    """The answer that the same request gets now."""

    def __init__(self, request: Request, body: bytes, **more: object) -> None:
        super().__init__()
        self._request = request
        self._body_sent = body
        self._more = more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = False

        async def receive_again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": self._body_sent, "more_body": False}

        fresh = {key: value for key, value in scope.items() if key not in _OF_FIRST_TIME} | self._more
        token = names.known_experiments.set(fresh.get(_EXPERIMENTS, {}))
        try:
            await self._request.app.router(fresh, receive_again, send)
        finally:
            names.known_experiments.reset(token)


def install(app: FastAPI) -> None:
    """Errors about what Azure ML may know go this way; every other one goes where it went."""

    @app.exception_handler(RunNotFound)
    async def run_not_found(request: Request, error: RunNotFound) -> Response:
        done: frozenset[str] = request.scope.get(_RUNS, frozenset())
        if not is_foreign(error.run_id) or error.run_id in done:
            return error_answer(error)
        try:
            await _adoption(request).run(error.run_id)
        except RunmirrorError as refusal:
            return error_answer(refusal)
        return await _again(request, error, {_RUNS: done | {error.run_id}})

    @app.exception_handler(AzureExperimentNotFound)
    async def experiment_not_found(request: Request, error: AzureExperimentNotFound) -> Response:
        known: Mapping[str, int] = request.scope.get(_EXPERIMENTS, {})
        key = error.experiment_id.lower()
        if key in known or len(known) >= _MOST_EXPERIMENTS:
            return error_answer(error)
        try:
            ours = await _adoption(request).experiment(key)
        except RunmirrorError as refusal:
            return error_answer(refusal)
        return await _again(request, error, {_EXPERIMENTS: {**known, key: ours}})


def _adoption(request: Request) -> Adoption:
    adoption: Adoption = request.app.state.adoption
    return adoption


async def _again(request: Request, error: RunmirrorError, more: dict[str, object]) -> Again | JSONResponse:
    try:
        body = await request.body()
    except RuntimeError:  # read as a stream, and gone
        return error_answer(error)
    return Again(request, body, **more)

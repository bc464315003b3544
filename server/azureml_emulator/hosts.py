"""One ASGI application for all emulated hosts: record, spoil on request, dispatch by host and path."""

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from azureml_emulator import (
    arm,
    artifacts,
    blobs,
    discovery,
    endpoints,
    entra,
    history,
    metrics,
    mlflow_routes,
    models,
    scoring,
    services,
)
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import (
    NotFound,
    Unauthorized,
    answer_arm,
    answer_blob,
    answer_camel,
    answer_mlflow,
    answer_models,
    answer_oauth,
)
from azureml_emulator.service import Answer, RouteRow, build_service
from azureml_emulator.spoil import spoil
from azureml_emulator.tokens import ARM_AUDIENCES, DATA_AUDIENCES
from azureml_emulator.workspace import ARM_HOST, LOGIN_HOST

# ARM ids arrive in mixed case: portal links write "resourcegroups".
SCOPED = re.compile(
    r"/(?P<service>[a-z]+)/v[\d.]+"
    r"(?P<scope>/subscriptions/[^/]+/resourcegroups/[^/]+/providers/microsoft\.machinelearningservices/workspaces/[^/]+)"
    r"(?P<rest>/.*)?",
    re.IGNORECASE | re.DOTALL,
)


def build_hosts(emulator: Emulator) -> ASGIApp:
    """Wire every service of every host."""
    blob_hosts = {each.workspace.blob_host: build_service(each, blobs.ROUTES, answer_blob) for each in emulator}
    hosts: dict[str, ASGIApp] = {
        LOGIN_HOST: build_service(emulator, entra.ROUTES, answer_oauth),
        ARM_HOST: _build_arm(emulator),
        **blob_hosts,
        emulator.workspace.api_host: _build_data_plane(emulator),
    }
    nowhere = build_service(emulator, [], answer_camel)
    by_tls = emulator.scoring_hosts[0]
    scored = build_service(emulator, scoring.ENDPOINT_ROUTES, answer_camel)
    scored_plain = build_service(emulator, scoring.SERVICE_ROUTES, answer_camel)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        host = scope["emulator.recorded"].host
        found = hosts.get(host, nowhere)
        if host.endswith(emulator.scoring_hosts):
            found = scored if host.endswith(by_tls) else scored_plain
        await found(scope, receive, send)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "").split(":")[0].lower()
        method, path = scope["method"], scope["path"]
        # Queries of blob URLs are secrets, and no other query holds any.
        query = "" if host in blob_hosts else scope["query_string"].decode("latin-1")
        agent = headers.get(b"user-agent", "")
        recorded = emulator.recorder.add(host, method, path, query=query, user_agent=agent)
        scope["emulator.recorded"] = recorded

        unread = True

        async def take() -> Message:
            nonlocal unread
            message = await receive()
            recorded.bytes += len(message.get("body", b""))
            unread = bool(message.get("more_body"))
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                recorded.status = message["status"]
                # A client that is still sending would see a broken connection instead of the refusal.
                while unread:
                    await take()
            await send(message)

        fault = emulator.faults.take(host, method, path)
        if fault is None:
            await dispatch(scope, take, answer)
        else:
            recorded.fault = fault.kind
            await spoil(fault, dispatch, scope, take, answer)

    return serve


def _build_arm(emulator: Emulator) -> ASGIApp:
    app = build_service(emulator, [*arm.ROUTES, *endpoints.ROUTES], answer_arm)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        # The cloud's metadata is all that ARM tells without a token.
        refusal = None if scope["path"] == arm.METADATA else _refusal(emulator, scope, ARM_AUDIENCES)
        if refusal is not None:
            await answer_arm(refusal)(scope, receive, send)
            return
        await app({**scope, "path": arm.canonical(scope["path"])}, receive, send)

    return dispatch


def _build_data_plane(emulator: Emulator) -> ASGIApp:
    """The regional host: services share it by the first segment, and a workspace's ARM id follows."""
    tables: dict[str, tuple[Sequence[RouteRow], Answer]] = {
        "mlflow": (mlflow_routes.ROUTES, answer_mlflow),
        "history": (history.ROUTES, answer_camel),
        "artifact": (artifacts.ROUTES, answer_camel),
        "metric": (metrics.ROUTES, answer_camel),
        "modelmanagement": ([*models.ROUTES, *services.ROUTES], answer_models),
    }
    scoped = {
        each.workspace.arm_id.lower(): {name: build_service(each, *table) for name, table in tables.items()}
        for each in emulator
    }
    unscoped = build_service(emulator, discovery.ROUTES, answer_camel)
    computes = build_service(emulator, endpoints.COMPUTE_ROUTES, answer_arm)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(endpoints.COMPUTES + "/"):
            refusal = _refusal(emulator, scope, DATA_AUDIENCES)
            path = arm.canonical(scope["path"].removeprefix(endpoints.COMPUTES))
            await (computes if refusal is None else answer_arm(refusal))({**scope, "path": path}, receive, send)
            return
        match = SCOPED.fullmatch(scope["path"])
        if match is None or match["service"].lower() not in tables:
            await unscoped(scope, receive, send)
            return
        # One gate stands before all services, so that even MLflow's callers get no error_code from it.
        refusal = _refusal(emulator, scope, DATA_AUDIENCES)
        if refusal is not None:
            await answer_camel(refusal)(scope, receive, send)
            return
        service, found = match["service"].lower(), scoped.get(match["scope"].lower())
        if found is None:
            answer = tables[service][1]
            await answer(NotFound(f"Workspace not found: {match['scope']}"))(scope, receive, send)
            return
        path = match["rest"] or "/"
        await found[service]({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    return dispatch


def _refusal(emulator: Emulator, scope: Scope, audiences: frozenset[str]) -> Unauthorized | None:
    """Why a request's token is not good enough, if it is not."""
    try:
        emulator.issuer.check(Headers(scope=scope).get("authorization", ""), audiences)
    except Unauthorized as refusal:
        return refusal
    return None

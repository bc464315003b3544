"""Every route, in every role, at both of its addresses: who is let in is what the route declares, and nobody else."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.auth.levels import NEEDED, Level
from runmirror.auth.subjects import Audience, Subject, Thing
from runmirror.routing import Permission, routes_of
from runmirror.settings import Settings
from tests.auth.conftest import Guarded, guarding
from tests.auth.world import ROLES, World, populated

PREFIX = "/mlflow"


def value_of(world: World, thing: Thing) -> str:
    return {
        Thing.EXPERIMENT: world.experiment_id,
        Thing.EXPERIMENT_NAME: world.experiment,
        Thing.RUN: world.run_id,
        Thing.LOGGED_MODEL: world.model_id,
        Thing.TRACE: world.trace_id,
        Thing.DATASET: world.dataset_id,
        Thing.REGISTERED_MODEL: world.model,
        Thing.VERSION_SOURCE: f"models:/{world.model}/1",
        Thing.FILE: world.file,
        Thing.TREE: f"{world.experiment_id}/{world.run_id}",
    }[thing]


def put(body: dict[str, Any], way: list[str], value: str) -> None:
    """`value` at the end of a way into a JSON object; names in the plural are lists."""
    first, *rest = way
    if not rest:
        body[first] = [value] if first.endswith("_ids") else value
        return
    if first in {"metrics", "models", "locations"}:
        inner: dict[str, Any] = {}
        body[first] = [inner]
    else:
        inner = body.setdefault(first, {})
    put(inner, rest, value)


async def send(client: httpx.AsyncClient, method: str, path: str, world: World, subject: Subject) -> httpx.Response:
    """A request that names, in every way it knows, what the subject is about."""
    body: dict[str, Any] = {}
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    in_path: dict[str, str] = {}
    for named in subject.named:
        value = value_of(world, named.thing)
        for name in named.names:
            if name.startswith("header:"):
                headers[name.removeprefix("header:")] = value
            elif f"{{{name}}}" in path or f"{{{name}:path}}" in path:
                in_path[name] = value
            else:
                put(body, name.split("."), value)
                if "." not in name:
                    query[name] = value
    path = re.sub(r"\{(\w+)(:path)?\}", lambda found: in_path.get(found[1], "999"), path)
    if method in {"GET", "HEAD"}:
        return await client.request(method, PREFIX + path, params=query, headers=headers)
    return await client.request(method, PREFIX + path, params=query, json=body, headers=headers)


def needed(subject: Subject, permission: Permission) -> Level:
    return NEEDED[permission] if subject.named else Level.NONE


async def test_every_route_lets_in_whom_its_permission_says_and_nobody_else(
    settings: Settings, engine: AsyncEngine
) -> None:
    async with guarding(settings, engine, static_prefix=PREFIX) as guarded:
        # The world is made at the addresses without the prefix by an application of its own.
        async with guarding(settings, engine) as maker:
            world = await populated(maker)
        clients = {name: guarded.as_nobody() for name in world.clients}
        for name, client in clients.items():
            client.headers["Authorization"] = world.clients[name].headers["Authorization"]
        clients["nobody"] = guarded.as_nobody()
        table = guarded.app.state.subjects
        seen: Counter[str] = Counter()
        wrong: Wrong = []
        await nobody_else_is_let_in(world, clients, table, seen, wrong)
        assert wrong == []
        await whoever_may_is_let_in(world, clients, table, seen, wrong)
        assert wrong == []
        assert len(table) > 450
        assert min(seen[f"{name} refused"] for name in ("nobody", "stranger", "reader", "editor")) > 20, seen


Table = Mapping[tuple[str, str], tuple[Subject, Permission]]
Wrong = list[tuple[str, str, str, int]]


async def nobody_else_is_let_in(
    world: World, clients: dict[str, httpx.AsyncClient], table: Table, seen: Counter[str], wrong: Wrong
) -> None:
    """Everybody who is to be refused, while all that is named is still there."""
    for (method, path), (subject, permission) in table.items():
        answer = await send(clients["nobody"], method, path, world, subject)
        if answer.status_code != 401 or "WWW-Authenticate" not in answer.headers:
            wrong.append((method, path, "nobody", answer.status_code))
        seen["nobody refused"] += 1
        for name, level in ROLES.items():
            enough = (level or Level.NONE) >= needed(subject, permission)
            if enough and subject.audience is Audience.SIGNED_IN:
                continue
            answer = await send(clients[name], method, path, world, subject)
            denied = answer.status_code == 403
            if method != "HEAD":
                denied = denied and answer.json()["error_code"] == "PERMISSION_DENIED"
            if not denied:
                wrong.append((method, path, name, answer.status_code))
            seen[f"{name} refused"] += 1


async def whoever_may_is_let_in(
    world: World, clients: dict[str, httpx.AsyncClient], table: Table, seen: Counter[str], wrong: Wrong
) -> None:
    """Whatever they are told, it is not that they may not. What destroys comes last."""

    def late(item: tuple[tuple[str, str], tuple[Subject, Permission]]) -> tuple[bool, bool, bool]:
        (_, path), (_, permission) = item
        return path.endswith("/remove-experiments"), permission is Permission.MANAGE, "delete" in path

    order = sorted(table.items(), key=late)
    for (method, path), (subject, permission) in order:
        allowed = [
            name
            for name, level in ROLES.items()
            if subject.audience is Audience.SIGNED_IN and (level or Level.NONE) >= needed(subject, permission)
        ]
        if path.endswith("/remove-experiments"):
            allowed = []  # out of its experiments a dataset is nobody's, and this comes twice
        for name in [*allowed[:1], "admin"] if subject.named or not allowed else allowed[:1]:
            answer = await send(clients[name], method, path, world, subject)
            # A button of the dashboard is refused where it was not shown, and some routes ask themselves.
            asks_itself = "/users/" in path or "/roles/" in path
            if answer.status_code == 403 and (asks_itself or "button of the dashboard" in answer.text):
                continue
            if answer.status_code in {401, 403, 500}:
                wrong.append((method, path, name, answer.status_code))
            seen[f"{name} let in"] += 1


async def test_only_these_routes_need_no_identity(guarded: Guarded) -> None:
    public = [
        (method, str(context.path))
        for context in routes_of(guarded.app)
        if (context.openapi_extra or {})["x-permission"] == Permission.PUBLIC
        for method in context.methods or ()
    ]
    for method, path in public:
        from_our_page = {"Sec-Fetch-Site": "same-origin"}
        answer = await guarded.as_nobody().request(method, re.sub(r"\{.*\}", "x", path), headers=from_our_page)
        wrong = {403} if (method, path) == ("POST", "/signin") else {401, 403}  # which says that nothing was told
        assert answer.status_code not in wrong, path
    assert {path for _, path in public} == {
        "/health", "/version", "/livez", "/readyz", "/mirror/", "/mirror/files/{name}", "/",
        "/static-files/{path:path}", "/signin", "/signin/start", "/signin/callback", "/signout",
        "/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/ui-telemetry",
    }  # fmt: skip

"""What `runmirror deploy` does, apart from the command line itself: whoever reaches the database may deploy."""

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.db import create_engine
from runmirror.deployments import queries, service
from runmirror.deployments.entities import Deployment, Kind, Spec, State
from runmirror.deployments.service import DeploymentNotFound
from runmirror.errors import InvalidParameter
from runmirror.settings import Settings

Tell = Callable[[str], None]

_LOOK_EVERY_S = 0.5
_MOST = 10_000
NO_WORKER = "no worker is running: `runmirror serve` or `runmirror worker` does the work"


async def deploy(
    settings: Settings, url: str, *, model: str, kind: Kind, name: str, spec: Spec, workspace: str | None,
    replace: bool, wait: bool, tell: Tell,
) -> Deployment:  # fmt: skip
    """Ask for it, and with `wait` look until it is done, telling each step."""
    engine = create_engine(settings, url)
    try:
        async with engine.begin() as connection:
            made = await service.deploy(
                connection, settings, model=model, kind=kind, name=name, spec=spec, workspace=workspace, replace=replace
            )
        return await _followed(engine, made, wait=wait, tell=tell)
    finally:
        await engine.dispose()


async def delete(settings: Settings, url: str, which: str, *, wait: bool, tell: Tell) -> Deployment:
    engine = create_engine(settings, url)
    try:
        async with engine.begin() as connection:
            found = await _named(connection, which)
            gone = await service.delete(connection, settings, found.deployment_id)
        return await _followed(engine, gone, wait=wait, tell=tell)
    finally:
        await engine.dispose()


async def show(settings: Settings, url: str, which: str) -> Deployment:
    engine = create_engine(settings, url)
    try:
        async with engine.connect() as connection:
            return await _named(connection, which)
    finally:
        await engine.dispose()


async def newest(settings: Settings, url: str, *, ended: bool) -> list[Deployment]:
    engine = create_engine(settings, url)
    try:
        async with engine.connect() as connection:
            return await queries.newest(connection, name=None, ended=ended, most=_MOST)
    finally:
        await engine.dispose()


async def _named(connection: AsyncConnection, which: str) -> Deployment:
    """By its id, or by its name as long as only one has that. Raises `DeploymentNotFound`, `InvalidParameter`."""
    found = await queries.newest(connection, name=which, ended=False, most=2)
    if len(found) > 1:
        raise InvalidParameter(f"several workspaces have a deployment called {which!r}: name it by its id")
    one = found[0] if found else await queries.get(connection, service.parse_id(which))
    if one is None:
        raise DeploymentNotFound(which)
    return one


async def _followed(engine: AsyncEngine, held: Deployment, *, wait: bool, tell: Tell) -> Deployment:
    async with engine.connect() as connection:
        if not await queries.has_worker(connection):
            tell(NO_WORKER)
    told, error = 0, None
    while True:
        for step in held.history[told:]:
            tell(f"{step['at']}  {step['state']:<10} {step['message']}")
        told = len(held.history)
        if held.last_error != error and (error := held.last_error) is not None:
            tell(f"held up, and tried again until {held.deadline_at:%H:%M:%S} UTC: {error}")
        if not wait or not held.state.is_open:
            return held
        await asyncio.sleep(_LOOK_EVERY_S)
        async with engine.connect() as connection:
            held = await queries.get(connection, held.deployment_id) or held


def describe(held: Deployment) -> str:
    """One deployment for people, a fact a line."""
    facts: dict[str, Any] = {
        "id": held.deployment_id, "state": f"{held.state}: {held.message}", "model": held.model,
        "deployed to": f"{held.kind} as {held.name}", "workspace": held.workspace_id, "scoring URI": held.scoring_uri,
        "auth": held.spec.auth, "reason": held.reason, "last error": held.last_error, "asked for by": held.created_by,
    }  # fmt: skip
    steps = [f"  {step['at']}  {step['state']:<10} {step['message']}" for step in held.history]
    return "\n".join([*(f"{name:<13} {fact}" for name, fact in facts.items() if fact is not None), *steps])


def describe_all(found: list[Deployment]) -> str:
    """A table for people."""
    lines = [("name", "to", "model", "state", "scoring URI or reason")]
    lines += [
        (one.name, str(one.kind), one.model, str(one.state), one.reason or one.scoring_uri or one.message)
        for one in found
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def is_good(held: Deployment) -> bool:
    """Whether what was asked for is so, or is on its way."""
    return held.state is not State.FAILED

"""One guarded application, and users of it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.app import create_app
from runmirror.auth import service, token_queries
from runmirror.auth.levels import Kind, Level
from runmirror.settings import Settings
from tests.auth.provider import Provider, running


@dataclass
class Guarded:
    """An application with RUNMIRROR_AUTH=token, called without a socket."""

    app: FastAPI
    transport: httpx.ASGITransport
    engine: AsyncEngine

    def as_nobody(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self.transport, base_url="http://localhost")

    def as_user(self, token: str) -> httpx.AsyncClient:
        client = self.as_nobody()
        client.headers["Authorization"] = f"Bearer {token}"
        return client

    async def user(self, name: str, *, is_admin: bool = False) -> str:
        """A token of a user of that name."""
        async with self.engine.begin() as connection:
            user_id = await token_queries.make_user(connection, name, is_admin=is_admin)
            token, _ = await service.create_token(connection, user_id)
        return token

    async def client(self, name: str, *, is_admin: bool = False) -> httpx.AsyncClient:
        return self.as_user(await self.user(name, is_admin=is_admin))

    async def grant(self, name: str, kind: Kind, resource_id: int, level: Level) -> None:
        """Also to a group of that name; -1 is every resource of the kind."""
        async with self.engine.begin() as connection:
            await connection.execute(
                text("""
                    INSERT INTO grants (kind, resource_id, principal_id, level)
                    SELECT :kind, :resource_id, principal_id, :level FROM principals WHERE name = :name
                    ON CONFLICT (kind, resource_id, principal_id) DO UPDATE SET level = excluded.level
                """),
                {"kind": kind, "resource_id": resource_id, "level": int(level), "name": name},
            )


@asynccontextmanager
async def guarding(settings: Settings, engine: AsyncEngine, **more: Any) -> AsyncIterator[Guarded]:
    settings = settings.model_copy(update={"auth": "token", **more})
    assert settings.database_url is not None
    app = create_app(settings, settings.database_url)
    async with LifespanManager(app) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        yield Guarded(app, transport, engine)


@pytest.fixture
async def guarded(settings: Settings, engine: AsyncEngine) -> AsyncIterator[Guarded]:
    async with guarding(settings, engine) as made:
        yield made


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running() as made:
        yield made

"""Every test here that uses `settings`, `app`, `client` or `store` runs twice: over a folder and over Azure Blob."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from asgi_lifespan import LifespanManager
from azure.storage.blob.aio import BlobServiceClient
from fastapi import FastAPI

from runmirror.app import create_app
from runmirror.artifacts.store import Store
from runmirror.settings import Settings
from tests.artifacts.azurite import ACCOUNT, azurite

__all__ = ["azurite"]

_containers = itertools.count()
_CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run made over HTTP; `root` is the store path of its artifact root."""

    run_id: str
    root: str


@pytest.fixture(params=["folder", "blob"])
async def settings(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Settings:
    if request.param == "folder":
        return Settings(database_url=database_url, data_dir=tmp_path / "data", mirror=False)
    connection_string = request.getfixturevalue("azurite")
    container = f"artifacts-{next(_containers)}"
    async with BlobServiceClient.from_connection_string(connection_string) as service:
        await service.create_container(container)
    return Settings(
        database_url=database_url,
        data_dir=tmp_path / "data",
        mirror=False,
        artifacts_destination=f"wasbs://{container}@{ACCOUNT}.blob.core.windows.net/below/here",
        azure_storage_connection_string=connection_string,
    )


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    assert settings.database_url is not None
    made = create_app(settings, settings.database_url)
    async with LifespanManager(made):
        yield made
    await _all_closed()


async def _all_closed() -> None:
    """Until every connection that is closing is closed: one of a cancelled upload first sends what it has taken."""
    transports = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]  # nobody else knows of them
    deadline = time.monotonic() + _CLOSE_S
    while time.monotonic() < deadline and any(
        transport.is_closing() and getattr(transport, "_sock", None) is not None for transport in transports.values()
    ):
        await asyncio.sleep(0.01)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as made:
        yield made


@pytest.fixture
def store(app: FastAPI) -> Store:
    made: Store = app.state.artifacts
    return made


@pytest.fixture
async def run(client: httpx.AsyncClient) -> Run:
    return await make_run(client)


async def make_run(client: httpx.AsyncClient, experiment_id: str = "0") -> Run:
    answer = await client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": experiment_id})
    assert answer.status_code == 200, answer.text
    made = answer.json()["run"]["info"]
    return Run(made["run_id"], made["artifact_uri"].removeprefix("mlflow-artifacts:/"))

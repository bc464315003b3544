"""The app with an emulated workspace linked, and in it runs as Azure ML's jobs have them."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import httpx
import pytest
from asgi_lifespan import LifespanManager
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.app import create_app
from runmirror.mirror.link import Link, write_link
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.azureml_emulator.rest import Rest
from tests.mirror.conftest import azure_settings, azure_worker, emulator, running_emulator, settings, store

__all__ = ["azure_settings", "azure_worker", "emulator", "running_emulator", "settings", "store"]

JOB = "happy_lion_x1y2"


@pytest.fixture
def rest(emulator: EmulatorProcess) -> Iterator[Rest]:
    """The workspace's services, called with a valid token."""
    with emulator.client() as client:
        yield Rest(emulator, client, emulator.token())


@pytest.fixture
def job(rest: Rest) -> str:
    """The GUID of the experiment in which the job `JOB` runs; it has logged a little already."""
    run = {"runId": JOB, "name": "train", "displayName": "happy lion", "status": "Running", "tags": {"team": "vision"}}
    experiment_id = rest.experiment("jobs")
    rest.history("PATCH", f"/experiments/jobs/runs/{JOB}", json=run).raise_for_status()
    metrics = [{"key": "warmup", "value": float(step), "timestamp": 1000 + step, "step": step} for step in range(3)]
    params = [{"key": "image", "value": "cuda"}]
    rest.post("/runs/log-batch", {"run_id": JOB, "params": params, "metrics": metrics}).raise_for_status()
    return experiment_id


@pytest.fixture
async def client(azure_settings: Settings, engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    """The app production runs, with the workspace linked."""
    async with engine.begin() as connection:
        assert azure_settings.azureml_workspace is not None
        await write_link(connection, Link(azure_settings.azureml_workspace))
    async with serving(azure_settings) as made:
        yield made


def serving(settings: Settings) -> "_Serving":
    return _Serving(settings)


class _Serving:
    """An API process: the app, called without a socket."""

    def __init__(self, settings: Settings) -> None:
        assert settings.database_url is not None
        self._app = create_app(settings, settings.database_url)
        self._manager = LifespanManager(self._app)

    async def __aenter__(self) -> httpx.AsyncClient:
        manager = await self._manager.__aenter__()
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60)
        return self._client

    @property
    def engine(self) -> AsyncEngine:
        """The process's own."""
        made: AsyncEngine = self._app.state.engine
        return made

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()
        await self._manager.__aexit__(None, None, None)


@pytest.fixture
def patient(azure_settings: Settings) -> Settings:
    return azure_settings.model_copy(update={"azureml_adopt_timeout": timedelta(seconds=30)})

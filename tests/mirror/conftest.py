"""A source with a store, a target in memory, and workers that do not wait long."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.artifacts.store import create_store
from runmirror.mirror.link import Link, write_link
from runmirror.mirror.verify.look import Sides
from runmirror.mirror.verify.session import both_sides
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess, start_emulator
from tests.mirror.factories import Source
from tests.mirror.memory_target import MemoryTarget

WORKSPACE_ID = (
    "/subscriptions/00000000-0000-4000-8000-000000000009/resourceGroups/memory/providers"
    "/Microsoft.MachineLearningServices/workspaces/memory"
)

MakeWorker = Callable[..., Worker]


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Times are short, so that what waits in production is over soon."""
    return Settings(
        database_url=database_url,
        data_dir=tmp_path / "data",
        mirror_backoff_max=timedelta(seconds=0.1),
        mirror_settle=timedelta(seconds=0.05),
        mirror_poll=timedelta(seconds=0.5),
        mirror_debounce=timedelta(seconds=0.05),
    )


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    made = create_store(settings)
    yield made
    await made.close()


@pytest.fixture
def source(engine: AsyncEngine, store: Store) -> Source:
    return Source(engine, store)


@pytest.fixture
async def target(engine: AsyncEngine) -> MemoryTarget:
    """An empty workspace, linked."""
    async with engine.begin() as connection:
        await write_link(connection, Link(WORKSPACE_ID))
    return MemoryTarget()


@pytest.fixture
def make_worker(settings: Settings, engine: AsyncEngine, store: Store) -> MakeWorker:
    def make(target: MemoryTarget, **changes: object) -> Worker:
        return Worker(settings.model_copy(update=changes), engine, store, target.open)

    return make


@pytest.fixture
def worker(make_worker: MakeWorker, target: MemoryTarget) -> Worker:
    return make_worker(target)


@pytest.fixture(scope="session")
def running_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    with start_emulator(tmp_path_factory.mktemp("azureml"), beside="second") as emulator:
        yield emulator


@pytest.fixture
def emulator(running_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorProcess]:
    """An empty workspace, reached through its proxy; settings that a test changes go back afterwards."""
    running_emulator.reset()
    with running_emulator.control() as control:
        settings = control.get("/settings").json()
    for name, value in running_emulator.env().items():
        if name not in {"PATH", "LANG", "TMPDIR"}:
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("SSL_CERT_FILE")  # REQUESTS_CA_BUNDLE alone has to do
    yield running_emulator
    running_emulator.clear_faults()
    running_emulator.change_settings(**settings)


@pytest.fixture
def azure_settings(settings: Settings, emulator: EmulatorProcess) -> Settings:
    """A short but sufficient patience with the workspace."""
    return settings.model_copy(
        update={
            "azureml_workspace": emulator.workspace_id,
            "ca_bundle": emulator.ca_file,
            "mirror_timeout": timedelta(seconds=5),
            "mirror_lease": timedelta(seconds=15),
            "mirror_verify_grace": timedelta(seconds=0.1),
        }
    )


@pytest.fixture
def azure_worker(azure_settings: Settings, engine: AsyncEngine, store: Store) -> Worker:
    """A worker for the emulated workspace, with everything as in production."""
    return Worker(azure_settings, engine, store)


@pytest.fixture
async def sides(azure_settings: Settings, engine: AsyncEngine, store: Store) -> AsyncIterator[Sides]:
    """Source and emulated workspace, read as `runmirror verify` reads them."""
    async with both_sides(azure_settings, engine, store) as made:
        yield made

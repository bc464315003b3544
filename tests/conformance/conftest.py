"""`both`: MLflow's server and ours, started once per session; compare.py says how tests use it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.conformance.client import name, on_both
from tests.conformance.compare import Both, Side
from tests.conformance.search_data import Searched
from tests.conformance.servers import WEBHOOKS, mlflow_server
from tests.conftest import TEMPLATE
from tests.server import Server, serving

__all__ = ["name", "on_both"]
DATABASE = "conformance"


def pytest_make_parametrize_id(val: object) -> str | None:
    """A text at MLflow's limits is no name for a test."""
    return f"{val[:20]}…{len(val)}" if isinstance(val, str) and len(val) > 80 else None


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an `mlflow server` of the pinned wheel."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="session")
def runmirror_database_url(postgres: str) -> str:
    asyncio.run(_create_database(postgres))
    return make_url(postgres).set(database=DATABASE).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def runmirror(tmp_path_factory: pytest.TempPathFactory, runmirror_database_url: str) -> Iterator[Server]:
    """`runmirror serve` over a database of its own; its address is all a client needs."""
    folder = tmp_path_factory.mktemp("runmirror")
    with serving(folder, "--no-mirror", "--backend-store-uri", runmirror_database_url, **WEBHOOKS) as server:
        yield server


@pytest.fixture(scope="session")
def runmirror_url(runmirror: Server) -> str:
    return runmirror.url


@pytest.fixture(scope="session")
def conformance_clients(mlflow_url: str, runmirror_url: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    with (
        httpx.Client(base_url=mlflow_url, timeout=60, trust_env=False) as theirs,
        httpx.Client(base_url=runmirror_url, timeout=60, trust_env=False) as ours,
    ):
        yield theirs, ours


@pytest.fixture
def both(conformance_clients: tuple[httpx.Client, httpx.Client], runmirror: Server) -> Both:
    theirs, ours = conformance_clients
    return Both(_side("mlflow", theirs), _side("runmirror", ours, output=runmirror.log))


@pytest.fixture(scope="module")
def searched(conformance_clients: tuple[httpx.Client, httpx.Client]) -> Searched:
    """Both servers with the runs of search_data.py."""
    theirs, ours = conformance_clients
    return Searched(Both(_side("mlflow", theirs), _side("runmirror", ours)))


@pytest.fixture
def run(both: Both) -> Both:
    """Both servers with an {experiment} and a {run}."""
    both.new_experiment()
    both.new_run()
    return both


def _side(name: str, client: httpx.Client, output: Path | None = None) -> Side:
    return Side(name, str(client.base_url).rstrip("/"), client, output=output)


async def _create_database(postgres: str) -> None:
    admin = create_async_engine(make_url(postgres).set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {DATABASE} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY"))
    await admin.dispose()

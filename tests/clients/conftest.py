"""A server for all clients, and for every mlflow version an environment of its own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.conftest import TEMPLATE
from tests.server import Server, serving
from tests.venvs import python_with

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".venv-clients"


@pytest.fixture(scope="session")
def runmirror(tmp_path_factory: pytest.TempPathFactory, postgres: str) -> Iterator[Server]:
    """`runmirror serve`, told nothing of its clients' age."""
    database_url = make_url(postgres).set(database=TEMPLATE).render_as_string(hide_password=False)
    folder = tmp_path_factory.mktemp("runmirror")
    with serving(folder, "--no-mirror", "--backend-store-uri", database_url) as server:
        yield server


def python_of(version: str) -> Path:
    """The Python that has this mlflow; the newest is the one that the suite itself is installed with."""
    requirements = HERE / f"mlflow-{version}.txt"
    return python_with(requirements, ENVIRONMENTS / version) if requirements.exists() else Path(sys.executable)

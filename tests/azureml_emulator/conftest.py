"""One emulator for all tests, emptied before each, and an environment with Microsoft's clients."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azureml_emulator.process import EmulatorProcess, start_emulator
from tests.azureml_emulator.rest import Rest
from tests.venvs import python_with

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def running_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    with start_emulator(tmp_path_factory.mktemp("azureml")) as emulator:
        yield emulator


@pytest.fixture
def emulator(running_emulator: EmulatorProcess) -> Iterator[EmulatorProcess]:
    """An empty workspace; settings that a test changes go back afterwards."""
    running_emulator.reset()
    with running_emulator.control() as control:
        settings = control.get("/settings").json()
    yield running_emulator
    running_emulator.change_settings(**settings)


@pytest.fixture
def rest(emulator: EmulatorProcess) -> Iterator[Rest]:
    """The workspace's services, called with a valid token."""
    with emulator.client() as client:
        yield Rest(emulator, client, emulator.token())


@pytest.fixture(scope="session")
def azureml_python() -> Path:
    """The Python of an environment that has azureml-core and azureml-mlflow, made when it is missing."""
    if given := os.environ.get("RUNMIRROR_AZUREML_VENV"):
        return Path(given) / "bin" / "python"
    return python_with(REQUIREMENTS, REPOSITORY / ".venv-azureml")

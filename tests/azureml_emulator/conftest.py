"""One emulator for all tests, emptied before each, and an environment with Microsoft's clients."""

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azureml_emulator.process import EmulatorProcess, start_emulator
from tests.azureml_emulator.rest import Rest

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
    venv = Path(os.environ.get("RUNMIRROR_AZUREML_VENV") or REPOSITORY / ".venv-azureml")
    python = venv / "bin" / "python"
    if "RUNMIRROR_AZUREML_VENV" in os.environ:
        return python
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp = venv / ".complete"
    venv.mkdir(exist_ok=True)
    # Test processes run side by side: one of them installs, the others wait.
    with (venv / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True)
            stamp.write_text(wanted)
    return python

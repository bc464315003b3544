"""The whole system as users run it: `runmirror serve` with its worker, the emulated workspace, a plain client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azureml_emulator.conftest import azureml_python
from tests.azureml_emulator.process import EmulatorProcess, start_emulator

__all__ = ["azureml_python"]


@pytest.fixture
def workspace(open_folder: Path) -> Iterator[EmulatorProcess]:
    """A workspace whose tokens live for four seconds."""
    with start_emulator(open_folder / "azure", token_lifetime=4) as emulator:
        yield emulator

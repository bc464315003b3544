"""The environment with Microsoft's clients, as the emulator's tests make it."""

from tests.azureml_emulator.conftest import azureml_python

__all__ = ["azureml_python"]

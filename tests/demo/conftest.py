"""The environment with Microsoft's clients is the one that the emulator's tests make."""

from tests.azureml_emulator.conftest import azureml_python

__all__ = ["azureml_python"]

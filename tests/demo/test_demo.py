"""`runmirror demo`, as a user starts it."""

import subprocess
import sys
from pathlib import Path

import pytest

from runmirror.demo import train
from tests.server import clean_environment


def demo(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runmirror", "demo", "--once", *flags]
    return subprocess.run(
        command, env=clean_environment(environment), capture_output=True, text=True, check=False, timeout=280
    )


def test_the_demo_ends_with_both_sides_equal() -> None:
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "both sides are equal: 6 params, " in done.stdout
    assert "1,000 metric points" in done.stdout
    assert "≠" not in done.stdout


def test_the_demo_reads_the_workspace_through_azureml_core_too(azureml_python: Path) -> None:
    done = demo("--azure-sdk", RUNMIRROR_AZUREML_VENV=str(azureml_python.parents[1]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("both sides are equal") == 2


@pytest.mark.parametrize("name", ["AZURE_CLIENT_SECRET", "HTTPS_PROXY", "MLFLOW_TRACKING_TOKEN"])
def test_the_training_script_refuses_an_environment_that_could_reach_azure(name: str) -> None:
    environment = {**clean_environment({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}), name: "x"}
    script = str(Path(train.__file__))
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert name in done.stderr

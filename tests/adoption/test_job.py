"""The promise for jobs: with the four variables that Azure ML sets, one call is enough, and there is one run."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.azureml_emulator.conftest import azureml_python
from tests.azureml_emulator.process import EmulatorProcess, start_emulator
from tests.end_to_end.test_lifetimes import azure_environment, mirrored
from tests.server import clean_environment, serving

__all__ = ["azureml_python"]

HERE = Path(__file__).parent
Json = dict[str, Any]


@pytest.fixture
def workspace(open_folder: Path) -> Iterator[EmulatorProcess]:
    with start_emulator(open_folder / "azure") as emulator:
        yield emulator


def said(command: list[str], environment: Mapping[str, str], folder: Path) -> Json:
    """The last line that a program prints, as JSON."""
    done = subprocess.run(
        command, env=dict(environment), cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def of_job(workspace: EmulatorProcess, run_id: str, experiment_id: str) -> dict[str, str]:
    """What Azure ML's compute sets, and a credential and a proxy that are of no use to the server's client."""
    return {
        "MLFLOW_TRACKING_URI": workspace.ready["tracking_uri"],
        "MLFLOW_TRACKING_TOKEN": workspace.token(),
        "MLFLOW_RUN_ID": run_id,
        "MLFLOW_EXPERIMENT_ID": experiment_id,
        "AZUREML_RUN_ID": run_id,
    }


def test_a_job_that_activates_the_guard_logs_to_its_own_run_and_there_is_one(
    workspace: EmulatorProcess, open_folder: Path, azureml_python: Path
) -> None:
    uri = workspace.ready["tracking_uri"]
    born = said([str(azureml_python), str(HERE / "born_in_azure.py"), uri], workspace.env(), open_folder)
    assert "-" in born["run_id"], "an id of Azure ML's own"
    job = clean_environment(of_job(workspace, born["run_id"], born["experiment_id"]))
    with serving(open_folder / "data", **azure_environment(workspace)) as server:
        logged = said([sys.executable, str(HERE / "inside_job.py"), server.url], job, open_folder)
        mirrored(server, logged["run_id"])
        mirrored(server, logged["child"])
        read = said(
            [str(azureml_python), str(HERE / "read_in_azure.py"), uri, born["run_id"]], workspace.env(), open_folder
        )
    assert logged["run_id"] == born["run_id"]
    assert logged["token"] is None
    assert (logged["status"], read["status"]) == ("FINISHED", "RUNNING"), "the job's end is Azure ML's to tell"
    assert logged["params"] == read["params"] == {"image": "cuda", "lr": "0.1"}
    metrics = {"warmup": 0.25, "loss": 0.5, "acc": 0.9, "from_worker": 1.0}
    assert logged["metrics"] == metrics
    assert read["metrics"] == {key: [value] for key, value in metrics.items()}
    assert logged["files"] == ["notes/hello.txt"]
    assert "notes" in read["files"]
    assert read["tags"]["stage"] == "late"
    assert read["children"] == ["fold 1"]
    assert logged["found"] == sorted([logged["run_id"], logged["child"]])
    assert len(workspace.state()["runs"]) == 2


def test_a_job_whose_run_the_workspace_does_not_know_hears_why(workspace: EmulatorProcess, open_folder: Path) -> None:
    guid = "11111111-2222-3333-4444-555555555555"
    job = clean_environment(of_job(workspace, "happy_lion_x1y2", guid))
    with serving(open_folder / "data", **azure_environment(workspace)) as server:
        done = subprocess.run(
            [sys.executable, str(HERE / "inside_job.py"), server.url],
            env=job, cwd=open_folder, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode != 0
    assert "Run with id=happy_lion_x1y2 not found, neither here nor in the linked Azure ML workspace" in done.stderr
    assert "unset MLFLOW_RUN_ID to start a new run on this server" in done.stderr
    assert workspace.state()["runs"] == []

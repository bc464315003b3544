"""What `examples/` says is done here, as far as one machine can: one server that asks for tokens, and a workspace."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner

from runmirror.__main__ import main
from tests.adoption.test_job import HERE as ADOPTION
from tests.adoption.test_job import of_job, said
from tests.azureml_emulator.conftest import azureml_python
from tests.azureml_emulator.process import EmulatorProcess, Json, start_emulator
from tests.end_to_end.test_lifetimes import azure_environment
from tests.server import Server, clean_environment, serving

__all__ = ["azureml_python"]

EXAMPLES = Path(__file__).parents[2] / "examples"
REQUIRED = os.environ.get("RUNMIRROR_TEST_JAVA") == "required"


@dataclass(frozen=True)
class Place:
    """A server with its workspace, and a user's token."""

    server: Server
    workspace: EmulatorProcess
    token: str
    folder: Path

    def client(self, **more: str) -> dict[str, str]:
        """What a user's machine has set: two variables."""
        return clean_environment({"MLFLOW_TRACKING_URI": self.server.url, "MLFLOW_TRACKING_TOKEN": self.token} | more)

    def get(self, path: str, **query: str) -> Json:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.get(f"{self.server.url}{path}", params=query, headers=headers, trust_env=False, timeout=30)
        return dict(answer.raise_for_status().json())

    def run(self, run_id: str) -> Json:
        return dict(self.get("/api/2.0/mlflow/runs/get", run_id=run_id)["run"])


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="runmirror-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with start_emulator(folder / "azure") as workspace:
            flags = {"RUNMIRROR_AUTH": "token", "RUNMIRROR_MIRROR_POLL": "0.2", **azure_environment(workspace)}
            with serving(folder / "data", **flags) as server:
                token = [sys.executable, "-m", "runmirror", "token", "create", "ann", "--admin"]
                made = subprocess.run(
                    [*token, "--data-dir", str(folder / "data")], env=clean_environment({}), capture_output=True,
                    text=True, check=True,
                )  # fmt: skip
                yield Place(server, workspace, made.stdout.strip(), folder)


def run_of(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """The last line that a program prints: a run's id."""
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def check(run: Json, *, name: str, loss: float) -> None:
    assert (run["info"]["run_name"], run["info"]["status"]) == (name, "FINISHED")
    assert {one["key"]: one["value"] for one in run["data"]["params"]}["lr"] == "0.1"
    assert {one["key"]: one["value"] for one in run["data"]["metrics"]}["loss"] == pytest.approx(loss)


def test_a_local_program_needs_two_variables_and_its_run_is_read_back_through_azureml_core(
    place: Place, azureml_python: Path
) -> None:
    run_id = run_of([sys.executable, str(EXAMPLES / "local/train.py")], place.client(), place.folder)
    check(place.run(run_id), name="local", loss=0.2)
    loss = [1 / (step + 1) for step in range(5)]
    read_back(place, azureml_python, run_id, experiment="examples", status="Completed", loss=loss)


def test_the_github_workflow_does_what_its_last_step_says(place: Place) -> None:
    workflow: Any = yaml.safe_load((EXAMPLES / "github-actions/train.yml").read_text())
    job = workflow["jobs"]["train"]
    given = {"https://tracking.example": place.server.url, "${{ secrets.RUNMIRROR_TOKEN }}": place.token}
    variables = {name: given[value] for name, value in job["env"].items()}
    summary = place.folder / "summary.md"
    step = job["steps"][-1]["run"]
    python = f'PATH="{Path(sys.executable).parent}:$PATH"\n'
    environment = clean_environment({**variables, "GITHUB_STEP_SUMMARY": str(summary)})
    subprocess.run(["bash", "-eo", "pipefail", "-c", python + step], env=environment, cwd=EXAMPLES.parent, check=True)
    check(place.run(summary.read_text().split()[-1]), name="local", loss=0.2)


def test_curl_needs_two_variables(place: Place) -> None:
    run_id = run_of([str(EXAMPLES / "curl/train.sh")], place.client(), place.folder)
    check(place.run(run_id), name="curl", loss=0.5)


def test_the_java_client_needs_one_variable(place: Place) -> None:
    if shutil.which("mvn") is None or shutil.which("java") is None:
        assert not REQUIRED, "RUNMIRROR_TEST_JAVA=required, and there is no mvn or no java"
        pytest.skip("LOUDLY: no mvn or no java here, so the Java example was not run (RUNMIRROR_TEST_JAVA=required)")
    project = place.folder / "java"
    shutil.copytree(EXAMPLES / "java", project, ignore=shutil.ignore_patterns("target"))
    built = subprocess.run(
        ["mvn", "--batch-mode", "--quiet", "package"], cwd=project, env=dict(os.environ), capture_output=True,
        text=True, check=False, timeout=240,
    )  # fmt: skip
    if built.returncode != 0 and "Could not transfer artifact" in built.stdout and not REQUIRED:
        pytest.skip("LOUDLY: Maven Central cannot be reached, so the Java example was not run")
    assert built.returncode == 0, built.stdout[-3000:]
    command = ["java", "-cp", "target/train-1.jar:target/dependency/*", "example.Train"]
    signed = place.server.url.replace("://", f"://ann:{place.token}@")
    run_id = run_of(command, clean_environment({"MLFLOW_TRACKING_URI": signed}), project)
    check(place.run(run_id), name="java", loss=1 / 3)


def test_a_job_of_azure_ml_logs_to_its_own_run_and_azureml_core_reads_it_back(
    place: Place, azureml_python: Path
) -> None:
    uri = place.workspace.ready["tracking_uri"]
    born = said([str(azureml_python), str(ADOPTION / "born_in_azure.py"), uri], place.workspace.env(), place.folder)
    job = of_job(place.workspace, born["run_id"], born["experiment_id"])
    job |= {"RUNMIRROR_TRACKING_URI": place.server.url, "RUNMIRROR_TOKEN": place.token}
    run_id = run_of([sys.executable, str(EXAMPLES / "azureml/train.py")], clean_environment(job), place.folder)
    assert run_id == born["run_id"]
    read_back(place, azureml_python, run_id, experiment="job-experiment", status="Running", loss=[1.0, 0.5, 1 / 3])


def read_back(
    place: Place, python: Path, run_id: str, *, experiment: str, status: str, loss: list[float]
) -> None:  # fmt: skip
    """Once the run is mirrored: what stands in the workspace, and the address that both sides give of it."""
    row: Json = {}
    deadline = time.monotonic() + 60
    while not row or row["state"] != "current" or row["watermark"] != row["seq"]:
        assert time.monotonic() < deadline, (row, place.server.log.read_text()[-3000:])
        row = place.get(f"/api/runmirror/v1/runs/{run_id}/mirror")
    ready = place.workspace.ready
    where = [ready["subscription_id"], ready["resource_group"], ready["workspace_name"], row["remote_run_id"]]
    command = [str(python), str(EXAMPLES / "azureml/read_back.py"), *where]
    told = said(command, place.workspace.env(), place.folder)
    assert told["workspace"] == {"id": place.workspace.workspace_id, "location": "eastus"}
    assert (told["experiment"], told["status"]) == (experiment, status)
    assert told["metrics"]["loss"] == pytest.approx(loss)
    assert "notes/summary.txt" in told["files"]
    tags = {one["key"]: one["value"] for one in place.run(run_id)["data"]["tags"]}
    assert tags["runmirror.azureml.run_id"] == row["remote_run_id"]
    assert tags["runmirror.azureml.portal_url"].lower() == told["studio"].lower()


def test_the_job_of_azure_ml_is_described_for_both_sdks(place: Place, azureml_python: Path) -> None:
    job: Any = yaml.safe_load((EXAMPLES / "azureml/job.yml").read_text())
    program, script = job["command"].split()
    assert (program, (EXAMPLES / "azureml" / job["code"] / script).is_file()) == ("python", True)
    conda: Any = yaml.safe_load((EXAMPLES / "azureml" / job["environment"]["conda_file"]).read_text())
    packages = conda["dependencies"][-1]["pip"]
    submit = [str(azureml_python), str(EXAMPLES / "azureml/submit.py"), "--compute", "cpu-cluster", "--dry-run"]
    variables = {**job["environment_variables"], "RUNMIRROR_TOKEN": "rmt_x"}
    told = said(submit, place.workspace.env() | variables, place.folder)
    assert told["packages"] == packages == ["mlflow-skinny", "runmirror-client"]
    assert (told["script"], told["target"]) == ("train.py", "cpu-cluster")
    assert told["environment_variables"] == variables
    for name in job["environment_variables"]:
        assert name.startswith("RUNMIRROR_"), "MLFLOW_* are Azure ML's own in a job"


def test_the_init_script_of_databricks_leads_a_notebook_to_the_server(place: Place) -> None:
    """In a root of its own: a stand-in for Databricks' layout, whose pip only notes what it is asked for."""
    asked = ["init-script", "databricks", "--tracking-uri", place.server.url + "/"]
    printed = CliRunner().invoke(main, asked, catch_exceptions=False).stdout
    subprocess.run(["bash", "-n"], input=printed, text=True, check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-"], input=printed, text=True, check=True)
    root = place.folder / "node"
    pip, conf = root / "databricks/python/bin/pip", root / "databricks/spark/conf"
    pip.parent.mkdir(parents=True)
    pip.write_text(f'#!/bin/sh\necho "$@" >> {root}/pip.log\n')
    pip.chmod(0o755)
    conf.mkdir(parents=True)
    (conf / "spark-env.sh").write_text("export RUNMIRROR_TRACKING_URI='https://old.example'\nexport KEPT=1\n")
    here = printed.replace("/databricks/", f"{root}/databricks/").replace("/etc/", f"{root}/etc/")
    assert here.count(str(root)) == 3
    for _ in range(2):  # a node may run it again
        subprocess.run(["bash", "-c", here], check=True)
    installed = (root / "pip.log").read_text().splitlines()
    assert [line.split()[0] + line.split()[-1] for line in installed] == ["installrunmirror-client"] * 2
    assert (conf / "spark-env.sh").read_text().splitlines() == [
        "export KEPT=1", f"export RUNMIRROR_TRACKING_URI='{place.server.url}'",
    ]  # fmt: skip
    assert (root / "etc/environment").read_text() == f"RUNMIRROR_TRACKING_URI={place.server.url}\n"

    sourced = f". {conf}/spark-env.sh; exec {sys.executable} {EXAMPLES}/databricks/notebook.py"
    databricks = {"MLFLOW_TRACKING_URI": "databricks", "RUNMIRROR_TOKEN": place.token}
    run_id = run_of(["bash", "-c", sourced], clean_environment(databricks), place.folder)
    check(place.run(run_id), name="databricks", loss=0.5)
    cluster = json.loads((EXAMPLES / "databricks/cluster.json").read_text())
    assert cluster["spark_env_vars"] == {"RUNMIRROR_TOKEN": "{{secrets/runmirror/token}}"}


@pytest.mark.parametrize("address", ["ftp://x", "https://", "https://a b", "https://x/$(id)", "https://u:p@x", "x'"])
def test_an_init_script_takes_no_address_that_a_shell_could_read_otherwise(address: str) -> None:
    done = CliRunner().invoke(main, ["init-script", "databricks", "--tracking-uri", address])
    assert (done.exit_code, done.stdout) == (2, "")

"""The promise of the README: one URI, for ever."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.azureml_emulator.process import EmulatorProcess
from tests.server import Server, clean_environment, serving

TRAINING = Path(__file__).with_name("training.py")
DEADLINE_S = 60.0


def train(server: Server, seconds: float) -> dict[str, Any]:
    command = [sys.executable, str(TRAINING), str(seconds)]
    environment = clean_environment({"MLFLOW_TRACKING_URI": server.url})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def mirrored(server: Server, run_id: str) -> dict[str, Any]:
    """The run's mirror row once it is current."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        row: dict[str, Any] = httpx.get(f"{server.url}/api/runmirror/v1/runs/{run_id}/mirror", trust_env=False).json()
        if row["state"] == "current" and row["watermark"] == row["seq"]:
            return row
        time.sleep(0.1)
    raise AssertionError(f"not mirrored: {row}\n{server.log.read_text()[-3000:]}")


def remote_run(workspace: EmulatorProcess, run_id: str) -> dict[str, Any]:
    found = [run for run in workspace.state()["runs"] if run["tags"].get("runmirror.run_id") == run_id]
    assert len(found) == 1, [run["tags"] for run in workspace.state()["runs"]]
    return dict(found[0])


def azure_environment(workspace: EmulatorProcess) -> dict[str, str]:
    linked = {"RUNMIRROR_AZUREML_WORKSPACE": workspace.workspace_id, "RUNMIRROR_MIRROR_DEBOUNCE": "0.2"}
    return {**{key: value for key, value in workspace.env().items() if key not in {"PATH", "HOME"}}, **linked}


def test_a_client_with_one_uri_logs_through_more_than_three_token_lifetimes(
    workspace: EmulatorProcess, open_folder: Path
) -> None:
    with serving(open_folder / "data", **azure_environment(workspace)) as server:
        logged = train(server, seconds=14)
        row = mirrored(server, logged["run_id"])
        remote = remote_run(workspace, logged["run_id"])
        tags = httpx.get(
            f"{server.url}/api/2.0/mlflow/runs/get", params={"run_id": logged["run_id"]}, trust_env=False
        ).json()["run"]["data"]["tags"]
    tokens = [asked for asked in workspace.requests() if asked["path"].endswith("/token") and asked["status"] == 200]
    assert len(tokens) > 3
    refused = [asked for asked in workspace.requests() if asked["status"] == 401]
    assert len(refused) <= 2, "tokens are renewed before they expire"
    assert remote["status"] == "FINISHED"
    points = [point["step"] for point in remote["metrics"] if point["key"] == "loss"]
    assert points == list(range(logged["steps"]))
    assert remote["params"]["lr"] == "0.1"
    assert remote["tags"]["finished"] == "yes"
    ours = {tag["key"]: tag["value"] for tag in tags}
    assert ours["runmirror.status"] == "mirrored"
    assert ours["runmirror.azureml.run_id"] == row["remote_run_id"]
    assert ours["runmirror.azureml.portal_url"] == row["portal_url"]


def test_linking_later_mirrors_what_is_there(workspace: EmulatorProcess, open_folder: Path) -> None:
    azure = azure_environment(workspace)
    unlinked = {name: value for name, value in azure.items() if name != "RUNMIRROR_AZUREML_WORKSPACE"}
    data = open_folder / "data"
    with serving(data, RUNMIRROR_MIRROR_POLL="0.5", **unlinked) as server:
        logged = train(server, seconds=0.5)
        assert httpx.get(f"{server.url}/api/runmirror/v1/mirror", trust_env=False).json()["state"] == "not_linked"
        link = [sys.executable, "-m", "runmirror", "link", workspace.workspace_id, "--data-dir", str(data)]
        environment = clean_environment(unlinked)
        linked = subprocess.run(link, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert linked.returncode == 0, linked.stderr
        assert "1 runs to mirror" in linked.stdout
        mirrored(server, logged["run_id"])
        command = [sys.executable, "-m", "runmirror", "status", "--data-dir", str(data)]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    assert workspace.workspace_id in shown
    assert "runs behind   0" in shown
    assert len(remote_run(workspace, logged["run_id"])["metrics"]) == logged["steps"]


def test_linking_without_access_says_so_and_changes_nothing(workspace: EmulatorProcess, open_folder: Path) -> None:
    environment = clean_environment({**azure_environment(workspace), "AZURE_CLIENT_SECRET": "wrong"})
    del environment["RUNMIRROR_AZUREML_WORKSPACE"]
    data = open_folder / "data"
    command = [sys.executable, "-m", "runmirror", "link", workspace.workspace_id, "--data-dir", str(data)]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert refused.returncode == 1
    assert "AADSTS7000215" in refused.stderr
    assert "wrong" not in refused.stderr.replace("wrong secret", "")
    command = [sys.executable, "-m", "runmirror", "status", "--json", "--data-dir", str(data)]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    assert json.loads(shown)["state"] == "not_linked"

"""From `log_model` to an answer of the deployed model: ACI and AKS through the real azureml-core, and an endpoint."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.azureml_emulator.conftest import azureml_python
from tests.azureml_emulator.process import EmulatorProcess, Json, start_emulator
from tests.end_to_end.test_lifetimes import azure_environment
from tests.server import Server, clean_environment, serving

__all__ = ["azureml_python"]

TRAIN = Path(__file__).with_name("train.py")
API = "/api/runmirror/v1/deployments"
DEADLINE_S = 90.0


@pytest.fixture
def workspace(open_folder: Path) -> Iterator[EmulatorProcess]:
    with start_emulator(open_folder / "azure", score=True) as emulator:
        emulator.change_settings(deploy_seconds=0.5)
        yield emulator


def ask(server: Server, method: str, path: str = "", **options: Any) -> Json:
    answer = httpx.request(method, f"{server.url}{API}{path}", trust_env=False, timeout=30, **options)
    assert answer.status_code in {200, 202}, answer.text
    told: Json = answer.json()
    return told


def done(server: Server, deployment_id: str) -> Json:
    deadline = time.monotonic() + DEADLINE_S
    while not (told := ask(server, "GET", f"/{deployment_id}"))["done"]:
        assert time.monotonic() < deadline, (told, server.log.read_text()[-3000:])
        time.sleep(0.1)
    return told


def key_of(workspace: EmulatorProcess, client: httpx.Client, name: str, *, is_endpoint: bool) -> str:
    """As `az ml online-endpoint get-credentials` and `service.get_keys()` do."""
    url = f"{workspace.api_url}/modelmanagement/v1.0{workspace.workspace_id}/services/{name}/listkeys"
    if is_endpoint:
        arm = f"https://management.azure.com{workspace.workspace_id}"
        url = f"{arm}/onlineEndpoints/{name}/listKeys?api-version=2023-10-01"
    answer = client.post(url, headers={"Authorization": f"Bearer {workspace.token()}"}).raise_for_status()
    return str(answer.json()["primaryKey"])


def test_a_logged_model_answers_from_aci_from_aks_and_from_an_online_endpoint(
    workspace: EmulatorProcess, open_folder: Path, azureml_python: Path
) -> None:
    azure = {**azure_environment(workspace), "RUNMIRROR_AZUREML_PYTHON": str(azureml_python)}
    with serving(open_folder / "data", RUNMIRROR_MIRROR_POLL="0.2", **azure) as server:
        client = clean_environment({"MLFLOW_TRACKING_URI": server.url})
        trained = subprocess.run([sys.executable, str(TRAIN)], env=client, capture_output=True, text=True, check=False)
        assert trained.returncode == 0, trained.stderr
        expected: Json = json.loads(trained.stdout.splitlines()[-1])
        endpoint = {"model": "models:/prices@champion", "to": "online-endpoint", "name": "prices-live"}
        aks = {"model": "models:/prices/1", "to": "aks", "name": "prices-aks", "aks_cluster": "aks", "cpu": 0.5}
        asked = [ask(server, "POST", json=body) for body in (endpoint, aks)]
        deploy = [
            sys.executable, "-m", "runmirror", "deploy", "--model", "models:/prices/1", "--to", "aci", "--name",
            "prices-aci", "--wait", "--json", "--data-dir", str(open_folder / "data"),
        ]  # fmt: skip
        by_command = subprocess.run(deploy, env=clean_environment({}), capture_output=True, text=True, check=False)
        assert by_command.returncode == 0, (by_command.stderr, server.log.read_text()[-3000:])
        made = [*(done(server, one["deployment_id"]) for one in asked), json.loads(by_command.stdout)]

        assert [one.get("reason") for one in made] == [None] * 3
        assert [one["state"] for one in made] == ["succeeded"] * 3
        assert [one["model"] for one in made] == ["models:/prices/1"] * 3
        split = {name: expected["split"][name] for name in ("columns", "index", "data")}
        with workspace.client() as http:
            for one in made:
                key = key_of(workspace, http, one["name"], is_endpoint=one["to"] == "online-endpoint")
                body = {"input_data": split}
                assert http.post(one["scoring_uri"], json=body).status_code == 401
                answer = http.post(one["scoring_uri"], json=body, headers={"Authorization": f"Bearer {key}"})
                assert answer.status_code == 200, answer.text
                assert answer.json() == pytest.approx(expected["predicted"]), one
        for one in made:
            ask(server, "DELETE", f"/{one['deployment_id']}")
        assert [done(server, one["deployment_id"])["state"] for one in made] == ["deleted"] * 3
        assert ask(server, "GET")["deployments"] == []
    agents = {
        r["user_agent"] for r in workspace.requests() if r["method"] == "POST" and r["path"].endswith("/services")
    }
    assert all("runmirror" not in agent for agent in agents), "it was azureml-core that asked"
    assert workspace.requests(unknown=True) == []
    assert workspace.requests(refused=True) == []

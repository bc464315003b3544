"""From `log_model` to an answer of the deployed model, by the commands that docs/deploy.md tells.

ACI and AKS go through the real azureml-core; what answers is the script that it uploaded, with the mirrored files.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.azureml_emulator.conftest import azureml_python
from tests.azureml_emulator.process import EmulatorProcess, Json, start_emulator
from tests.end_to_end.test_lifetimes import azure_environment
from tests.server import Server, clean_environment, serving

__all__ = ["azureml_python"]

TRAIN = Path(__file__).with_name("train.py")
DOCS = Path(__file__).parents[2] / "docs" / "deploy.md"
API = "/api/runmirror/v1/deployments"
DEADLINE_S = 90.0


@pytest.fixture
def workspace(open_folder: Path) -> Iterator[EmulatorProcess]:
    with start_emulator(open_folder / "azure", score=True) as emulator:
        emulator.change_settings(deploy_seconds=0.5)
        yield emulator


def block(part: str) -> str:
    """The first block of commands of the page that has this in it."""
    blocks = re.findall(r"```sh\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return str(next(text for text in blocks if part in text))


def bash(commands: str, environment: dict[str, str]) -> str:
    path = f'PATH="{Path(sys.executable).parent}:$PATH"; '
    command = ["bash", "-eo", "pipefail", "-c", path + commands]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, (commands, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def ask(server: Server, method: str, path: str = "") -> Json:
    answer = httpx.request(method, f"{server.url}{API}{path}", trust_env=False, timeout=30)
    assert answer.status_code in {200, 202}, answer.text
    told: Json = answer.json()
    return told


def done(server: Server, name: str) -> Json:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        (told,) = ask(server, "GET", f"?name={name}&ended=true")["deployments"]
        if told["done"]:
            return dict(told)
        assert time.monotonic() < deadline, (told, server.log.read_text()[-3000:])
        time.sleep(0.1)


def key_of(workspace: EmulatorProcess, name: str, *, is_endpoint: bool) -> str:
    """As `az ml online-endpoint get-credentials` and `Webservice.get_keys()` ask for it."""
    url = f"{workspace.api_url}/modelmanagement/v1.0{workspace.workspace_id}/services/{name}/listkeys"
    if is_endpoint:
        arm = f"https://management.azure.com{workspace.workspace_id}"
        url = f"{arm}/onlineEndpoints/{name}/listKeys?api-version=2023-10-01"
    with workspace.client() as client:
        answer = client.post(url, headers={"Authorization": f"Bearer {workspace.token()}"}).raise_for_status()
    return str(answer.json()["primaryKey"])


def test_a_logged_model_answers_from_aci_from_aks_and_from_an_online_endpoint(
    workspace: EmulatorProcess, open_folder: Path, azureml_python: Path
) -> None:
    azure = {**azure_environment(workspace), "RUNMIRROR_AZUREML_PYTHON": str(azureml_python)}
    with serving(open_folder / "data", RUNMIRROR_MIRROR_POLL="0.2", **azure) as server:
        data = {"RUNMIRROR_DATA_DIR": str(open_folder / "data")}
        operator = clean_environment({"MLFLOW_TRACKING_URI": server.url} | data)
        trained: Json = json.loads(bash(f"{sys.executable} {TRAIN}", operator).splitlines()[-1])

        bash(block('"name": "prices-rest"'), operator)
        told = bash(block("--to online-endpoint --name prices-live --wait\n"), operator)
        assert "https://prices-live.eastus.inference.ml.azure.com/score" in told
        told = bash(block("deploy list"), operator)
        assert re.search(r"prices-live +online-endpoint +models:/prices/1 +succeeded", told)
        assert told.splitlines()[-1].endswith("nothing of it is left")

        outside = clean_environment(workspace.env() | {"CURL_CA_BUNDLE": workspace.ca_file})
        for name in ("prices-aci", "prices-aks", "prices-rest"):
            made = done(server, name)
            assert (made["state"], made.get("reason")) == ("succeeded", None)
            assert made["model"] == "models:/prices/1"
            body = {"input_data": trained["split"]}
            if made["auth"] == "key":
                with workspace.client() as http:
                    assert http.post(made["scoring_uri"], json=body).status_code == 401
            key = key_of(workspace, name, is_endpoint=name == "prices-rest")
            answer = json.loads(bash(block("$SCORING_URI"), outside | {"KEY": key, "SCORING_URI": made["scoring_uri"]}))
            assert answer == pytest.approx(trained["predicted"][1:2]), made
            ask(server, "DELETE", f"/{made['deployment_id']}")
        assert {done(server, name)["state"] for name in ("prices-aci", "prices-aks", "prices-rest")} == {"deleted"}
    state = workspace.state()
    assert (state["services"], state["endpoints"]) == ([], [])
    made_by = [r["user_agent"] for r in workspace.requests() if (r["method"], r["path"][-9:]) == ("POST", "/services")]
    assert len(made_by) == 2
    assert not [agent for agent in made_by if "runmirror" in agent], "it was azureml-core that asked"
    assert workspace.requests(unknown=True) == []
    assert workspace.requests(refused=True) == []

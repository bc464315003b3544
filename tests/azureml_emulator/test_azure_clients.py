"""Microsoft's own packages, unmodified, work against the emulator and see what stands in it."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.azureml_emulator.process import EmulatorProcess
from tests.azureml_emulator.rest import Json, Rest, points

SCRIPTS = Path(__file__).parent / "scripts"
HELLO = hashlib.sha256(b"hello\n").hexdigest()


def _run(python: Path, emulator: EmulatorProcess, script: str, *arguments: str, **changes: str) -> Json:
    """Run a client script in its own environment; its last line of output is what it saw."""
    done = subprocess.run(
        [str(python), str(SCRIPTS / script), *arguments],
        env={**emulator.env(), **changes},
        cwd=emulator.home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    seen: Json = json.loads(done.stdout.splitlines()[-1])
    return seen


def _check_all_routes_known(emulator: EmulatorProcess) -> None:
    assert emulator.requests(unknown=True) == []
    assert emulator.requests(refused=True) == []
    broken = [request for request in emulator.requests() if request["status"] >= 500]
    assert broken == []


def test_azureml_mlflow_logs_and_reads_back(emulator: EmulatorProcess, azureml_python: Path) -> None:
    seen = _run(azureml_python, emulator, "track_with_mlflow.py", emulator.ready["tracking_uri"])

    assert seen["params"] == {"lr": "0.01", "a": "1", "b": "two", "c": "3"}
    assert seen["metrics"] == {"loss": str(1 / 3), "acc": "0.9", "f1": "nan", "many": "149.0"}
    assert seen["loss"] == [[0, 1.0], [1, 0.5], [2, 1 / 3]]
    assert seen["many"] == 150
    assert seen["tags"].items() >= {"team": "x", "note": "hello", "batch": "yes", "mlflow.runName": "r1"}.items()
    assert (seen["status"], seen["status_after"]) == ("FINISHED", ["RUNNING", "FAILED"])
    assert seen["files"] == ["bundle", "hello.txt", "sub"]
    assert seen["downloaded"] == 100_000
    assert (seen["found"], seen["none"]) == ([seen["run_id"]], 0)
    assert "already exists" in seen["second_upload"]
    assert "404" in seen["files_below"]  # the missing logged-models service, as in the real workspace
    assert seen["version"] == ["1", seen["download_uri"]]

    (run,) = emulator.state()["runs"]
    assert (run["run_id"], run["experiment_name"], run["run_name"]) == (seen["run_id"], "wire-demo", "r1")
    assert run["params"] == seen["params"]
    assert run["tags"] == seen["tags"]
    assert len(run["metrics"]) == 155
    assert {file["path"]: file["size"] for file in run["artifacts"]} == {
        "bundle/f0.bin": 100_000,
        "bundle/f1.bin": 100_000,
        "bundle/f2.bin": 100_000,
        "hello.txt": 6,
        "sub/dir/hello.txt": 6,
    }
    assert {file["sha256"] for file in run["artifacts"] if file["path"].endswith("hello.txt")} == {HELLO}
    _check_all_routes_known(emulator)


@pytest.mark.parametrize("lifetime", [2, 3600])
def test_azureml_core_reads_what_mlflow_logged_and_writes_its_own(
    rest: Rest, emulator: EmulatorProcess, azureml_python: Path, lifetime: int
) -> None:
    """Also with tokens so short that each is renewed on the way."""
    run = rest.run(rest.experiment("demo"), run_name="r1", tags=[{"key": "team", "value": "x"}])
    nan = {"key": "nan", "value": "NaN", "timestamp": 1}
    rest.log_batch(run, metrics=[*points("loss", 3), {"key": "acc", "value": 0.9, "timestamp": 1}, nan])
    rest.put(rest.write_url(run, "sub/dir/hello.txt"), b"hello\n")
    rest.put(rest.write_url(run, "a b+c.bin"), b"")
    rest.post("/runs/update", {"run_id": run["run_id"], "status": "FINISHED", "end_time": 5000})
    emulator.change_settings(token_lifetime=lifetime)

    ready = emulator.ready
    workspace = [ready["subscription_id"], ready["resource_group"], ready["workspace_name"]]
    seen = _run(azureml_python, emulator, "read_with_core.py", *workspace, "demo", run["run_id"])

    assert seen["workspace"] == ready["workspace_name"]
    assert seen["experiments"] == ["demo"]
    assert seen["runs"] == [run["run_id"]]
    assert seen["metrics"] == {"loss": "[0.0, 1.0, 2.0]", "acc": "0.9", "nan": "nan"}
    assert seen["acc"] == {"acc": 0.9}
    assert seen["tags"]["team"] == "x"
    assert seen["status"] == ["Completed", "Completed"]
    assert seen["files"] == ["a b+c.bin", "sub/dir/hello.txt"]
    assert seen["downloaded"] == "hello\n"
    assert seen["portal"].startswith(f"https://ml.azure.com/runs/{run['run_id']}?wsid=")
    assert seen["own_metrics"] == {"loss": [1.0, 0.5], "acc": 0.9, "table": {"x": 1, "y": 2.5}}
    assert seen["own_status"] == "Completed"
    assert seen["own_files"] == ["out/up.txt"]
    assert seen["models"] == ["from-run:1", "plain:1"]
    assert seen["registered"] == ["from-run:1", "plain:1", {"t": "1"}]

    own = next(stored for stored in emulator.state()["runs"] if stored["run_id"] == seen["own_run"])
    assert own["status"] == "FINISHED"
    assert [(point["key"], point["value"]) for point in own["metrics"]] == [("loss", 1.0), ("loss", 0.5), ("acc", 0.9)]
    assert own["tags"]["who"] == "core"
    assert [file["size"] for file in own["artifacts"]] == [9]
    models = emulator.state()["models"]
    assert {model["name"]: model["versions"][0]["run_id"] for model in models} == {
        "from-run": own["run_id"],
        "plain": None,
    }
    _check_all_routes_known(emulator)


def test_azureml_mlflow_deploys_a_registered_model_to_an_online_endpoint(
    rest: Rest, emulator: EmulatorProcess, azureml_python: Path
) -> None:
    """The other client of the endpoints that runmirror deploys to."""
    run = rest.run()
    rest.put(rest.write_url(run, "model/MLmodel"), b"flavors: {}")
    source = rest.get("/runs/get", run_id=run["run_id"]).json()["run"]["info"]["artifact_uri"] + "/model"
    rest.post("/registered-models/create", {"name": "m"})
    rest.post("/model-versions/create", {"name": "m", "source": source, "run_id": run["run_id"]}).raise_for_status()
    seen = _run(azureml_python, emulator, "deploy_with_mlflow.py", emulator.ready["tracking_uri"], "models:/m/1")
    assert seen == {"endpoint": "Succeeded", "deployment": "Succeeded", "listed": ["by-mlflow"], "left": []}
    _check_all_routes_known(emulator)


def test_azureml_mlflow_signs_in_as_a_managed_identity(emulator: EmulatorProcess, azureml_python: Path) -> None:
    seen = _run(
        azureml_python,
        emulator,
        "track_with_mlflow.py",
        emulator.ready["tracking_uri"],
        AZURE_CLIENT_SECRET="",
        AZURE_TOKEN_CREDENTIALS="ManagedIdentityCredential",
        IDENTITY_ENDPOINT=emulator.ready["identity_endpoint"],
        IDENTITY_HEADER=emulator.ready["identity_header"],
        NO_PROXY="127.0.0.1",
        no_proxy="127.0.0.1",
    )
    assert seen["status"] == "FINISHED"
    hosts = {request["host"] for request in emulator.requests()}
    assert "login.microsoftonline.com" not in hosts
    assert "control" in hosts
    _check_all_routes_known(emulator)

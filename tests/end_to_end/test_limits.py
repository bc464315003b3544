"""A run far beyond Azure ML's limits: the client notices nothing, and the workspace has all of it."""

import json
import subprocess
import sys
from pathlib import Path

from tests.azureml_emulator.process import start_emulator
from tests.end_to_end.test_lifetimes import azure_environment, mirrored
from tests.server import clean_environment, serving

HERE = Path(__file__).parent


def test_everything_of_a_run_beyond_the_limits_is_found_in_the_workspace(
    open_folder: Path, azureml_python: Path
) -> None:
    files = open_folder / "files"
    files.mkdir()
    for number in range(300):
        (files / f"f{number:03}.txt").write_text(f"file {number}")
    with (
        start_emulator(open_folder / "azure") as workspace,
        serving(open_folder / "data", **azure_environment(workspace)) as server,
    ):
        client = [sys.executable, str(HERE / "large_run.py"), str(files)]
        environment = clean_environment({"MLFLOW_TRACKING_URI": server.url})
        logged = subprocess.run(client, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert logged.returncode == 0, logged.stderr
        run_id = json.loads(logged.stdout.splitlines()[-1])["run_id"]
        row = mirrored(server, run_id)
        ready = workspace.ready
        place = [ready["subscription_id"], ready["resource_group"], ready["workspace_name"], row["remote_run_id"]]
        reader = [str(azureml_python), str(HERE / "read_large_run.py"), *place, row["overflow"]["path"]]
        read = subprocess.run(
            [*reader, ready["tracking_uri"]],
            env=workspace.env(), cwd=open_folder, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert read.returncode == 0, read.stderr[-5000:]
    seen = json.loads(read.stdout.splitlines()[-1])
    native, overflow = seen["native"], seen["overflow"]
    assert native["params"] | overflow["params"] == {f"param{n:04}": str(n) for n in range(1000)}
    assert len(native["params"]) == 200
    metrics = {f"metric{n:03}": [n, n + 0.1, n + 0.2] for n in range(500)}
    assert native["metrics"] | overflow["metrics"] == metrics
    assert (len(native["metrics"]), len(overflow["metrics"])) == (50, 450)
    assert overflow["tags"] == {f"tag{n:03}": str(n % 10) * 5000 for n in range(120)}
    assert native["tags"].items() >= {"runmirror.run_id": run_id, "mlflow.runName": "large"}.items()
    assert {path for path in seen["files"] if path.startswith("many/")} == {f"many/f{n:03}.txt" for n in range(300)}
    assert seen["status"] == "Completed"
    assert (row["partial"], row["overflow"]["is_written"]) == (True, True)
    assert row["overflow"]["counts"] == {"metric": 450, "param": 800, "tag": 120}

"""Logs a run through azureml-mlflow and prints what the client reads back."""

import json
import sys
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

mlflow.set_tracking_uri(sys.argv[1])
experiment = mlflow.set_experiment("wire-demo")

with tempfile.TemporaryDirectory() as name, mlflow.start_run(run_name="r1", tags={"team": "x"}) as active:
    folder = Path(name)
    run_id = active.info.run_id
    for step in range(3):
        mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
    mlflow.log_metrics({"acc": 0.9, "f1": float("nan")}, step=2)
    mlflow.log_param("lr", 0.01)
    mlflow.log_params({"a": 1, "b": "two"})
    mlflow.set_tag("note", "hello")
    client = MlflowClient()
    client.log_batch(
        run_id,
        metrics=[Metric("many", float(i), 1_700_000_000_000 + i, i) for i in range(150)],
        params=[Param("c", "3")],
        tags=[RunTag("batch", "yes")],
    )
    (folder / "hello.txt").write_text("hello\n")
    mlflow.log_artifact(folder / "hello.txt")
    mlflow.log_artifact(folder / "hello.txt", "sub/dir")
    bundle = folder / "bundle"
    bundle.mkdir()
    for number in range(3):
        (bundle / f"f{number}.bin").write_bytes(bytes([number]) * 100_000)
    mlflow.log_artifacts(str(bundle), "bundle")  # a Path is one thing azureml-mlflow cannot take
    try:
        mlflow.log_artifact(folder / "hello.txt")
        second_upload = "accepted"
    except Exception as error:  # noqa: BLE001 - azureml-mlflow raises no narrower one
        second_upload = str(error)

run = client.get_run(run_id)
target = tempfile.mkdtemp()
downloaded = client.download_artifacts(run_id, "bundle/f2.bin", target)
try:
    listed_below = [file.path for file in client.list_artifacts(run_id, "bundle")]
except MlflowException as error:
    listed_below = str(error)
found = mlflow.search_runs([experiment.experiment_id], "metrics.acc > 0.5 and tags.team = 'x'", output_format="list")
none = mlflow.search_runs([experiment.experiment_id], "params.lr = '7'", output_format="list")
client.create_registered_model("net")
version = client.create_model_version("net", run.info.artifact_uri + "/bundle", run_id)
client.update_run(run_id, status="RUNNING")
reopened = client.get_run(run_id).info.status
client.set_terminated(run_id, "FAILED")

json.dump(
    {
        "run_id": run_id,
        "experiment_id": experiment.experiment_id,
        "status": run.info.status,
        "status_after": [reopened, client.get_run(run_id).info.status],
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {key: str(value) for key, value in run.data.metrics.items()},
        "loss": [(m.step, m.value) for m in client.get_metric_history(run_id, "loss")],
        "many": len(client.get_metric_history(run_id, "many")),
        "files": [file.path for file in client.list_artifacts(run_id)],
        "files_below": listed_below,
        "downloaded": len(Path(downloaded).read_bytes()),
        "second_upload": second_upload,
        "found": [run.info.run_id for run in found],
        "none": len(none),
        "version": [version.version, version.source],
        "download_uri": client.get_model_version_download_uri("net", "1"),
    },
    sys.stdout,
)

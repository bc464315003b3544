"""A training program inside an Azure ML job: one call puts tracking back, the rest is plain MLflow."""

import json
import os
import subprocess
import sys

import mlflow

import runmirror_client

runmirror_client.activate(sys.argv[1])
runmirror_client.activate()  # again is fine

with mlflow.start_run() as run:
    mlflow.log_param("lr", 0.1)
    mlflow.log_metrics({"loss": 0.5, "acc": 0.9}, step=1)
    mlflow.set_tag("stage", "late")
    mlflow.log_text("hello", "notes/hello.txt")
    with mlflow.start_run(run_name="fold 1", nested=True) as child:
        mlflow.log_metric("loss", 0.4)
    # A worker process of the program: it starts with the environment alone.
    worker = "import mlflow, sys; mlflow.MlflowClient().log_metric(sys.argv[1], 'from_worker', 1.0)"
    subprocess.run([sys.executable, "-c", worker, run.info.run_id], check=True)
read = mlflow.get_run(run.info.run_id)
found = mlflow.search_runs(experiment_ids=[os.environ["MLFLOW_EXPERIMENT_ID"]], output_format="list")
print(
    json.dumps(
        {
            "run_id": run.info.run_id,
            "child": child.info.run_id,
            "status": read.info.status,
            "params": read.data.params,
            "metrics": read.data.metrics,
            "files": [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id, "notes")],
            "found": sorted(hit.info.run_id for hit in found),
            "token": os.environ.get("MLFLOW_TRACKING_TOKEN"),
        }
    )
)

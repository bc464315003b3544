"""A plain client that logs far more into one run than Azure ML takes. argv[1]: the folder with the files to log."""

import json
import sys

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric

mlflow.set_experiment("large")
with mlflow.start_run(run_name="large") as run:
    mlflow.log_params({f"param{n:04}": n for n in range(1000)})
    client = MlflowClient()
    for step in range(3):
        points = [Metric(f"metric{n:03}", n + step / 10, 1_700_000_000_000 + step, step) for n in range(500)]
        client.log_batch(run.info.run_id, metrics=points)
    mlflow.set_tags({f"tag{n:03}": str(n % 10) * 5000 for n in range(120)})
    mlflow.log_artifacts(sys.argv[1], "many")
print(json.dumps({"run_id": run.info.run_id}))

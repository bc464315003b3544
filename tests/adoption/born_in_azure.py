"""A job's first lines, with azureml-mlflow and the workspace's own URI: leaves its run running, prints its ids."""

import json
import sys

import mlflow
from mlflow import MlflowClient

mlflow.set_tracking_uri(sys.argv[1])
experiment = mlflow.set_experiment("job-experiment")
client = MlflowClient()
run = client.create_run(experiment.experiment_id, run_name="from azure")
client.log_param(run.info.run_id, "image", "cuda")
client.log_metric(run.info.run_id, "warmup", 0.25, step=3)
print(json.dumps({"run_id": run.info.run_id, "experiment_id": experiment.experiment_id}))

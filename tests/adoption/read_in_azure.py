"""Reads the job's run back through azureml-mlflow, as its owner would; prints what stands in the workspace."""

import json
import sys

import mlflow

uri, run_id = sys.argv[1:]
mlflow.set_tracking_uri(uri)
client = mlflow.MlflowClient()
run = client.get_run(run_id)
children = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
print(
    json.dumps(
        {
            "status": run.info.status,
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": {key: [p.value for p in client.get_metric_history(run_id, key)] for key in run.data.metrics},
            "files": [file.path for file in client.list_artifacts(run_id)],
            "children": [child.info.run_name for child in children],
        }
    )
)

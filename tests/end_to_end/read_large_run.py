"""Reads a run, and its overflow file, back through azureml-core and azureml-mlflow; prints what both together say."""

import json
import os
import sys
from collections import defaultdict
from pathlib import Path

from azureml.core import Run, Workspace
from azureml.core.authentication import ServicePrincipalAuthentication
from mlflow import MlflowClient

subscription, group, name, run_id, path, tracking_uri = sys.argv[1:]
secret = (os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"])
workspace = Workspace.get(
    name=name, subscription_id=subscription, resource_group=group, auth=ServicePrincipalAuthentication(*secret)
)
run = Run.get(workspace, run_id)
mlflow_run = MlflowClient(tracking_uri).get_run(run_id)
run.download_file(path, "overflow.jsonl")

native = {
    "params": mlflow_run.data.params,
    "tags": mlflow_run.data.tags,
    "metrics": {key: [value] if isinstance(value, float) else value for key, value in run.get_metrics().items()},
}
overflow = {"params": {}, "tags": {}, "metrics": defaultdict(list)}
for line in map(json.loads, Path("overflow.jsonl").read_text(encoding="utf-8").splitlines()):
    if line["kind"] == "metric":
        overflow["metrics"][line["key"]].append(line["value"])
    elif line["kind"] in {"param", "tag"}:
        overflow[line["kind"] + "s"][line["key"]] = line["value"]
seen = {"native": native, "overflow": overflow, "files": run.get_file_names(), "status": run.get_status()}
print(json.dumps(seen))

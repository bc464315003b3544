"""Reads the registered model `m` through azureml-mlflow and azureml-core, and prints what they saw."""

import json
import os
import sys
import tempfile
from pathlib import Path

import mlflow
from azureml.core import Model, Workspace
from azureml.core.authentication import ServicePrincipalAuthentication

subscription, group, name = sys.argv[1:]
workspace = Workspace.get(
    name=name,
    subscription_id=subscription,
    resource_group=group,
    auth=ServicePrincipalAuthentication(
        os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"]
    ),
)
mlflow.set_tracking_uri(workspace.get_mlflow_tracking_uri())


def files_below(folder: Path) -> dict[str, str]:
    (top,) = {found.parent for found in folder.rglob("MLmodel")}
    notes = "registered_model_meta"  # which mlflow itself writes there
    found = [file for file in sorted(top.rglob("*")) if file.is_file() and file.name != notes]
    return {str(file.relative_to(top)): file.read_text() for file in found}


client = mlflow.MlflowClient()
version = client.get_model_version("m", "1")
by_mlflow, by_core = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
mlflow.artifacts.download_artifacts("models:/m/1", dst_path=str(by_mlflow))
model = Model(workspace, name="m", version=1)
model.download(target_dir=str(by_core))
seen = {
    "mlflow": {
        "version": version.version,
        "run_id": version.run_id,
        "champion": client.get_model_version_by_alias("m", "champion").version,
        "quality": version.tags["quality"],
        "files": files_below(by_mlflow),
    },
    "core": {
        "id": model.id,
        "run_id": model.run_id,
        "quality": model.tags["quality"],
        "files": files_below(by_core),
    },
}
json.dump(seen, sys.stdout)

"""Reads and writes runs and models through azureml-core and prints what it saw."""

import json
import os
import sys
import tempfile
from pathlib import Path

from azureml.core import Experiment, Model, Run, Workspace
from azureml.core.authentication import ServicePrincipalAuthentication

subscription, group, name, mlflow_experiment, mlflow_run = sys.argv[1:]
workspace = Workspace.get(
    name=name,
    subscription_id=subscription,
    resource_group=group,
    auth=ServicePrincipalAuthentication(
        os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"]
    ),
)
folder = Path(tempfile.mkdtemp())
os.chdir(folder)  # Model.register takes files below the working directory only

experiment = Experiment(workspace, mlflow_experiment)
run = Run.get(workspace, mlflow_run)
details = run.get_details()
run.download_file("sub/dir/hello.txt", str(folder / "hello.txt"))
seen = {
    "workspace": workspace.get_details()["name"],
    "tracking_uri": workspace.get_mlflow_tracking_uri(),
    "experiments": sorted(workspace.experiments),
    "runs": [found.id for found in experiment.get_runs()],
    "metrics": run.get_metrics(),
    "acc": run.get_metrics(name="acc"),
    "tags": run.get_tags(),
    "status": [run.get_status(), details["status"]],
    "files": sorted(run.get_file_names()),
    "downloaded": (folder / "hello.txt").read_text(),
    "portal": run.get_portal_url(),
}
seen["metrics"] = {key: str(value) for key, value in seen["metrics"].items()}

fresh = Experiment(workspace, "core-demo")
own = fresh.start_logging(snapshot_directory=None)
for value in (1.0, 0.5):
    own.log("loss", value)
own.log("acc", 0.9)
own.log_row("table", x=1, y=2.5)
own.tag("who", "core")
(folder / "up.txt").write_text("uploaded\n")
own.upload_file("out/up.txt", str(folder / "up.txt"))
own.flush()
seen["own_metrics"] = own.get_metrics()
registered = own.register_model("from-run", model_path="out/up.txt")
own.complete()
model = Model.register(workspace, model_path="up.txt", model_name="plain", tags={"t": "1"})
seen |= {
    "own_run": own.id,
    "own_status": own.get_status(),
    "own_files": own.get_file_names(),
    "models": sorted(f"{found.name}:{found.version}" for found in Model.list(workspace)),
    "registered": [registered.id, model.id, model.tags],
    "children": [child.id for child in own.get_children()],
}
json.dump(seen, sys.stdout)

"""Reads a mirrored run where its readers are, in the workspace, with azureml-core; nothing in it knows runmirror.

    python read_back.py SUBSCRIPTION RESOURCE_GROUP WORKSPACE RUN_ID

RUN_ID is the run's id there: the tag runmirror.azureml.run_id of the run here.
"""

import json
import os
import sys

from azureml.core import Run, Workspace
from azureml.core.authentication import ServicePrincipalAuthentication

subscription, group, name, run_id = sys.argv[1:]
secret = (os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"])
workspace = Workspace.get(
    name, auth=ServicePrincipalAuthentication(*secret), subscription_id=subscription, resource_group=group
)
details = workspace.get_details()
run = Run.get(workspace, run_id)
told = {
    "workspace": {"id": details["id"], "location": details["location"]},
    "experiment": run.experiment.name,
    "status": run.get_status(),
    "metrics": run.get_metrics(),
    "tags": run.get_tags(),
    "files": run.get_file_names(),
    "studio": run.get_portal_url(),
}
print(json.dumps(told))

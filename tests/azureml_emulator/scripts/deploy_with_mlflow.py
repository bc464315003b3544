"""Deploys a registered model to a managed online endpoint by MLflow's deployment client, and takes it away again."""

import json
import sys
import tempfile
from pathlib import Path

import mlflow
from mlflow.deployments import get_deploy_client

uri, model = sys.argv[1:]
mlflow.set_tracking_uri(uri)
client = get_deploy_client(uri)
size = Path(tempfile.mkdtemp()) / "size.json"
size.write_text(json.dumps({"instance_type": "Standard_DS2_v2", "instance_count": 1}))
endpoint = client.create_endpoint("by-mlflow")
deployment = client.create_deployment(
    "blue", model, flavor="python_function", endpoint="by-mlflow", config={"deploy-config-file": str(size)}
)
seen = {
    "endpoint": endpoint["properties"]["provisioningState"],
    "deployment": deployment["properties"]["provisioningState"],
    "listed": [one["name"] for one in client.list_endpoints()],
}
client.delete_endpoint("by-mlflow")
print("\n" + json.dumps(seen | {"left": client.list_endpoints()}))

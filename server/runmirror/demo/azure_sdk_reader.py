"""What azureml-core reads of a run in the workspace; the demo runs this file by its path, where that package is.

Standard input: a JSON object with the workspace, the service principal and the run's id there. Last line of the
output: the arguments of `snapshot.Snapshot` as JSON. This package is told the values of metrics, not their steps and
times, and has no way to ask for params.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

from azureml.core import Run, Workspace
from azureml.core.authentication import ServicePrincipalAuthentication

# Run history's words for MLflow's statuses.
STATUS_OF = {"Completed": "FINISHED", "Failed": "FAILED", "Canceled": "KILLED", "Running": "RUNNING"}


def main() -> None:
    given = json.load(sys.stdin)
    principal = ServicePrincipalAuthentication(given["tenant_id"], given["client_id"], given["client_secret"])
    workspace = Workspace.get(
        given["name"], auth=principal, subscription_id=given["subscription_id"], resource_group=given["resource_group"]
    )
    snapshot = read_run(Run.get(workspace, given["run_id"]))
    sys.stdout.write("\n" + json.dumps(snapshot) + "\n")


def read_run(run: Run) -> dict[str, object]:
    """Status, metric values, tags, and the size and hash of every file."""
    status = run.get_details()["status"]
    metrics = {key: values if isinstance(values, list) else [values] for key, values in run.get_metrics().items()}
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(run.get_file_names()):
            place = Path(folder) / str(number)
            run.download_file(path, output_file_path=str(place))
            files[path] = (place.stat().st_size, hashlib.sha256(place.read_bytes()).hexdigest())
    return {
        "status": STATUS_OF.get(status, status),
        "name": run.display_name,
        "tags": run.get_tags(),
        "metrics": {key: [[float(value)] for value in values] for key, values in metrics.items()},
        "files": files,
    }


if __name__ == "__main__":
    main()

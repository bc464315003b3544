"""Run history's JSON, and its words for what MLflow calls otherwise."""

import time
from datetime import datetime

from azureml_emulator.artifact_store import iso
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import InvalidParameter, Json
from azureml_emulator.state import Experiment, Run, Tag

STATUS_OF = {
    "RUNNING": "Running",
    "FINISHED": "Completed",
    "FAILED": "Failed",
    "KILLED": "Canceled",
    "SCHEDULED": "NotStarted",
}
MLFLOW_STATUS_OF = {history: mlflow for mlflow, history in STATUS_OF.items()} | {
    "Queued": "SCHEDULED",
    "Preparing": "SCHEDULED",
    "Provisioning": "SCHEDULED",
    "Starting": "SCHEDULED",
    "Finalizing": "RUNNING",
    "CancelRequested": "RUNNING",
    "NotResponding": "RUNNING",
}


def read_time(value: object) -> int | None:
    """Milliseconds of an ISO time."""
    if value is None:
        return None
    try:
        return int(datetime.fromisoformat(str(value)).timestamp() * 1000)
    except ValueError:
        raise InvalidParameter(f"Not a time: {value}") from None


def write_experiment(emulator: Emulator, experiment: Experiment) -> Json:
    runs = [run for run in emulator.state.runs.values() if run.experiment_id == experiment.experiment_id]
    archived = experiment.updated_ms if experiment.lifecycle_stage == "deleted" else None
    return {
        "experimentId": experiment.experiment_id,
        "name": experiment.name,
        "description": experiment.description,
        "createdUtc": iso(experiment.created_ms),
        "tags": experiment.tags,
        "archivedTime": iso(archived),
        "latestModifiedRunTimeUtc": iso(max((run.created_ms for run in runs), default=None)),
        "artifactLocation": experiment.artifact_location or None,
    }


def is_hidden(run: Run) -> bool:
    """Archived, or deleted by MLflow: lists leave it out."""
    return run.hidden or run.lifecycle_stage == "deleted"


def write_run(emulator: Emulator, run: Run) -> Json:
    """The run as azureml-core reads it back."""
    workspace = emulator.workspace
    return {
        "runNumber": run.number,
        "rootRunId": run.tags.get("mlflow.rootRunId", Tag(run.run_id)).value,
        "experimentId": run.experiment_id,
        "createdUtc": iso(run.created_ms),
        "createdBy": {
            "userObjectId": workspace.client_id,
            "userTenantId": workspace.tenant_id,
            "userName": run.user_id or "emulated principal",
        },
        "userId": workspace.client_id,
        "token": None,
        "tokenExpiryTimeUtc": None,
        "error": run.error,
        "warnings": None,
        "runId": run.run_id,
        "runUuid": run.run_id,
        "parentRunId": run.parent_run_id,
        "status": STATUS_OF[run.status],
        "startTimeUtc": iso(run.start_ms),
        "endTimeUtc": iso(run.end_ms),
        "heartbeatEnabled": False,
        "name": run.name,
        "displayName": run.name,
        "dataContainerId": run.container,
        "description": run.extra.get("description"),
        "hidden": is_hidden(run),
        "runType": run.extra.get("runType"),
        "runTypeV2": run.extra.get("runTypeV2"),
        "properties": run.properties,
        "parameters": run.params,
        "scriptName": run.extra.get("scriptName"),
        "target": run.extra.get("target") or "local",
        "tags": {key: tag.value for key, tag in run.tags.items()},
        "inputDatasets": [],
        "outputDatasets": [],
        "runDefinition": run.extra.get("runDefinition"),
        "primaryMetricName": run.extra.get("primaryMetricName"),
        "cancelUri": None,
        "completeUri": None,
        "diagnosticsUri": None,
    }


def write_details(emulator: Emulator, run: Run) -> Json:
    shared = ("runId", "target", "status", "startTimeUtc", "endTimeUtc", "error", "warnings", "properties")
    written = write_run(emulator, run)
    others: Json = {"services": {}, "inputDatasets": [], "outputDatasets": [], "runDefinition": None, "logFiles": {}}
    return {**{key: written[key] for key in shared}, **others}


def write_token(emulator: Emulator, run: Run, audience: str) -> Json:
    """A token that is good for the data plane, on behalf of one run."""
    lifetime = emulator.settings.token_lifetime
    token = emulator.issuer.issue(audience, emulator.workspace.client_id, lifetime, run_id=run.run_id)
    return {"token": token, "expiryTimeUtc": iso(int((time.time() + lifetime) * 1000))}

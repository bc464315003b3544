"""The workspace's contents as one JSON document, for tests and for people."""

from datetime import UTC, datetime

from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import Json
from azureml_emulator.fields import written_number
from azureml_emulator.state import Artifact, Experiment, MetricRow, OnlineEndpoint, RegisteredModel, Run


def write_state(emulator: Emulator) -> Json:
    state = emulator.state
    return {
        "workspace_id": emulator.workspace.arm_id,
        "experiments": [_experiment(experiment) for experiment in state.experiments.values()],
        "runs": [_run(emulator, run) for run in state.runs.values()],
        "artifacts": [_artifact(emulator, artifact) for artifact in state.artifacts.values()],
        "models": [_model(model) for model in state.models.values()],
        "assets": list(state.assets.values()),
        "services": sorted(state.services),
        "endpoints": [_endpoint(endpoint) for endpoint in state.endpoints.values()],
    }


def _endpoint(endpoint: OnlineEndpoint) -> Json:
    return {
        "name": endpoint.name,
        "auth_mode": endpoint.auth_mode,
        "tags": endpoint.tags,
        "traffic": endpoint.traffic,
        "deployments": [
            {
                "name": deployment.name,
                "model": deployment.properties["model"],
                "instance_type": deployment.properties["instanceType"],
                "capacity": deployment.sku["capacity"],
                "tags": deployment.tags,
            }
            for deployment in endpoint.deployments.values()
        ],
    }


def _experiment(experiment: Experiment) -> Json:
    return {
        "experiment_id": experiment.experiment_id,
        "name": experiment.name,
        "lifecycle_stage": experiment.lifecycle_stage,
        "tags": experiment.tags,
        "created_ms": experiment.created_ms,
    }


def _run(emulator: Emulator, run: Run) -> Json:
    return {
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "experiment_name": emulator.state.experiments[run.experiment_id].name,
        "run_name": run.name,
        "user_id": run.user_id,
        "status": run.status,
        "start_time": run.start_ms,
        "end_time": run.end_ms,
        "lifecycle_stage": run.lifecycle_stage,
        "hidden": run.hidden,
        "parent_run_id": run.parent_run_id,
        "params": run.params,
        "tags": {key: tag.value for key, tag in run.tags.items()},
        "properties": run.properties,
        "metrics": [
            {"key": p.key, "value": written_number(p.value), "timestamp": p.timestamp, "step": p.step}
            for p in run.points
        ],
        "tables": [_row(row) for row in run.rows],
        "inputs": run.inputs,
        "events": run.events,
        "artifacts": [
            _artifact(emulator, artifact) for artifact in emulator.state.artifacts_of("ExperimentRun", run.container)
        ],
    }


def _row(row: MetricRow) -> Json:
    return {"name": row.name, "columns": row.columns, "properties": row.properties, "values": row.values}


def _artifact(emulator: Emulator, artifact: Artifact) -> Json:
    """Without a blob, size and hashes are null: registered, never uploaded."""
    blob = emulator.state.blobs.get(artifact.artifact_id)
    return {
        "artifact_id": artifact.artifact_id,
        "origin": artifact.origin,
        "container": artifact.container,
        "path": artifact.path,
        "size": blob.size if blob else None,
        "sha256": blob.sha256 if blob else None,
        "md5": blob.md5 if blob else None,
        "uploaded": datetime.fromtimestamp(blob.modified, UTC).isoformat() if blob else None,
    }


def _model(model: RegisteredModel) -> Json:
    return {
        "name": model.name,
        "description": model.description,
        "tags": model.tags,
        "aliases": model.aliases,
        "versions": [
            {
                "version": version.version,
                "source": version.source,
                "run_id": version.run_id,
                "stage": version.stage,
                "status": version.status,
                "description": version.description,
                "tags": version.tags,
            }
            for version in model.versions.values()
        ],
    }

"""MLflow's JSON, from the workspace's memory."""

from azureml_emulator.errors import Json
from azureml_emulator.fields import written_number
from azureml_emulator.state import Experiment, MetricPoint, ModelVersion, RegisteredModel, Run
from azureml_emulator.workspace import Workspace


def _tags(tags: dict[str, str]) -> list[Json]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _filled(values: Json) -> Json:
    """Protobuf leaves out what is unset and lists that are empty."""
    return {key: value for key, value in values.items() if value is not None and value != []}


def write_experiment(experiment: Experiment) -> Json:
    return _filled(
        {
            "experiment_id": experiment.experiment_id,
            "name": experiment.name,
            "artifact_location": experiment.artifact_location,
            "lifecycle_stage": experiment.lifecycle_stage,
            "creation_time": experiment.created_ms,
            "last_update_time": experiment.updated_ms,
            "tags": _tags(experiment.tags),
        }
    )


def write_point(point: MetricPoint) -> Json:
    return {
        "key": point.key,
        "value": written_number(point.value),
        "timestamp": point.timestamp,
        "step": point.step,
    }


def write_run_info(workspace: Workspace, run: Run) -> Json:
    return _filled(
        {
            "run_id": run.run_id,
            "run_uuid": run.run_id,
            "run_name": run.name,
            "experiment_id": run.experiment_id,
            "user_id": run.user_id,
            "status": run.status,
            "start_time": run.start_ms or run.created_ms,
            "end_time": run.end_ms,
            "artifact_uri": workspace.artifact_uri(run.experiment_id, run.run_id),
            "lifecycle_stage": run.lifecycle_stage,
        }
    )


def write_run(workspace: Workspace, run: Run) -> Json:
    """A run with the latest point of each metric."""
    contents = {
        "metrics": [write_point(point) for point in run.latest.values()],
        "params": _tags(run.params),
        "tags": _tags({key: tag.value for key, tag in run.tags.items()}),
    }
    answer = {"info": write_run_info(workspace, run), "data": _filled(contents)}
    if run.inputs:
        answer["inputs"] = {"dataset_inputs": run.inputs}
    return answer


def write_version(version: ModelVersion, aliases: dict[str, int]) -> Json:
    return _filled(
        {
            "name": version.name,
            "version": str(version.version),
            "creation_timestamp": version.created_ms,
            "last_updated_timestamp": version.updated_ms,
            "current_stage": version.stage,
            "description": version.description,
            "source": version.source,
            "run_id": version.run_id,
            "status": version.status,
            "tags": _tags(version.tags),
            "aliases": [alias for alias, number in aliases.items() if number == version.version],
        }
    )


def latest_versions(model: RegisteredModel) -> list[ModelVersion]:
    """The newest version of every stage."""
    by_stage = {version.stage: version for _, version in sorted(model.versions.items())}
    return list(by_stage.values())


def write_model(model: RegisteredModel) -> Json:
    return _filled(
        {
            "name": model.name,
            "creation_timestamp": model.created_ms,
            "last_updated_timestamp": model.updated_ms,
            "description": model.description,
            "tags": _tags(model.tags),
            "aliases": [{"alias": alias, "version": str(number)} for alias, number in model.aliases.items()],
            "latest_versions": [write_version(version, model.aliases) for version in latest_versions(model)],
        }
    )

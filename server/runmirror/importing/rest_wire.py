"""Answers of MLflow's REST API, in our words."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from runmirror.entities import Dataset, DatasetInput, Tag
from runmirror.errors import RunmirrorError
from runmirror.importing.entities import (
    OldExperiment,
    OldModel,
    OldModelMetric,
    OldRegisteredModel,
    OldRun,
    OldTrace,
    OldVersion,
)
from runmirror.importing.source import SourceError
from runmirror.runs.hot_columns import Point
from runmirror.traces.spans import SpanIn
from runmirror.traces.times import format_timestamp
from runmirror.traces.wire import TraceInfoIn

Json = Mapping[str, Any]
_MODEL_STATES = {"LOGGED_MODEL_PENDING": 1, "LOGGED_MODEL_READY": 2, "LOGGED_MODEL_UPLOAD_FAILED": 3}


def experiment(told: Json) -> OldExperiment:
    try:
        created = int(told.get("creation_time") or 0)
        return OldExperiment(
            str(told["experiment_id"]), str(told["name"]), str(told.get("lifecycle_stage") or "active"), created,
            int(told.get("last_update_time") or created), _pairs(told.get("tags")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"an experiment cannot be read: {error!r}") from error


def run(told: Json) -> OldRun:
    try:
        info, data = told["info"], told.get("data") or {}
        inputs, outputs = told.get("inputs") or {}, told.get("outputs") or {}
        end = info.get("end_time")
        return OldRun(
            run_id=str(info.get("run_id") or info["run_uuid"]),
            experiment_id=str(info["experiment_id"]),
            name=str(info.get("run_name") or ""),
            user_id=str(info.get("user_id") or ""),
            status=str(info.get("status") or "RUNNING"),
            start_time_ms=int(info.get("start_time") or 0),
            end_time_ms=int(end) if end else None,
            lifecycle_stage=str(info.get("lifecycle_stage") or "active"),
            artifact_uri=str(info.get("artifact_uri") or ""),
            params=_pairs(data.get("params")),
            tags=_pairs(data.get("tags")),
            latest={
                str(metric["key"]): (float(metric["value"]), int(metric["timestamp"]), int(metric.get("step") or 0))
                for metric in data.get("metrics") or []
            },
            datasets=tuple(sorted(map(_dataset, inputs.get("dataset_inputs") or []), key=_name_and_digest)),
            model_inputs=tuple(sorted(str(given["model_id"]) for given in inputs.get("model_inputs") or [])),
            model_outputs=tuple(sorted(map(_model_output, outputs.get("model_outputs") or []))),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"a run cannot be read: {error!r}") from error


def points(told: Sequence[Json]) -> list[Point]:
    """Each once: a server over files may have a point twice."""
    try:
        found = {
            (str(one["key"]), int(one["timestamp"]), int(one.get("step") or 0), repr(float(one["value"])))
            for one in told
        }
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"a point of a metric cannot be read: {error!r}") from error
    return [Point(key, float(value), timestamp, step) for key, timestamp, step, value in found]


def model(told: Json) -> OldModel:
    try:
        info, data = told["info"], told.get("data") or {}
        metrics = [
            OldModelMetric(
                str(one["key"]), float(one["value"]), int(one["timestamp"]), int(one.get("step") or 0),
                str(one.get("run_id") or ""), one.get("dataset_name") or None, one.get("dataset_digest") or None,
            )
            for one in data.get("metrics") or []
        ]  # fmt: skip
        return OldModel(
            model_id=str(info["model_id"]),
            experiment_id=str(info["experiment_id"]),
            name=str(info.get("name") or ""),
            artifact_uri=str(info.get("artifact_uri") or ""),
            creation_time_ms=int(info.get("creation_timestamp_ms") or 0),
            last_updated_time_ms=int(info.get("last_updated_timestamp_ms") or 0),
            status=_MODEL_STATES.get(str(info.get("status")), 0),
            model_type=str(info.get("model_type") or ""),
            source_run_id=str(info.get("source_run_id") or ""),
            status_message=str(info.get("status_message") or ""),
            params=_pairs(data.get("params")),
            tags=_pairs(info.get("tags")),
            metrics=tuple(sorted(metrics, key=lambda one: (one.run_id, one.key, one.step, one.timestamp_ms))),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"a logged model cannot be read: {error!r}") from error


def registered_model(told: Json, versions: Sequence[Json]) -> OldRegisteredModel:
    try:
        created = int(told.get("creation_timestamp") or 0)
        return OldRegisteredModel(
            str(told["name"]), created, int(told.get("last_updated_timestamp") or created),
            str(told.get("description") or ""), _pairs(told.get("tags")),
            {str(one["alias"]): int(one["version"]) for one in told.get("aliases") or []},
            tuple(sorted(map(_version, versions), key=lambda one: one.version)),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"a registered model cannot be read: {error!r}") from error


def trace(told: Json, spans: Sequence[SpanIn] | None) -> OldTrace:
    try:
        info = TraceInfoIn.model_validate(told).to_trace()
    except (ValidationError, RunmirrorError, ValueError) as error:
        raise SourceError(f"trace {told.get('trace_id')} cannot be read: {error}") from error
    invalid = [one["assessment_id"] for one in told.get("assessments") or [] if one.get("valid") is False]
    return OldTrace(info, spans, invalid=invalid)


def time_of(milliseconds: int) -> str:
    return format_timestamp(milliseconds)


def _version(told: Json) -> OldVersion:
    created = int(told.get("creation_timestamp") or 0)
    return OldVersion(
        int(told["version"]), created, int(told.get("last_updated_timestamp") or created),
        told.get("description"), str(told.get("current_stage") or "None"), str(told.get("source") or ""),
        str(told.get("run_id") or ""), str(told.get("run_link") or ""), tags=_pairs(told.get("tags")),
    )  # fmt: skip


def _dataset(told: Json) -> DatasetInput:
    of = told["dataset"]
    tags = tuple(Tag(key, value) for key, value in sorted(_pairs(told.get("tags")).items()))
    dataset = Dataset(
        str(of.get("name") or ""), str(of.get("digest") or ""), str(of.get("source_type") or ""),
        str(of.get("source") or ""), of.get("schema"), of.get("profile"),
    )  # fmt: skip
    return DatasetInput(dataset, tags)


def _name_and_digest(given: DatasetInput) -> tuple[str, str]:
    return given.dataset.name, given.dataset.digest


def _model_output(told: Json) -> tuple[str, int]:
    return str(told["model_id"]), int(told.get("step") or 0)


def _pairs(told: Sequence[Json] | None) -> dict[str, str]:
    return {str(pair["key"]): str(pair.get("value") or "") for pair in told or []}

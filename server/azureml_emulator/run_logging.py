"""What MLflow clients log into a run: metrics, params, tags, inputs, one by one or in batches."""

from collections import Counter
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import fields, limits, search
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AzureError, Json, NotFound
from azureml_emulator.experiments import read
from azureml_emulator.fields import written_number
from azureml_emulator.mlflow_wire import write_point
from azureml_emulator.paging import page_of
from azureml_emulator.runs import check_tags, find, find_active, read_tags
from azureml_emulator.state import MetricPoint, Run, Tag, now_ms
from azureml_emulator.workspace import new_guid

HISTORY_PAGE = 25_000


class ParamChanged(AzureError):
    """Params are write-once; the same value again is no change."""

    def __init__(self, key: str, old: str, new: str) -> None:
        super().__init__(
            f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{old}'. "
            f"Attempted logging new value '{new}'."
        )


@dataclass(frozen=True)
class Batch:
    """What one request wants to add to a run."""

    points: list[MetricPoint]
    params: list[tuple[str, str]]
    tags: dict[str, str]


def read_point(entry: Json) -> MetricPoint:
    return MetricPoint(
        key=fields.text(entry, "key"),
        value=fields.number(entry, "value"),
        timestamp=now_ms() if (given := fields.optional_integer(entry, "timestamp")) is None else given,
        step=fields.optional_integer(entry, "step") or 0,
    )


def read_param(entry: Json) -> tuple[str, str]:
    return fields.text(entry, "key"), fields.optional_text(entry, "value") or ""


def read_batch(body: Json) -> Batch:
    return Batch(
        points=[read_point(entry) for entry in fields.objects(body, "metrics")],
        params=[read_param(entry) for entry in fields.objects(body, "params")],
        tags=read_tags(body),
    )


def check_batch(emulator: Emulator, run: Run, batch: Batch) -> None:
    """Refuse the whole batch for any part of it, before anything is written."""
    held = emulator.settings.limits
    limits.at_most(held.metrics_per_batch, len(batch.points), "Metrics")
    limits.at_most(held.params_per_batch, len(batch.params), "Parameters/Count")
    limits.at_most(held.tags_per_batch, len(batch.tags), "Tags/Count")
    check_points(emulator, run, batch.points)
    params = dict(run.params)
    for key, value in batch.params:
        limits.check_param(held, key, value)
        if params.setdefault(key, value) != value:
            raise ParamChanged(key, params[key], value)
    limits.at_most(held.params_per_run, len(params), "Parameters")
    check_tags(emulator, run.tags, batch.tags)


def check_points(emulator: Emulator, run: Run, points: list[MetricPoint]) -> None:
    """Hold metric points against the limits of names, rows and values."""
    held = emulator.settings.limits
    here = Counter(point.key for point in points)
    for key, size in here.items():
        limits.at_most(held.metric_name, len(key), "MetricV2Dto.Name")
        limits.at_most(held.values_per_metric_in_batch, size, "MetricV2Dto.Value/Count")
    before = run.point_counts
    limits.at_most(held.metric_names_per_run, len(before.keys() | here.keys()), "Metrics/Names")
    for key, size in here.items():
        limits.at_most(held.points_per_metric_name, before[key] + size, f"Metrics/Rows/{key}")


def apply(emulator: Emulator, run: Run, batch: Batch) -> None:
    """Check, then write: points are kept as they come, never compared with those already there."""
    check_batch(emulator, run, batch)
    run.add_points(batch.points)
    run.params.update(batch.params)
    run.tags.update({key: Tag(value) for key, value in batch.tags.items()})
    points = [[point.key, point.step, point.timestamp, written_number(point.value)] for point in batch.points]
    emulator.recorder.changed(run.run_id, "batch", {"points": points, "params": batch.params, "tags": batch.tags})


async def log_metric(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    apply(emulator, find_active(emulator, body), Batch([read_point(body)], [], {}))
    return JSONResponse({})


async def log_parameter(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    apply(emulator, find_active(emulator, body), Batch([], [read_param(body)], {}))
    return JSONResponse({})


async def log_batch(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    apply(emulator, find_active(emulator, body), read_batch(body))
    return JSONResponse({})


async def log_batch_async(emulator: Emulator, request: Request) -> Response:
    """The preview form: with metrics there is something to wait for, without there is not."""
    body = await read(emulator, request)
    batch = read_batch(body)
    apply(emulator, find_active(emulator, body), batch)
    return JSONResponse({"batch_tracking_id": new_guid() if batch.points else ""})


async def run_data_status(emulator: Emulator, request: Request) -> Response:
    find(emulator, request.query_params.get("run_id", ""))
    return JSONResponse({"is_complete": True})


async def set_tag(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    run = find_active(emulator, body)
    tags = {fields.text(body, "key"): fields.optional_text(body, "value") or ""}
    apply(emulator, run, Batch([], [], tags))
    if "mlflow.runName" in tags:
        run.name = tags["mlflow.runName"]
    return JSONResponse({})


async def delete_tag(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    run = find_active(emulator, body)
    key = fields.text(body, "key")
    if run.tags.pop(key, None) is None:
        raise NotFound(f"No tag with name: {key} in run with id {run.run_id}")
    emulator.recorder.changed(run.run_id, "tag deleted", key)
    return JSONResponse({})


async def log_inputs(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    run = find_active(emulator, body)
    datasets = fields.objects(body, "datasets")
    limits.at_most(emulator.settings.limits.run_inputs, len(run.inputs) + len(datasets), "InputDatasets")
    run.inputs.extend(datasets)
    emulator.recorder.changed(run.run_id, "inputs", len(datasets))
    return JSONResponse({})


async def log_model(emulator: Emulator, request: Request) -> Response:
    """The old way of saying that a model was logged: a tag that lists models."""
    body = await read(emulator, request)
    run = find_active(emulator, body)
    held = run.tags.get("mlflow.log-model.history")
    before = held.value.removeprefix("[").removesuffix("]") if held else ""
    entries = ",".join(part for part in (before, fields.text(body, "model_json")) if part)
    run.tags["mlflow.log-model.history"] = Tag(f"[{entries}]")
    return JSONResponse({})


async def get_history(emulator: Emulator, request: Request) -> Response:
    query = dict(request.query_params)
    run = find(emulator, query.get("run_id") or query.get("run_uuid") or "")
    key = fields.text({"metric_key": query.get("metric_key")}, "metric_key")
    lag = emulator.settings.read_lag_seconds
    points = [point for point in run.points if point.key == key and not search.is_too_young(point.written, lag)]
    size = fields.optional_integer(dict(query), "max_results") or HISTORY_PAGE
    page, token = page_of(points, min(size, HISTORY_PAGE), query.get("page_token"))
    answer: Json = {"metrics": [write_point(point) for point in page]} if page else {}
    return JSONResponse(answer | ({"next_page_token": token} if token else {}))


ROUTES = [
    ("POST", "/runs/log-metric", log_metric),
    ("POST", "/runs/log-parameter", log_parameter),
    ("POST", "/runs/log-batch", log_batch),
    ("POST", "/runs/set-tag", set_tag),
    ("POST", "/runs/delete-tag", delete_tag),
    ("POST", "/runs/log-inputs", log_inputs),
    ("POST", "/runs/log-model", log_model),
    ("GET", "/metrics/get-history", get_history),
]
PREVIEW_ROUTES = [
    ("POST", "/runs/log-batch-async", log_batch_async),
    ("GET", "/runs/get-run-data-status", run_data_status),
]

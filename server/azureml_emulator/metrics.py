"""The metric service v2.0, over the same points that MLflow's clients log."""

from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import fields, limits, run_logging, runs
from azureml_emulator.artifact_store import iso
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AzureError, InvalidParameter, Json, NotFound, camel_body
from azureml_emulator.fields import written_number
from azureml_emulator.state import MetricPoint, MetricRow, Run, now_ms
from azureml_emulator.workspace import new_guid

SCALAR = "azureml.v1.scalar"
TYPE = "uxMetricType"


def _describe_scalar(key: str) -> Json:
    return {
        "metricKey": {"namespace": "", "name": key},
        "columns": {key: "Double"},
        "properties": {TYPE: SCALAR},
    }


def _describe_row(row: MetricRow) -> Json:
    return {
        "metricKey": {"namespace": "", "name": row.name},
        "columns": row.columns,
        "properties": row.properties,
    }


async def list_metrics(emulator: Emulator, request: Request) -> Response:
    run = runs.find(emulator, request.path_params["run_id"])
    scalars = [_describe_scalar(key) for key in run.latest]
    tables = [_describe_row(row) for row in {row.name: row for row in run.rows}.values()]
    return JSONResponse({"value": scalars + tables, "continuationToken": None})


async def full_metric(emulator: Emulator, request: Request) -> Response:
    """Every value of one metric, in order of arrival."""
    run = runs.find(emulator, request.path_params["run_id"])
    name = fields.text(await fields.read_json(request), "metricName")
    points = [point for point in run.points if point.key == name]
    rows = [row for row in run.rows if row.name == name]
    if not points and not rows:
        raise NotFound(f"Metric '{name}' of run {run.run_id} was not found")
    described = _describe_row(rows[0]) if rows else _describe_scalar(name)
    return JSONResponse(
        {
            "dataContainerId": run.container,
            "name": name,
            "columns": described["columns"],
            "properties": described["properties"],
            "value": [_write_row(row) for row in rows] + [_write_point(point) for point in points],
            "continuationToken": None,
        }
    )


def _write_point(point: MetricPoint) -> Json:
    return {
        "metricId": point.metric_id,
        "createdUtc": iso(point.timestamp),
        "step": point.step,
        "data": {point.key: written_number(point.value)},
    }


def _write_row(row: MetricRow) -> Json:
    return {"metricId": row.metric_id, "createdUtc": iso(row.created_ms), "step": row.step, "data": row.values}


async def log_batch(emulator: Emulator, request: Request) -> Response:
    """Series as azureml-core sends them: the good ones are kept, the others reported."""
    run = runs.find(emulator, request.path_params["run_id"])
    errors: list[Json] = []
    for series in fields.objects(await fields.read_json(request), "values"):
        try:
            _log_series(emulator, run, series)
        except AzureError as error:
            errors.append({"metricName": series.get("name"), "error": camel_body(error)["error"]})
    return JSONResponse({"errors": errors}, 207 if errors else 200)


def _log_series(emulator: Emulator, run: Run, series: Json) -> None:
    name = fields.text(series, "name")
    columns, properties = series.get("columns") or {}, series.get("properties") or {}
    limits.at_most(emulator.settings.limits.metric_columns, len(columns), "MetricV2Dto.Columns")
    entries = fields.objects(series, "value")
    if properties.get(TYPE, SCALAR) == SCALAR and list(columns) == [name]:
        points = [_read_point(name, entry) for entry in entries]
        run_logging.check_points(emulator, run, points)
        run.add_points(points)
    else:
        run.rows.extend(_read_row(name, columns, properties, entry) for entry in entries)


def _read_point(name: str, entry: Json) -> MetricPoint:
    return MetricPoint(
        key=name,
        value=fields.number(entry.get("data") or {}, name),
        timestamp=_created_ms(entry),
        step=fields.optional_integer(entry, "step") or 0,
        metric_id=fields.optional_text(entry, "metricId") or new_guid(),
    )


def _read_row(name: str, columns: dict[str, str], properties: dict[str, Any], entry: Json) -> MetricRow:
    return MetricRow(
        name=name,
        columns=columns,
        properties=properties,
        values=entry.get("data") or {},
        step=fields.optional_integer(entry, "step"),
        created_ms=_created_ms(entry),
        metric_id=fields.optional_text(entry, "metricId") or new_guid(),
    )


def _created_ms(entry: Json) -> int:
    created = fields.optional_text(entry, "createdUtc")
    try:
        return int(datetime.fromisoformat(created).timestamp() * 1000) if created else now_ms()
    except ValueError:
        raise InvalidParameter(f"Not a time: {created}") from None


ROUTES = [
    ("POST", "/runs/{run_id}/list", list_metrics),
    ("POST", "/runs/{run_id}/full", full_metric),
    ("POST", "/runs/{run_id}/batch", log_batch),
]

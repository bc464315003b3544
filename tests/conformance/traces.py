"""Traces for the differential suite: the same ids on both servers, new ones for every test."""

import json
import uuid
from typing import Any

from tests.conformance.compare import Both

V3 = "/api/3.0/mlflow/traces"
TIME = "2025-01-01T00:00:00.123Z"
BASE_NS = 1_735_689_600_000_000_000  # 2025-01-01


def new_id() -> str:
    return f"tr-{uuid.uuid4().hex}"


def info(trace_id: str, experiment: str = "{experiment}", **fields: Any) -> dict[str, Any]:
    """The body of a start-trace call."""
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    described = {"trace_id": trace_id, "trace_location": location, "request_time": TIME, "state": "OK"}
    return {"trace": {"trace_info": described | fields}}


def start(both: Both, name: str = "trace", **fields: Any) -> str:
    """Start a trace on both and bind its id to `name`."""
    trace_id = new_id()
    both.name(name, trace_id)
    both.call("POST", V3, json=info(trace_id, **fields))
    return trace_id


def value(python: Any) -> dict[str, Any]:  # noqa: PLR0911 one line per type
    """OTLP's AnyValue in JSON."""
    match python:
        case bool():
            return {"boolValue": python}
        case str():
            return {"stringValue": python}
        case int():
            return {"intValue": str(python)}
        case float():
            return {"doubleValue": python}
        case list():
            return {"arrayValue": {"values": [value(item) for item in python]}}
        case dict():
            return {"kvlistValue": {"values": pairs(python)}}
    return {}


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(item)} for key, item in attributes.items()]


def span(trace_id: str, number: int = 1, parent: int | None = None, /, **fields: Any) -> dict[str, Any]:
    """A span of one second; `attributes` is a plain dict, `start_ms` and `end_ms` are relative to `BASE_NS`."""
    start_ms, end_ms = fields.pop("start_ms", 0), fields.pop("end_ms", 1000)
    described = {
        "traceId": trace_id.removeprefix("tr-"),
        "spanId": f"{number:016x}",
        "name": fields.pop("name", f"span {number}"),
        "startTimeUnixNano": str(BASE_NS + start_ms * 1_000_000),
        "endTimeUnixNano": str(BASE_NS + end_ms * 1_000_000),
        "attributes": pairs(fields.pop("attributes", {})),
        "status": {"code": "STATUS_CODE_OK"},
    }
    return described | ({} if parent is None else {"parentSpanId": f"{parent:016x}"}) | fields


def export(both: Both, *spans: dict[str, Any], resource: dict[str, Any] | None = None, **options: Any) -> None:
    """Send spans to both, as OTLP's JSON."""
    body = {"resourceSpans": [{"resource": {"attributes": pairs(resource or {})}, "scopeSpans": [{"spans": spans}]}]}
    headers = {"content-type": "application/json", "x-mlflow-experiment-id": "{experiment}"} | options.pop(
        "headers", {}
    )
    both.call("POST", "/v1/traces", content=json.dumps(body).encode(), headers=headers, **options)


def search(both: Both, text: str = "", **fields: Any) -> list[str]:
    """The ids that both find, in order."""
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "{experiment}"}}
    body = {"locations": [location], "filter": text, "max_results": 100} | fields
    answer = both.call("POST", f"{V3}/search", json=body)
    return [trace["trace_id"] for trace in answer.body.get("traces", [])]

"""A span as we keep it, and as MLflow's wire and its `traces.json` show it."""

import base64
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runmirror.traces.keys import LLM_COST, LLM_MODEL, LLM_PROVIDER, SPAN_TYPE
from runmirror.traces.totals import finite, parse_figures
from runmirror.wire import INT64_MAX

MAX_MODEL_NAME_LENGTH = 500


@dataclass(slots=True)
class SpanIn:
    """A span that arrived; `attributes` (also of events and links) is {key: JSON text}."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    status: str  # OK, ERROR or UNSET
    status_message: str
    start_time_ns: int
    end_time_ns: int | None
    attributes: dict[str, str]
    events: list[dict[str, Any]] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)
    resource: Mapping[str, str] = field(default_factory=dict)  # what the process said of itself, as tags have it

    def plain(self, key: str) -> str | None:
        """An attribute that is a text, without the quotes of JSON."""
        return plain_text(self.attributes.get(key))

    def row(self) -> dict[str, Any]:
        """The columns of `spans`."""
        cost = parse_figures(self.attributes.get(LLM_COST)) or {}
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_span_id": self.parent_span_id,
            "name": self.name,
            "type": self.plain(SPAN_TYPE),
            "status": self.status,
            "status_message": self.status_message,
            "start_time_ns": self.start_time_ns,
            "end_time_ns": self.end_time_ns,
            "attributes": self.attributes,
            "events": self.events,
            "links": self.links,
            "model_name": (self.plain(LLM_MODEL) or "")[:MAX_MODEL_NAME_LENGTH] or None,
            "model_provider": (self.plain(LLM_PROVIDER) or "")[:MAX_MODEL_NAME_LENGTH] or None,
            **{name: finite(cost.get(name)) for name in ("input_cost", "output_cost", "total_cost")},
        }


def plain_text(value: str | None) -> str | None:
    """The text that a JSON text holds; a text that is no JSON stands for itself, other JSON for nothing."""
    if value is None:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, str) else None


def in_order(rows: Iterable[Any]) -> list[Any]:
    """Rows of one trace: roots first, then by start."""
    return sorted(rows, key=lambda row: (row.parent_span_id is not None, row.start_time_ns))


def to_wire(row: Any) -> dict[str, Any]:
    """A row of `spans` as protobuf's JSON of an OpenTelemetry span; what is empty is left out."""
    status: dict[str, Any] = {} if row.status == "UNSET" else {"code": f"STATUS_CODE_{row.status}"}
    if row.status_message:
        status["message"] = row.status_message
    span: dict[str, Any] = {
        "trace_id": _base64(row.trace_id.removeprefix("tr-")),
        "span_id": _base64(row.span_id),
        "parent_span_id": _base64(row.parent_span_id) if row.parent_span_id else None,
        "name": row.name or None,
        "start_time_unix_nano": row.start_time_ns or None,
        "end_time_unix_nano": row.end_time_ns or None,
        "attributes": _attributes(row.attributes),
        "events": [
            _without_nothing(
                name=event["name"] or None,
                time_unix_nano=event["time_ns"] or None,
                attributes=_attributes(event["attributes"]),
            )
            for event in row.events
        ],
        "links": [
            _without_nothing(
                trace_id=_base64(link["trace_id"].removeprefix("tr-")),
                span_id=_base64(link["span_id"]),
                attributes=_attributes(link["attributes"]),
            )
            for link in row.links
        ],
    }
    return _without_nothing(**span) | {"status": status}


def to_artifact(row: Any) -> dict[str, Any]:
    """A row of `spans` as MLflow's `traces.json` has it."""
    return {
        "trace_id": _base64(row.trace_id.removeprefix("tr-")),
        "span_id": _base64(row.span_id),
        "parent_span_id": _base64(row.parent_span_id) if row.parent_span_id else None,
        "name": row.name,
        "start_time_unix_nano": row.start_time_ns,
        "end_time_unix_nano": row.end_time_ns or 0,
        "events": [
            {
                "name": event["name"],
                "time_unix_nano": event["time_ns"],
                "attributes": {key: _readable(json.loads(value)) for key, value in event["attributes"].items()},
            }
            for event in row.events
        ],
        "status": {"code": f"STATUS_CODE_{row.status}", "message": row.status_message},
        "attributes": row.attributes,
        "links": [
            {
                "trace_id": link["trace_id"],
                "span_id": link["span_id"],
                "attributes": {key: _readable(json.loads(value)) for key, value in link["attributes"].items()} or None,
            }
            for link in row.links
        ],
    }


def _without_nothing(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != []}


def _attributes(attributes: Mapping[str, str]) -> list[dict[str, Any]]:
    return [_pair(key, json.loads(value)) for key, value in attributes.items()]


def _pair(key: str, value: Any) -> dict[str, Any]:
    name = _encodable(key)
    return {"key": name} if value is None else {"key": name, "value": _any_value(value)}


def _any_value(value: Any) -> dict[str, Any]:  # noqa: PLR0911 one line per type
    """OpenTelemetry's AnyValue."""
    match value:
        case None:
            return {}
        case bool():
            return {"bool_value": value}
        case str():
            return {"string_value": _encodable(value)}
        case int():
            return {"int_value": value} if abs(value) <= INT64_MAX else {"string_value": str(value)}
        case float():
            return {"double_value": _readable(value)}
        case list():
            return {"array_value": {"values": [_any_value(item) for item in value]} if value else {}}
        case dict():
            return {"kvlist_value": {"values": [_pair(key, item) for key, item in value.items()]} if value else {}}
    raise TypeError(f"{type(value)} is not made of JSON")


def _encodable(text: str) -> str:
    """JSON text may spell halves of surrogate pairs; no UTF-8 does."""
    return text.encode(errors="replace").decode()


def _readable(value: Any) -> Any:
    """NaN and the infinities as text: JSON has no number for them."""
    match value:
        case float() if math.isnan(value):
            return "NaN"
        case float() if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        case list():
            return [_readable(item) for item in value]
        case dict():
            return {key: _readable(item) for key, item in value.items()}
    return value


def _base64(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()

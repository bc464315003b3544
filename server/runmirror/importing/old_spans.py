"""Spans as MLflow keeps them, in its database and in `traces.json`: of MLflow 3, and of MLflow 2 before."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from runmirror.importing.source import SourceError
from runmirror.traces.spans import SpanIn

_NUL = "\0"


def parse_spans(trace_id: str, told: Sequence[Any]) -> list[SpanIn]:
    """Raises `SourceError`."""
    try:
        return [_span_2(trace_id, span) if "context" in span else _span_3(trace_id, span) for span in told]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"a span of trace {trace_id} cannot be read: {error}") from error


def parse_file(trace_id: str, content: bytes | str) -> list[SpanIn]:
    """The spans in a `traces.json`. Raises `SourceError`."""
    try:
        told = json.loads(content)
        spans = told["spans"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"the spans of trace {trace_id} cannot be read: {error}") from error
    return parse_spans(trace_id, spans)


def _span_3(trace_id: str, told: Mapping[str, Any]) -> SpanIn:
    status = told.get("status") or {}
    code = str(status.get("code", "")).removeprefix("STATUS_CODE_")
    return SpanIn(
        trace_id=trace_id,
        span_id=_hex(told["span_id"]),
        parent_span_id=_hex(told["parent_span_id"]) if told.get("parent_span_id") else None,
        name=_stored(str(told.get("name") or "")),
        status=code if code in {"OK", "ERROR"} else "UNSET",
        status_message=_stored(str(status.get("message") or "")),
        start_time_ns=int(told.get("start_time_unix_nano") or 0),
        end_time_ns=int(told.get("end_time_unix_nano") or 0) or None,
        attributes=_attributes(told.get("attributes")),
        events=[_event(event, "time_unix_nano") for event in told.get("events") or []],
        links=[
            {
                "trace_id": str(link["trace_id"]),
                "span_id": str(link["span_id"]),
                "attributes": _values(link.get("attributes")),
            }
            for link in told.get("links") or []
        ],
    )


def _span_2(trace_id: str, told: Mapping[str, Any]) -> SpanIn:
    code = str(told.get("status_code") or "").removeprefix("STATUS_CODE_").removeprefix("StatusCode.")
    return SpanIn(
        trace_id=trace_id,
        span_id=str(told["context"]["span_id"]).removeprefix("0x"),
        parent_span_id=str(told["parent_id"]).removeprefix("0x") if told.get("parent_id") else None,
        name=_stored(str(told.get("name") or "")),
        status=code if code in {"OK", "ERROR"} else "UNSET",
        status_message=_stored(str(told.get("status_message") or "")),
        start_time_ns=int(told.get("start_time") or 0),
        end_time_ns=int(told.get("end_time") or 0) or None,
        attributes=_attributes(told.get("attributes")),
        events=[_event(event, "timestamp") for event in told.get("events") or []],
    )


def _event(told: Mapping[str, Any], time: str) -> dict[str, Any]:
    return {
        "name": _stored(str(told.get("name") or "")),
        "time_ns": int(told.get(time) or 0),
        "attributes": _values(told.get("attributes")),
    }


def _attributes(told: Mapping[str, Any] | None) -> dict[str, str]:
    """Of spans they are JSON texts already."""
    return {
        _stored(str(key)): _stored(value if isinstance(value, str) else json.dumps(value))
        for key, value in (told or {}).items()
    }


def _values(told: Mapping[str, Any] | None) -> dict[str, str]:
    return {_stored(str(key)): json.dumps(value, ensure_ascii=False) for key, value in (told or {}).items()}


def _hex(told: str) -> str:
    """Ids are base64 of their bytes, or hexadecimal."""
    text = str(told).removeprefix("0x")
    if len(text) == 16:
        try:
            return bytes.fromhex(text).hex()
        except ValueError:
            pass
    try:
        return base64.b64decode(text, validate=True).hex()
    except binascii.Error as error:
        raise ValueError(f"{text[:40]!r} is no id of a span") from error


def _stored(text: str) -> str:
    return text.replace(_NUL, "\N{REPLACEMENT CHARACTER}")

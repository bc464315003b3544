"""OpenTelemetry's export of traces over HTTP: bytes → spans, pure.

Raises `InvalidParameter` for what is not an export, `BodyTooLong` for one that unpacks beyond the limit.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from runmirror.errors import BodyTooLong, InvalidParameter
from runmirror.traces.conventions import translate
from runmirror.traces.keys import REQUEST_ID
from runmirror.traces.spans import SpanIn
from runmirror.wire import INT64_MAX

PROTOBUF, JSON = "application/x-protobuf", "application/json"
MAX_NESTING = 90  # protobuf reads 100 levels, and a client has to read what we give out

# MLflow shows these on the root span; it stores no other name, since clients may send any text.
_KNOWN_SERVICES = {"claude-code", "codex_cli_rs", "codex_vscode", "gemini-cli", "qwen-code"}
_STATUS = {Status.STATUS_CODE_OK: "OK", Status.STATUS_CODE_ERROR: "ERROR"}
_ID_FIELDS = ("traceId", "spanId", "parentSpanId")


def parse_export(body: bytes, *, content_type: str, content_encoding: str, limit_bytes: int) -> list[SpanIn]:
    """The spans of one export, translated to MLflow's attributes; of a span sent twice the last one counts."""
    media_type = content_type.partition(";")[0].strip()
    if media_type not in {PROTOBUF, JSON}:
        raise InvalidParameter(f"Invalid Content-Type: {content_type[:80]}. Expected: {PROTOBUF} or {JSON}")
    body = _unpacked(body, content_encoding.lower(), limit_bytes)
    export = ExportTraceServiceRequest()
    try:
        if media_type == JSON:
            json_format.ParseDict(_with_base64_ids(body), export, ignore_unknown_fields=True)
        else:
            export.ParseFromString(body)
    except (DecodeError, json_format.Error, ValueError, RecursionError) as error:
        raise InvalidParameter("Invalid OpenTelemetry format") from error
    if not export.resource_spans:
        raise InvalidParameter("Invalid OpenTelemetry format - no spans found")
    found: dict[tuple[str, str], SpanIn] = {}
    for resource_spans in export.resource_spans:
        resource = _resource(resource_spans.resource.attributes)
        service = resource.get("service.name", "")
        for scope_spans in resource_spans.scope_spans:
            for proto in scope_spans.spans:
                span = _span(proto, resource)
                if span.parent_span_id is None and service in _KNOWN_SERVICES:
                    span.attributes["service.name"] = json.dumps(service)
                found[span.trace_id, span.span_id] = span
    return list(found.values())


def _unpacked(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    match encoding:
        case "" | "identity":
            return body
        case "gzip":
            windows = [zlib.MAX_WBITS | 16]
        case "deflate":  # with the header that the standard asks for, or without, as some send it
            windows = [zlib.MAX_WBITS, -zlib.MAX_WBITS]
        case _:
            raise InvalidParameter(f"Unsupported Content-Encoding: {encoding[:80]}")
    for window in windows:
        unpacker = zlib.decompressobj(window)
        try:
            unpacked = unpacker.decompress(body, limit_bytes + 1)
        except zlib.error:
            continue
        if len(unpacked) > limit_bytes:
            raise BodyTooLong(limit_bytes)
        if unpacker.eof:
            return unpacked
    raise InvalidParameter(f"Failed to decompress {encoding} payload")


def _with_base64_ids(body: bytes) -> dict[str, Any]:
    """OTLP writes ids in hexadecimal, protobuf's own JSON in base64. Raises `ValueError`."""
    export = json.loads(body)
    if not isinstance(export, dict):
        raise ValueError("an export is an object")
    for resource_spans in _objects(export, "resourceSpans"):
        for scope_spans in _objects(resource_spans, "scopeSpans"):
            for span in _objects(scope_spans, "spans"):
                for place in (span, *_objects(span, "links")):
                    for name in _ID_FIELDS:
                        if place.get(name):
                            place[name] = base64.b64encode(bytes.fromhex(str(place[name]))).decode()
    return export


def _objects(parent: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = parent.get(name) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{name} is a list of objects")
    return items


def _span(proto: Span, resource: Mapping[str, str]) -> SpanIn:
    parent = proto.parent_span_id
    trace_id = f"tr-{_id(proto.trace_id, 16, 'trace_id')}"
    attributes = {key: _unwrapped(text) for key, text in _attributes(proto.attributes).items()} | {
        REQUEST_ID: json.dumps(trace_id)
    }
    status = _STATUS.get(proto.status.code, "UNSET")
    events = [
        {"name": _storable(e.name), "time_ns": _ns(e.time_unix_nano), "attributes": _attributes(e.attributes)}
        for e in proto.events
    ]
    translate(attributes)
    return SpanIn(
        trace_id=trace_id,
        span_id=_id(proto.span_id, 8, "span_id"),
        parent_span_id=_id(parent, 8, "parent_span_id") if any(parent) else None,
        name=_storable(proto.name),
        status=status,
        status_message=_storable(proto.status.message) if status == "ERROR" else "",  # OpenTelemetry drops the others
        start_time_ns=_ns(proto.start_time_unix_nano),
        end_time_ns=_ns(proto.end_time_unix_nano) or None,
        attributes=attributes,
        events=events,
        links=[
            {
                "trace_id": f"tr-{link.trace_id.hex()}",
                "span_id": link.span_id.hex(),
                "attributes": _attributes(link.attributes),
            }
            for link in proto.links
            if len(link.trace_id) == 16 and len(link.span_id) == 8
        ],
        resource=resource,
    )


def _id(value: bytes, length: int, name: str) -> str:
    if len(value) != length or not any(value):
        raise InvalidParameter(
            f"Cannot convert OpenTelemetry span to MLflow span: {name} has {length} bytes, not all 0."
        )
    return value.hex()


def _ns(value: int) -> int:
    if value > INT64_MAX:
        raise InvalidParameter("Cannot convert OpenTelemetry span to MLflow span: a time is out of range.")
    return value


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    return {_storable(pair.key): json.dumps(_decoded(pair.value), ensure_ascii=False) for pair in pairs}


def _unwrapped(text: str) -> str:
    """MLflow's own client sends values as JSON text: a text that holds the JSON of a text, list or map is one."""
    if not text.startswith('"'):
        return text
    inner: str = json.loads(text)
    try:
        value = json.loads(inner)
    except (ValueError, RecursionError):
        return text
    return inner if isinstance(value, str | list | dict) and _is_shallow(value, MAX_NESTING) else text


def _is_shallow(value: Any, levels: int) -> bool:
    match value:
        case list() | dict() if not levels:
            return False
        case list():
            return all(_is_shallow(item, levels - 1) for item in value)
        case dict():
            return all(_is_shallow(item, levels - 1) for item in value.values())
    return True


def _resource(pairs: Iterable[KeyValue]) -> dict[str, str]:
    """What a process says of itself, as tags have it."""
    found = {}
    for pair in pairs:
        value = _decoded(pair.value)
        found[_storable(pair.key)] = _storable(value if isinstance(value, str) else json.dumps(value))
    return found


def _decoded(value: AnyValue) -> Any:
    """What JSON can say; bytes as Python shows them, which is what MLflow keeps."""
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_decoded(item) for item in value.array_value.values]
        case "kvlist_value":
            return {item.key: _decoded(item.value) for item in value.kvlist_value.values}
        case "bytes_value":
            return str(value.bytes_value)
        case name:
            return getattr(value, name)


def _storable(text: str) -> str:
    """Postgres keeps no NUL; a span is not worth losing for one."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")

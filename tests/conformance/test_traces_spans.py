"""Spans: OpenTelemetry's export, and traces with their spans, as MLflow answers them."""

import gzip
import json
import zlib
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conformance.compare import Both, Deviation
from tests.conformance.traces import BASE_NS, V3, export, info, new_id, pairs, span

HEADERS = {"x-mlflow-experiment-id": "{experiment}", "content-type": "application/json"}
PLAIN = "MLflow answers as FastAPI does, without an error_code"


@pytest.fixture
def trace(both: Both) -> str:
    """A new experiment, and an id bound to {trace}."""
    both.new_experiment()
    both.name("trace", new_id())
    return both.ours.bound["trace"]


def read(both: Both) -> None:
    """The trace in every way it can be read."""
    both.call("GET", f"{V3}/{{trace}}")
    both.call("GET", f"{V3}/get", params={"trace_id": "{trace}", "allow_partial": "true"})
    both.call("GET", f"{V3}/batchGet", params={"trace_ids": ["{trace}", "nope"]})
    for version in ("2.0", "3.0"):
        both.call("GET", f"/ajax-api/{version}/mlflow/get-trace-artifact", params={"request_id": "{trace}"})


def test_spans_make_their_trace(both: Both, trace: str) -> None:
    root = span(
        trace, 1, attributes={"mlflow.spanInputs": {"q": "hé?"}, "mlflow.spanOutputs": "a!", "mlflow.spanType": "CHAIN"}
    )
    child = span(trace, 2, 1, start_ms=100, end_ms=200, status={"code": "STATUS_CODE_ERROR", "message": "broke"})
    export(both, child)
    read(both)
    export(both, root, span(trace, 3, 2, start_ms=50, end_ms=3000, status={}))
    read(both)


def test_every_kind_of_value_survives(both: Both, trace: str) -> None:
    attributes = {
        "text": 'quotes " and \\ and é', "truth": False, "whole": -5, "half": 0.5, "list": [1, "a", [True]],
        "map": {"a": {"b": [0.25]}}, "empty list": [], "empty map": {}, "nothing": None, "large": 2**62,
        "json": '{"a": 1}', "spaced key": "x",
    }  # fmt: skip
    event = {"name": "happened", "timeUnixNano": str(BASE_NS + 5), "attributes": pairs({"i": 1, "l": ["x"], "t": "u"})}
    export(both, span(trace, attributes=attributes, events=[event, {"name": "bare"}]))
    read(both)


def test_links_survive_a_protobuf_export(both: Both, trace: str) -> None:
    request = ExportTraceServiceRequest()
    proto = request.resource_spans.add().scope_spans.add().spans.add()
    proto.trace_id, proto.span_id, proto.name = bytes.fromhex(trace.removeprefix("tr-")), b"\1" * 8, "linked"
    proto.start_time_unix_nano, proto.end_time_unix_nano = BASE_NS, BASE_NS + 1
    link = proto.links.add(trace_id=b"\2" * 16, span_id=b"\3" * 8)
    link.attributes.add(key="k").value.int_value = 7
    proto.links.add(trace_id=b"\4" * 16, span_id=b"\5" * 8)
    headers = HEADERS | {"content-type": "application/x-protobuf"}
    both.call("POST", "/v1/traces", content=request.SerializeToString(), headers=headers)
    read(both)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_an_export_may_be_packed(both: Both, trace: str, encoding: str, pack: Any) -> None:
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span(trace)]}]}]}
    headers = HEADERS | {"content-encoding": encoding}
    both.call("POST", "/v1/traces", content=pack(json.dumps(body).encode()), headers=headers)
    read(both)


def test_a_span_sent_again_is_replaced(both: Both, trace: str) -> None:
    export(both, span(trace, name="before", attributes={"a": 1}), span(trace, 2, 1))
    export(both, span(trace, name="after", attributes={"b": 2}))
    read(both)


def test_spans_of_several_traces_travel_together(both: Both, trace: str) -> None:
    other = new_id()
    both.name("other", other)
    export(both, span(trace), span(other), span(trace, 2, 1), resource={"service.name": "svc", "number": 5})
    read(both)
    both.call("GET", f"{V3}/{{other}}")
    both.call("GET", f"{V3}/batchGet", params={"trace_ids": ["{other}", "{trace}", "nope"]})
    both.call("GET", f"{V3}/batchGet", params={"trace_ids": ["{other}"], "experiment_ids": ["0"]})


def test_resource_and_root_give_the_trace_its_tags(both: Both, trace: str) -> None:
    resource = {"service.name": "codex_vscode", "telemetry.sdk.name": "x", "mlflow.x": "y", "bad\nname": "z", "n": 1}
    attributes = {
        "mlflow.traceTag.own": "1",
        "mlflow.traceTag.service.name": "mine",
        "mlflow.traceTag.mlflow.traceName": "n",
    }
    export(both, span(trace, attributes=attributes), resource=resource)
    read(both)


USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
COST = {"input_cost": 0.25, "output_cost": 0.5, "total_cost": 0.75}


def test_tokens_and_costs_are_added_up_without_counting_twice(both: Both, trace: str) -> None:
    figures = {"mlflow.chat.tokenUsage": USAGE, "mlflow.llm.cost": COST}
    cached = {"mlflow.chat.tokenUsage": USAGE | {"cache_read_input_tokens": 3}}
    export(both, span(trace, 2, 1, attributes=figures), span(trace, 3, 2, attributes=figures))
    both.call("GET", f"{V3}/{{trace}}")
    export(both, span(trace, 4, 1, attributes=cached), span(trace, 5, 1, attributes={"mlflow.chat.tokenUsage": "odd"}))
    both.call("GET", f"{V3}/{{trace}}")
    export(both, span(trace, 1, attributes={"mlflow.chat.tokenUsage": {"input_tokens": 99}}))
    both.call("GET", f"{V3}/{{trace}}")


def test_what_start_trace_says_is_not_overruled_by_spans(both: Both, trace: str) -> None:
    fields = {
        "trace_metadata": {"mlflow.trace.tokenUsage": '{"input_tokens": 1}', "mlflow.trace.session": "first"},
        "request_preview": "mine", "request_time": "2024-01-01T00:00:00Z", "execution_duration": "1s",
    }  # fmt: skip
    both.call("POST", V3, json=info("{trace}", **fields))
    attributes = {"mlflow.chat.tokenUsage": USAGE, "mlflow.llm.cost": COST, "session.id": "second", "user.id": "me"}
    export(both, span(trace, attributes=attributes | {"mlflow.spanInputs": "theirs", "mlflow.spanOutputs": "out"}))
    read(both)


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6},
        {"gen_ai.input.messages": '[{"role": "user", "content": "q"}]', "gen_ai.output.messages": "[]"},
        {"gen_ai.usage.input_tokens": "7", "gen_ai.usage.cache_creation.input_tokens": 2},
        {"gen_ai.provider.name": "some", "gen_ai.tool.definitions": '[{"name": "t"}]'},
        {"openinference.span.kind": "RETRIEVER", "input.value": "in", "output.value": {"x": 1}},
        {"llm.token_count.prompt": 1, "llm.token_count.completion": 2, "llm.token_count.total": 9},
        {"mlflow.spanType": "UNKNOWN", "openinference.span.kind": "AGENT"},
        {"mlflow.spanType": "TOOL", "openinference.span.kind": "AGENT"},
        {"gen_ai.conversation.id": "talk", "user.id": 5},
        {"mlflow.spanInputs": {"model": "own"}},
        {"mlflow.spanOutputs": {"model": ["odd"]}},
    ],
)
def test_other_conventions_are_understood(both: Both, trace: str, attributes: dict[str, Any]) -> None:
    export(both, span(trace, attributes=attributes))
    read(both)


@pytest.mark.parametrize(
    "inputs",
    [
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "the question"}]},
        {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "in parts"}]}]},
        {"choices": [{"message": {"role": "assistant", "content": "chosen"}}]},
        {"request": {"input": [{"role": "user", "content": "responses"}]}},
        {"input": "plain"},
        "x" * 3000,
        5,
    ],
)
def test_previews_show_the_last_message(both: Both, trace: str, inputs: Any) -> None:
    export(both, span(trace, attributes={"mlflow.spanInputs": inputs, "mlflow.spanOutputs": inputs}))
    both.call("GET", f"{V3}/{{trace}}")


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {"content-type": "application/x-protobuf"}),
        (b"zzz", {"content-type": "application/x-protobuf"}),
        (b"{}", {"content-type": "text/plain"}),
        (b"{}", {}),
        (b"{", {}),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}', {}),
        (b"{", {"content-encoding": "br"}),
        (b"{", {"content-encoding": "gzip"}),
        (b"{", {"content-encoding": "deflate"}),
    ],
)
def test_what_is_no_export_is_refused(both: Both, trace: str, content: bytes, headers: dict[str, str]) -> None:
    plain = Deviation((400, None), (400, "INVALID_PARAMETER_VALUE"), why=PLAIN)
    both.call("POST", "/v1/traces", content=content, headers=HEADERS | headers, deviation=plain)


def test_an_export_without_an_experiment_is_refused(both: Both, trace: str) -> None:
    both.name("nowhere", "987654321")
    export(both, span(trace), headers={"x-mlflow-experiment-id": "{nowhere}"}, message=True)
    export(both, span(trace), headers={"x-mlflow-experiment-id": "abc"}, message=True)
    plain = Deviation((422, None), (400, "INVALID_PARAMETER_VALUE"), why=PLAIN)
    both.call("POST", "/v1/traces", content=b"{}", headers={"content-type": "application/json"}, deviation=plain)
    both.call("GET", f"{V3}/{{trace}}", message=True)


@pytest.mark.parametrize("fields", [{"spanId": ""}, {"traceId": ""}])
def test_a_span_without_ids_is_refused(both: Both, trace: str, fields: dict[str, str]) -> None:
    plain = Deviation((422, None), (400, "INVALID_PARAMETER_VALUE"), why=PLAIN)
    export(both, span(trace, **fields), deviation=plain)


def test_a_run_named_in_the_header_gets_the_traces(both: Both, trace: str) -> None:
    both.new_run()
    export(both, span(trace), headers={"x-mlflow-run-id": "{run}"})
    body = {"locations": [info("x")["trace"]["trace_info"]["trace_location"]], "filter": "run_id = '{run}'"}
    assert both.call("POST", f"{V3}/search", json=body).body["traces"]


def test_a_trace_whose_spans_are_not_all_here_is_not_given_out_as_whole(both: Both, trace: str) -> None:
    export(both, span(trace))
    told = {"request_time": "2025-01-01T00:00:00Z", "execution_duration": "1s"}  # as the spans tell
    stats = {"mlflow.trace.sizeStats": '{"num_spans": 2}'}
    both.call("POST", V3, json=info("{trace}", trace_metadata=stats, **told))
    both.call("GET", f"{V3}/get", params={"trace_id": "{trace}"}, message=True)
    read(both)
    export(both, span(trace, 2, 1))
    both.call("GET", f"{V3}/get", params={"trace_id": "{trace}"})


def test_a_trace_without_spans_here_is_looked_for_among_its_files(both: Both, trace: str) -> None:
    both.call("POST", V3, json=info("{trace}"))
    artifact = "/ajax-api/3.0/mlflow/get-trace-artifact"
    nothing = Deviation((404, "NOT_FOUND"), (404, "RESOURCE_DOES_NOT_EXIST"), why="one code for what is not there")
    both.call("GET", artifact, params={"request_id": "{trace}"}, deviation=nothing)
    path = "/api/2.0/mlflow-artifacts/artifacts/{experiment}/traces/{trace}/artifacts/"
    both.call("PUT", path + "traces.json", content=b'{"spans": []}')
    both.call("GET", artifact, params={"request_id": "{trace}"})
    both.call("PUT", path + "attachments/0fe2a1a8-7d0c-4f3c-9a8e-000000000001", content=b"bytes")
    both.call("GET", artifact, params={"request_id": "{trace}", "path": "0fe2a1a8-7d0c-4f3c-9a8e-000000000001"})
    broken = Deviation((500, "INTERNAL_ERROR"), (400, "INVALID_STATE"), why="a client asked for it")
    both.call("GET", f"{V3}/get", params={"trace_id": "{trace}"}, deviation=broken)


def test_a_file_of_a_trace_that_cannot_be_given_is_refused(both: Both, trace: str) -> None:
    artifact = "/ajax-api/3.0/mlflow/get-trace-artifact"
    both.call("POST", V3, json=info("{trace}"))
    both.call("GET", artifact, message=True)
    both.call("GET", artifact, params={"request_id": "nope"})
    for path in ("x", "../x", "..", "a/b"):
        both.call("GET", artifact, params={"request_id": "{trace}", "path": path})

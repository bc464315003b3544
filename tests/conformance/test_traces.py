"""Traces: start, read, tags, links, deletion, and the endpoints of MLflow 2, as MLflow answers them."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation
from tests.conformance.traces import V3, export, info, new_id, search, span, start

REFUSED = (400, "INVALID_PARAMETER_VALUE")


@pytest.fixture
def traced(both: Both) -> Both:
    """Both servers with an {experiment} and a {trace}."""
    both.new_experiment()
    start(
        both,
        execution_duration="1.5s",
        tags={"a": "b", "mlflow.traceName": "name"},
        trace_metadata={"m": "x", "mlflow.trace.session": "s", "mlflow.trace.tokenUsage": '{"input_tokens": 1}'},
        client_request_id="client",
        request_preview="question",
        response_preview="answer",
    )
    return both


def test_a_started_trace_is_read_back_as_it_was_described(traced: Both) -> None:
    traced.call("GET", f"{V3}/{{trace}}")
    traced.call("POST", f"{V3}/batchGetInfos", json={"trace_ids": ["{trace}", "nope", "{trace}"]})
    traced.call("POST", f"{V3}/batchGetInfos", json={"trace_ids": ["{trace}"], "experiment_ids": ["0"]})
    traced.call("POST", f"{V3}/batchGetInfos", json={"trace_ids": []})
    traced.call("GET", "traces/{trace}/info")


def test_starting_a_trace_again_completes_it(traced: Both) -> None:
    traced.call("POST", V3, json=info("{trace}", state="ERROR", tags={"a": "c"}, trace_metadata={"n": "y"}))
    traced.call("POST", V3, json=info("{trace}", trace_metadata={"mlflow.trace.cost": '{"total_cost": 0.5}'}))
    traced.call("GET", f"{V3}/{{trace}}")


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "IN_PROGRESS"},
        {"request_time": "2025-01-01T00:00:00Z", "execution_duration": "0s"},
        {"request_time": "2025-01-01T02:00:00.5+02:00", "execution_duration": "-0.25s"},
        {"trace_metadata": {"long": "x" * 300, "mlflow.trace.tokenUsage": "{}", "mlflow.trace.cost": "nonsense"}},
        {"tags": {"long": "x" * 5000, "k" * 260: "v"}},
        {"trace_metadata": {"mlflow.trace.tokenUsage": '{"input_tokens": 1.5, "output_tokens": "2", "x": 1}'}},
    ],
)
def test_what_a_trace_says_of_itself_is_kept(both: Both, fields: dict[str, Any]) -> None:
    both.new_experiment()
    start(both, **fields)
    both.call("GET", f"{V3}/{{trace}}")


def test_a_trace_that_cannot_be_started_is_refused(both: Both) -> None:
    both.new_experiment()
    both.call("POST", V3, json={}, message=True)
    both.call("POST", V3, json=info(new_id(), experiment="987654321"), message=True)
    both.call("POST", V3, json=info(new_id(), trace_metadata={"mlflow.trace.session": "s" * 251}))
    both.call("POST", V3, json=info(new_id(), tags={"mlflow.traceName": "n" * 4097}))
    both.call("POST", "experiments/delete", json={"experiment_id": "{experiment}"})
    both.call("POST", V3, json=info(new_id()))


@pytest.mark.parametrize("trace_id", ["../x", "a/b", "", "x" * 51, ".hidden"])
def test_an_id_that_could_be_a_path_is_refused(both: Both, trace_id: str) -> None:
    both.new_experiment()
    taken = Deviation((200, None), REFUSED, why="ids go into paths of the artifact store (CVE-2026-53995)")
    both.call("POST", V3, json=info(trace_id), deviation=taken)


@pytest.mark.parametrize("fields", [{"state": "NOPE"}, {"request_time": "yesterday"}, {"execution_duration": "long"}])
def test_nonsense_is_refused_rather_than_half_read(both: Both, fields: dict[str, Any]) -> None:
    both.new_experiment()
    half_read = Deviation(
        (200, None), REFUSED, why="MLflow keeps what came before the nonsense and drops the rest", everywhere=True
    )
    both.call("POST", V3, json=info(new_id(), **fields), deviation=half_read)


def test_a_trace_that_is_not_there(both: Both) -> None:
    for path in (f"{V3}/nope", "traces/nope/info"):
        both.call("GET", path, message=True)
    both.call("GET", f"{V3}/get", params={"trace_id": "nope"}, message=True)
    both.call("GET", f"{V3}/get", message=True)
    both.call("GET", f"{V3}/get", params={"trace_id": "nope", "allow_partial": "maybe"})
    both.call("GET", f"{V3}/batchGet", message=True)
    both.call("GET", f"{V3}/batchGet", params={"trace_ids": "nope"})
    both.call("PATCH", "traces/nope", json={"timestamp_ms": 1, "status": "OK"}, message=True)
    both.call("DELETE", f"{V3}/nope/tags", json={"key": "k"}, message=True)
    no_trace = Deviation((400, "BAD_REQUEST"), (404, "RESOURCE_DOES_NOT_EXIST"), why="MLflow shows a database error")
    both.call("PATCH", f"{V3}/nope/tags", json={"key": "k", "value": "v"}, deviation=no_trace)


def test_tags_are_set_overwritten_and_deleted(traced: Both) -> None:
    for prefix in (V3, "traces"):
        traced.call("PATCH", f"{prefix}/{{trace}}/tags", json={"key": "k", "value": prefix})
        traced.call("GET", f"{V3}/{{trace}}")
        traced.call("PATCH", f"{prefix}/{{trace}}/tags", json={"key": "mlflow.traceName", "value": "other"})
        traced.call("PATCH", f"{prefix}/{{trace}}/tags", json={"key": "empty"})
        traced.call("PATCH", f"{prefix}/{{trace}}/tags", json={"key": "long", "value": "x" * 9000})
        traced.call("GET", f"{V3}/{{trace}}")
        for key in ("k", "k", "mlflow.traceName", "mlflow.traceName", "long"):
            traced.call("DELETE", f"{prefix}/{{trace}}/tags", json={"key": key}, message=True)
        traced.call("GET", f"{V3}/{{trace}}")


@pytest.mark.parametrize(
    "body",
    [
        {"value": "v"},
        {"key": "", "value": "v"},
        {"key": "x" * 251, "value": "v"},
        {"key": "a/../b", "value": "v"},
        {"key": "mlflow.trace.spansLocation", "value": "v"},
        {"key": "mlflow.trace.archiveLocation", "value": "v"},
        {"key": "mlflow.traceName", "value": "n" * 4097},
    ],
)
def test_a_tag_that_cannot_be_set_is_refused(traced: Both, body: dict[str, str]) -> None:
    traced.call("PATCH", f"{V3}/{{trace}}/tags", json=body)
    traced.call("GET", f"{V3}/{{trace}}")


def test_system_tags_cannot_be_deleted(traced: Both) -> None:
    traced.call("DELETE", f"{V3}/{{trace}}/tags", json={"key": "mlflow.trace.spansLocation"}, message=True)
    traced.call("DELETE", f"{V3}/{{trace}}/tags", json={"key": "mlflow.trace.archivalFailure"}, message=True)
    traced.call("DELETE", f"{V3}/{{trace}}/tags")


@pytest.mark.parametrize("prefix", [V3, "traces"])
def test_traces_are_deleted_by_id_or_by_age(both: Both, prefix: str) -> None:
    both.new_experiment()
    for day in range(1, 5):
        start(both, f"t{day}", request_time=f"2025-01-0{day}T00:00:00Z")
    export(both, span(new_id()))
    asked: list[dict[str, Any]] = [
        {"request_ids": ["{t1}", "nope"]},
        {"max_timestamp_millis": 1_735_862_400_000, "max_traces": 1},
        {"max_timestamp_millis": 1},
        {"max_timestamp_millis": "9999999999999"},
    ]
    for body in asked:
        both.call("POST", f"{prefix}/delete-traces", json={"experiment_id": "{experiment}"} | body)
        search(both)
    both.call("GET", f"{V3}/{{t4}}")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"experiment_id": "0"},
        {"experiment_id": "0", "max_traces": 1},
        {"experiment_id": "0", "max_traces": 0, "max_timestamp_millis": 1},
        {"experiment_id": "0", "request_ids": ["x"], "max_traces": 1},
        {"experiment_id": "0", "request_ids": ["x"], "max_timestamp_millis": 1},
        {"experiment_id": "zero", "request_ids": ["x"]},
    ],
)
def test_a_deletion_that_is_not_clear_is_refused(both: Both, body: dict[str, Any]) -> None:
    both.call("POST", f"{V3}/delete-traces", json=body, message=True)


def test_traces_linked_to_a_run_are_found_by_it(traced: Both) -> None:
    traced.new_run()
    start(traced, "made", trace_metadata={"mlflow.sourceRun": "{run}"})
    body = {"trace_ids": ["{trace}", "not-there-yet"], "run_id": "{run}"}
    for _ in range(2):
        traced.call("POST", "traces/link-to-run", json=body)
    assert set(search(traced, "run_id = '{run}'")) == {traced.ours.bound["trace"], traced.ours.bound["made"]}
    traced.call("POST", "traces/link-to-run", json={"trace_ids": [], "run_id": "{run}"})
    traced.call("POST", "traces/link-to-run", json={"trace_ids": ["{trace}"]}, message=True)
    traced.call("POST", "traces/link-to-run", json={"run_id": "{run}"}, message=True)
    traced.call("POST", "traces/link-to-run", json={"trace_ids": ["q"] * 101, "run_id": "{run}"}, message=True)


def test_traces_linked_to_a_prompt_are_found_by_it(traced: Both) -> None:
    body = {"trace_id": "{trace}", "prompt_versions": [{"name": "p", "version": "1"}, {"name": "q", "version": "02"}]}
    for _ in range(2):
        traced.call("POST", "traces/link-prompts", json=body)
    assert search(traced, "prompt = 'p/1'")
    assert search(traced, "prompt = 'q/2'")
    assert not search(traced, "prompt = 'p/2'")
    traced.call("POST", "traces/link-prompts", json=body | {"trace_id": "nope"}, message=True)
    traced.call("POST", "traces/link-prompts", json={"trace_id": "{trace}"}, message=True)
    broken = Deviation((500, None), REFUSED, why="MLflow fails at a version that is no number")
    body["prompt_versions"] = [{"name": "p", "version": "x"}]
    traced.call("POST", "traces/link-prompts", json=body, deviation=broken)


def test_a_client_before_mlflow_3_starts_and_ends_a_trace(both: Both) -> None:
    both.new_experiment()
    begin = {
        "experiment_id": "{experiment}",
        "timestamp_ms": 5,
        "request_metadata": [{"key": "a", "value": "b"}],
        "tags": [{"key": "t", "value": "u"}, {"key": "mlflow.traceName", "value": "n"}],
    }
    both.call("POST", "traces", json=begin)
    both.bind("trace", "trace_info.request_id")
    finish = {
        "timestamp_ms": "15",
        "status": "ERROR",
        "request_metadata": [{"key": "a", "value": "c"}, {"key": "mlflow.trace.session", "value": "s"}],
        "tags": [{"key": "v", "value": "w"}],
    }
    both.call("PATCH", "traces/{trace}", json=finish)
    both.call("GET", f"{V3}/{{trace}}")
    both.call("GET", "traces", params={"experiment_ids": "{experiment}", "filter": "status = 'ERROR'"})
    both.call("GET", "traces", params={"experiment_ids": "{experiment}", "filter": "status = 'OK'"})
    both.call("GET", "traces", message=True)
    both.call("GET", "traces", params={"experiment_ids": "{experiment}", "max_results": 501})
    both.call("POST", "traces", json=begin | {"tags": [{"value": "x"}]})
    both.call("POST", "traces", json=begin | {"experiment_id": "987654321"}, message=True)
    unclear = Deviation((500, "INTERNAL_ERROR"), REFUSED, why="MLflow fails at a status that is none")
    both.call("PATCH", "traces/{trace}", json=finish | {"status": "NOPE"}, deviation=unclear)

"""The search of traces: filters, order and pages, as MLflow answers them."""

from typing import Any

import httpx
import pytest

from tests.conformance.compare import Both, Deviation
from tests.conformance.traces import V3, export, new_id, search, span, start

REFUSED = (400, "INVALID_PARAMETER_VALUE")


@pytest.fixture(scope="session")
def _names() -> dict[str, str]:
    """What the first test of this module bound, for the others."""
    return {}


@pytest.fixture
def searched(both: Both, _names: dict[str, Any]) -> Both:
    """Both servers with an {experiment} of traces, made once."""
    if not _names:
        make(both)
        _names |= {side.name: dict(side.bound) for side in both.sides}
    for side in both.sides:
        side.bound.update(_names[side.name])
    return both


def make(both: Both) -> None:
    both.new_experiment()
    both.new_run()
    a = {"tags": {"t": "one", "mlflow.traceName": "alpha", "spaced key": "x"}, "trace_metadata": {"m": "x"}}
    b = {"tags": {"t": "Two", "mlflow.traceName": "beta"}, "trace_metadata": {"m": "y", "mlflow.trace.session": "s"}}
    start(both, "a", request_time="2025-01-01T00:00:01Z", execution_duration="2s", client_request_id="c1", **a)
    start(both, "b", request_time="2025-01-01T00:00:02Z", state="ERROR", **b)
    c = {"mlflow.sourceRun": "{run}", "mlflow.trace.session": "s", "mlflow.trace.cost": '{"total_cost": 1}'}
    start(both, "c", request_time="2025-01-01T00:00:03Z", state="IN_PROGRESS", trace_metadata=c)
    start(both, "d", request_time="2025-01-01T00:00:03Z", execution_duration="0.5s")
    both.name("e", new_id())
    e = both.ours.bound["e"]
    status, leaf = {"code": "STATUS_CODE_ERROR"}, {"k": "two", "mlflow.spanType": "LLM"}
    export(
        both,
        span(e, 1, name="root", start_ms=4000, end_ms=5000, attributes={"mlflow.spanType": "CHAIN", "k": "one"}),
        span(e, 2, 1, name="leaf", start_ms=4000, end_ms=4500, status=status, attributes=leaf),
    )  # fmt: skip
    for second, (trace, name, said) in enumerate(
        (
            ("a", "q", {"feedback": {"value": 0.5}}),
            ("a", "q", {"feedback": {"value": "yes"}}),
            ("b", "q", {"feedback": {"value": True}, "metadata": {"mlflow.trace.session": "s"}}),
            ("d", "q", {"expectation": {"value": "yes"}}),
            ("e", "q", {"feedback": {"value": 3}}),
            ("e", "i-1", {"issue": {"issue_name": "an issue"}}),
        )
    ):
        times = dict.fromkeys(("create_time", "last_update_time"), f"2025-01-01T00:00:0{second}Z")
        both.call(
            "POST", f"{V3}/{{{trace}}}/assessments", json={"assessment": {"assessment_name": name} | times | said}
        )


FILTERS = [
    "", "status = 'OK'", "status != 'OK'", "attributes.status IN ('OK', 'ERROR')", "trace.status NOT IN ('OK')",
    "status LIKE 'E%'", "status RLIKE '^(OK|ERR)'", "status = 'ok'", "timestamp > 1735689602000",
    "timestamp_ms >= 1735689602000 AND timestamp <= 1735689603000", "trace.timestamp_ms = 1735689602000",
    "execution_time > 500", "execution_time_ms != 500", "end_time >= 1735689603000",
    "trace.timestamp > 1735689602000.5",
    "request_id = '{a}'", "request_id IN ('{a}', '{b}')", "client_request_id = 'c1'", "client_request_id LIKE 'c%'",
    "name = 'alpha'", "name != 'alpha'", "name LIKE '%a'", "name ILIKE 'ALPHA'", "name RLIKE 'ph'", "name IS NULL",
    "name IS NOT NULL", "trace.name = 'beta'", "tags.`mlflow.traceName` = 'beta'", "tags.t = 'one'", "tag.t != 'one'",
    "tags.t ILIKE 'two'", "tags.t LIKE 'two'", "tags.t IS NULL", "tags.t IS NOT NULL", "tags.`spaced key` = 'x'",
    "tags.t RLIKE '^[A-Z]'", "metadata.m = 'x'", "request_metadata.m != 'x'", "metadata.m IS NULL",
    "metadata.`mlflow.trace.session` = 's'", "metadata.mlflow.trace.session IS NULL",
    "metadata.`mlflow.trace.cost` IS NOT NULL", "metadata.`mlflow.trace.cost` IS NULL", "run_id = '{run}'",
    "metadata.`mlflow.sourceRun` = '{run}'", "run_id = 'none'", "run_id != 'none'", "prompt = 'p/1'",
    "span.name = 'root'", "span.name LIKE 'l%'", "span.type = 'LLM'", "span.type IN ('LLM', 'CHAIN')",
    "span.status = 'ERROR'", "span.name = 'root' AND span.type = 'LLM'", "span.name = 'leaf' AND span.type = 'LLM'",
    "span.attributes.k LIKE '%two%'", "span.attributes.k ILIKE '%TWO%'", "span.attributes.none LIKE '%two%'",
    "trace.text LIKE '%leaf%'", "trace.text ILIKE '%LEAF%'", "trace.text LIKE '%nowhere%'", "span.content LIKE '%two%'",
    "feedback.q = '0.5'", "feedback.q = 'yes'", "feedback.q = 'true'", "feedback.q != 'yes'", "feedback.q > 0.4",
    "feedback.q <= 0.5", "feedback.q >= 3 AND status = 'OK'", "feedback.q LIKE '%e%'", "feedback.q IS NULL",
    "feedback.q IS NOT NULL", "expectation.q = 'yes'", "expectation.q IS NULL", "feedback.none IS NOT NULL",
    "issue.id = 'i-1'", "issue.id = 'none'", "status = 'OK' AND name = 'alpha' AND tags.t = 'one'",
    "status = 'OK' status = 'OK'",
]  # fmt: skip


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_finds_what_mlflow_finds(searched: Both, text: str) -> None:
    search(searched, text)


@pytest.mark.parametrize(
    "text",
    [
        "nope = 'x'", "experiment_id = '0'", "foo.x = 'y'", "status > 'a'", "status IS NULL", "status = 5",
        "execution_time IN ('1')", "name IN ('a')", "tags.t IN ('c')", "metadata.m IN ('x')",
        "run_id IN ('x')", "prompt LIKE 'p'", "prompt = 'p'", "span.nope = 'x'", "span.name > 'x'",
        "span.content = 'x'",
        "feedback.q = 1", "feedback.q > 'x'", "issue.id != 'x'", "issue.nope = 'x'", "name = 'a' OR name = 'b'",
        "Status = 'OK'", "trace.tags.a = 'c'", "name =", "'a' = name", "status = 'OK", "span.attributes. = 'x'",
    ],
)  # fmt: skip
def test_a_filter_that_mlflow_refuses_is_refused(searched: Both, text: str) -> None:
    search(searched, text)


ORDERS = [
    [], ["timestamp"], ["timestamp_ms DESC"], ["status", "timestamp ASC"], ["name"], ["name DESC"], ["tags.t"],
    ["metadata.m DESC"], ["run_id"], ["execution_time"], ["execution_time_ms DESC"], ["request_id"], ["experiment_id"],
    ["metadata.`mlflow.trace.session`"], ["nope"], ["span.name"], ["feedback.q"], ["metadata.`mlflow.trace.cost`"],
    ["text"], ["NAME"], ["name ASC, status"],
]  # fmt: skip


@pytest.mark.parametrize("order_by", ORDERS, ids=str)
def test_an_order_is_mlflows(searched: Both, order_by: list[str]) -> None:
    search(searched, order_by=order_by)


def test_an_order_that_breaks_mlflow_is_served_or_refused(searched: Both) -> None:
    fails = "MLflow fails with a server error"
    body = {"locations": [{"mlflow_experiment": {"experiment_id": "{experiment}"}}], "order_by": ["end_time DESC"]}
    answer = searched.call(
        "POST", f"{V3}/search", json=body, deviation=Deviation((500, "INTERNAL_ERROR"), (200, None), why=fails)
    )
    names = {trace_id: name for name, trace_id in searched.ours.bound.items()}
    assert [names[trace["trace_id"]] for trace in answer.body["traces"]] == ["e", "d", "c", "a", "b"]
    body["order_by"] = ["name", "name DESC"]
    searched.call("POST", f"{V3}/search", json=body, deviation=Deviation((500, "INTERNAL_ERROR"), REFUSED, why=fails))


@pytest.mark.parametrize("order_by", [[], ["name"], ["execution_time DESC"], ["tags.t", "status"]], ids=str)
def test_pages_give_every_trace_once(searched: Both, order_by: list[str]) -> None:
    def pages(url: str) -> list[str]:
        side = next(side for side in searched.sides if side.url == url)
        location = {"mlflow_experiment": {"experiment_id": side.bound["experiment"]}}
        body = {"locations": [location], "max_results": 2, "order_by": order_by}
        found: list[str] = []
        while True:
            page = httpx.post(f"{url}{V3}/search", json=body, trust_env=False).json()
            found += [trace["trace_id"] for trace in page.get("traces", [])]
            if "next_page_token" not in page:
                return found
            body["page_token"] = page["next_page_token"]

    assert len(searched.each(pages)) == 5


def test_the_limits_of_a_search(searched: Both) -> None:
    location = {"mlflow_experiment": {"experiment_id": "{experiment}"}}
    for body in (
        {},
        {"locations": []},
        {"locations": [location], "max_results": 501},
        {"locations": [location], "max_results": 0},
        {"locations": [location], "page_token": "nonsense"},
        {"locations": [{"mlflow_experiment": {"experiment_id": "987654321"}}]},
        {"locations": [location], "filter": ""},
    ):
        searched.call("POST", f"{V3}/search", json=body)
    fails = Deviation((500, "INTERNAL_ERROR"), REFUSED, why="MLflow fails at an experiment id that is no number")
    searched.call(
        "POST", f"{V3}/search", json={"locations": [{"mlflow_experiment": {"experiment_id": "abc"}}]}, deviation=fails
    )

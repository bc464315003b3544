"""Figures over traces, as MLflow's UI asks for them."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation
from tests.conformance.traces import V3, export, new_id, span, start

REFUSED = (400, "INVALID_PARAMETER_VALUE")


@pytest.fixture(scope="session")
def _bound() -> dict[str, Any]:
    return {}


@pytest.fixture
def charted(both: Both, _bound: dict[str, Any]) -> Both:
    """Both servers with an {experiment} of traces, made once."""
    if not _bound:
        make(both)
        _bound |= {side.name: dict(side.bound) for side in both.sides}
    for side in both.sides:
        side.bound.update(_bound[side.name])
    return both


def make(both: Both) -> None:
    both.new_experiment()
    both.new_run()
    for day in range(1, 6):
        fields: dict[str, Any] = {
            "request_time": f"2025-01-0{day}T0{day}:00:00.500Z",
            "state": "ERROR" if day == 2 else "OK",
            "tags": {"mlflow.traceName": "even" if day % 2 == 0 else "odd", "day": str(day)},
            "trace_metadata": {"mlflow.trace.session": f"s{day // 2}", "n": "x"},
        }
        if day < 5:
            fields["execution_duration"] = f"{day}.25s"
            fields["trace_metadata"]["mlflow.trace.tokenUsage"] = (
                f'{{"input_tokens": {day}, "total_tokens": {day * 7}}}'
            )
        start(both, f"t{day}", **fields)
    first, second = new_id(), new_id()
    cost = {"mlflow.llm.cost": {"input_cost": 0.25, "output_cost": 0.5, "total_cost": 0.75}}
    model = {"mlflow.llm.model": "m", "mlflow.llm.provider": "p", "mlflow.spanType": "LLM"}
    export(both, span(first, 1, name="root"), span(first, 2, 1, end_ms=250, attributes=model | cost))
    day_ms = 86_400_000
    failed = {"code": "STATUS_CODE_ERROR"}
    late = span(second, 1, name="root", start_ms=day_ms, end_ms=day_ms + 40, status=failed, attributes=cost | model)
    export(both, late, headers={"x-mlflow-run-id": "{run}"})
    for day, value in ((1, 0.5), (2, 2), (3, "yes"), (4, "maybe")):
        body = {"assessment": {"assessment_name": f"q{day % 2}", "feedback": {"value": value}}}
        both.call("POST", f"{V3}/{{t{day}}}/assessments", json=body, body=False)


def ask(both: Both, view: str, metric: str, *aggregations: Any, **fields: Any) -> dict[str, Any]:
    wanted = [
        {"aggregation_type": "PERCENTILE", "percentile_value": a} if isinstance(a, float) else {"aggregation_type": a}
        for a in aggregations
    ]
    body = {"experiment_ids": ["{experiment}"], "view_type": view, "metric_name": metric, "aggregations": wanted}
    answer = both.call("POST", f"{V3}/metrics", json=body | fields)
    return dict(answer.body)


DAILY = {"time_interval_seconds": 86400, "start_time_ms": 1735603200000, "end_time_ms": 1736208000000}
RANGE = ("AVG", "MIN", "MAX", 50.0, 99.5)


@pytest.mark.parametrize(
    "more", [{}, DAILY, {"start_time_ms": 1735776000000}, {"end_time_ms": "1735776000000"}], ids=str
)
def test_figures_of_traces(charted: Both, more: dict[str, Any]) -> None:
    assert ask(charted, "TRACES", "trace_count", "COUNT", **more)
    ask(charted, "TRACES", "trace_count", "COUNT", dimensions=["trace_status"], **more)
    ask(charted, "TRACES", "trace_count", "COUNT", dimensions=["trace_name", "trace_status"], **more)
    ask(charted, "TRACES", "session_count", "COUNT", **more)
    ask(charted, "TRACES", "latency", *RANGE, **more)
    ask(charted, "TRACES", "latency", *RANGE, dimensions=["trace_name"], **more)
    for tokens in ("input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens"):
        ask(charted, "TRACES", tokens, "SUM", *RANGE, **more)


@pytest.mark.parametrize("more", [{}, DAILY], ids=str)
def test_figures_of_spans(charted: Both, more: dict[str, Any]) -> None:
    assert ask(charted, "SPANS", "span_count", "COUNT", **more)
    for dimension in ("span_name", "span_type", "span_status", "span_model_name", "span_model_provider"):
        ask(charted, "SPANS", "span_count", "COUNT", dimensions=[dimension], **more)
    ask(charted, "SPANS", "latency", *RANGE, dimensions=["span_name", "span_status"], **more)
    for cost in ("input_cost", "output_cost", "total_cost"):
        ask(charted, "SPANS", cost, "SUM", *RANGE, dimensions=["span_model_name"], **more)


@pytest.mark.parametrize("more", [{}, DAILY], ids=str)
def test_figures_of_assessments(charted: Both, more: dict[str, Any]) -> None:
    assert ask(charted, "ASSESSMENTS", "assessment_count", "COUNT", **more)
    ask(charted, "ASSESSMENTS", "assessment_count", "COUNT", dimensions=["assessment_name", "assessment_value"], **more)
    ask(charted, "ASSESSMENTS", "assessment_value", *RANGE, dimensions=["assessment_name"], **more)


@pytest.mark.parametrize(
    ("view", "metric", "text"),
    [
        ("TRACES", "trace_count", "trace.status = 'OK'"),
        ("TRACES", "trace_count", "trace.tag.day = '2'"),
        ("TRACES", "trace_count", "trace.tag.`mlflow.traceName` = 'odd'"),
        ("TRACES", "trace_count", "trace.metadata.n = 'x'"),
        ("TRACES", "trace_count", "trace.metadata.`mlflow.trace.session` = 's1'"),
        ("TRACES", "trace_count", "trace.metadata.`mlflow.sourceRun` = '{run}'"),
        ("SPANS", "span_count", "span.name = 'root'"),
        ("SPANS", "span_count", "span.status = 'ERROR'"),
        ("SPANS", "span_count", "span.type = 'LLM'"),
        ("SPANS", "span_count", "trace.status = 'ERROR'"),
        ("ASSESSMENTS", "assessment_count", "assessment.name = 'q1'"),
        ("ASSESSMENTS", "assessment_count", "assessment.type = 'feedback'"),
        ("ASSESSMENTS", "assessment_count", "trace.tag.day = '2'"),
        ("TRACES", "trace_count", "span.name = 'root'"),
        ("SPANS", "span_count", "assessment.name = 'q1'"),
        ("TRACES", "trace_count", "nope"),
        ("TRACES", "trace_count", "trace.nope = 'x'"),
        ("TRACES", "trace_count", "trace.tag = 'x'"),
        ("TRACES", "trace_count", "trace.status != 'OK'"),
        ("TRACES", "trace_count", "trace.status = 'OK' AND trace.status = 'OK'"),
    ],
)
def test_figures_of_a_part(charted: Both, view: str, metric: str, text: str) -> None:
    ask(charted, view, metric, "COUNT", filters=[text])
    ask(charted, view, metric, "COUNT", filters=[text, "trace.status = 'OK'"])


def test_what_cannot_be_asked_is_refused(charted: Both) -> None:
    ask(charted, "TRACES", "nope", "COUNT")
    ask(charted, "TRACES", "trace_count", "AVG")
    ask(charted, "TRACES", "session_count", "COUNT", dimensions=["trace_name"])
    ask(charted, "TRACES", "trace_count", "COUNT", time_interval_seconds=5)
    ask(charted, "TRACES", "trace_count", "COUNT", max_results=0)
    body = {"experiment_ids": ["{experiment}"], "metric_name": "trace_count", "view_type": "TRACES"}
    charted.call("POST", f"{V3}/metrics", json=body)
    fails = "MLflow fails with a server error"
    for aggregation in ({"aggregation_type": "PERCENTILE"}, {"aggregation_type": "COUNT", "percentile_value": 5}):
        asked = body | {"aggregations": [aggregation]}
        charted.call("POST", f"{V3}/metrics", json=asked, deviation=Deviation((500, None), REFUSED, why=fails))


@pytest.mark.parametrize(
    ("first", "second", "base"),
    [
        ("status = 'OK'", "tags.day = '2'", None),
        ("status = 'OK'", "name = 'odd'", None),
        ("status = 'OK'", "name = 'odd'", "timestamp > 1735776000000"),
        ("name = 'odd'", "name = 'odd'", None),
        ("timestamp > 1", "timestamp > 2", None),
        ("name = 'none'", "name = 'odd'", None),
        ("span.name = 'root'", "feedback.q1 = 'yes'", None),
        ("nope = 'x'", "name = 'odd'", None),
        ("", "name = 'odd'", None),
    ],
)
def test_how_much_two_filters_agree(charted: Both, first: str, second: str, base: str | None) -> None:
    body = {"experiment_ids": ["{experiment}"], "filter_string1": first, "filter_string2": second}
    charted.call("POST", f"{V3}/calculate-filter-correlation", json=body | ({"base_filter": base} if base else {}))

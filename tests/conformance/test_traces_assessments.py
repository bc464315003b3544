"""Assessments of traces, as MLflow answers them."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation
from tests.conformance.traces import V3, start

SOURCE = {"source_type": "HUMAN", "source_id": "me"}
FEEDBACK = {"feedback": {"value": 1}}
REFUSED = (400, "INVALID_PARAMETER_VALUE")


@pytest.fixture
def traced(both: Both) -> Both:
    """Both servers with an {experiment} and a {trace}."""
    both.new_experiment()
    start(both)
    return both


def call(both: Both, method: str, path: str, **options: Any) -> None:
    """Times are texts here, so they are not recognised as being now; `test_times_are_kept` looks at them."""
    both.call(method, path, ignore=("create_time", "last_update_time"), **options)


def assess(both: Both, name: str = "assessment", **fields: Any) -> None:
    """Create an assessment on both and bind its id to `name`."""
    body = {"assessment": {"assessment_name": "n", "source": SOURCE} | fields}
    call(both, "POST", f"{V3}/{{trace}}/assessments", json=body)
    both.bind(name, "assessment.assessment_id")


@pytest.mark.parametrize(
    "fields",
    [
        {"feedback": {"value": 1}},
        {"feedback": {"value": True}, "rationale": "because", "metadata": {"k": "v"}, "span_id": "s"},
        {"feedback": {"value": {"a": [1, "b", None]}}},
        {"feedback": {"value": None}},
        {"feedback": {}},
        {"feedback": {"error": {"error_code": "E", "error_message": "m", "stack_trace": "x" * 20_000}}},
        {"expectation": {"value": "x"}, "rationale": "not kept", "overrides": "a-x"},
        {"expectation": {"value": 0.5}},
        {"expectation": {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": '{"a": [1]}'}}},
        {"expectation": {"value": {"a": [1]}}},
        {"issue": {"issue_name": "i"}, "rationale": "why"},
        {"feedback": {"value": 1}, "source": {"source_type": "LLM_JUDGE"}},
        {"feedback": {"value": 1}, "source": {"source_type": 3}},
        {"feedback": {"value": 1}, "valid": False, "nonsense": 5},
        {"feedback": {"value": 1}, "metadata": {"mlflow.assessment.sourceRunId": "r"}},
    ],
)
def test_an_assessment_is_read_back(traced: Both, fields: dict[str, Any]) -> None:
    assess(traced, **fields)
    call(traced, "GET", f"{V3}/{{trace}}/assessments/{{assessment}}")
    call(traced, "GET", f"{V3}/{{trace}}")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"assessment": {}},
        {"assessment": {"assessment_name": "n"}},
        {"assessment": {"expectation": {"value": None}}},
        {"assessment": {"expectation": {}}},
        {"assessment": {"expectation": {"serialized_value": {"serialization_format": "X", "value": "1"}}}},
        {"assessment": {"feedback": {"value": 1}, "overrides": "nope"}},
    ],
)
def test_an_assessment_that_says_nothing_is_refused(traced: Both, body: dict[str, Any]) -> None:
    call(traced, "POST", f"{V3}/{{trace}}/assessments", json=body)
    call(traced, "GET", f"{V3}/{{trace}}")


@pytest.mark.parametrize(
    "fields",
    [
        {"feedback": {"value": 1}, "expectation": {"value": 1}},
        {"feedback": {"value": 1}, "create_time": "yesterday"},
        {"feedback": {"value": 1}, "source": {"source_type": "ROBOT"}},
    ],
)
def test_nonsense_is_refused_rather_than_half_read(traced: Both, fields: dict[str, Any]) -> None:
    half_read = Deviation(
        (200, None), REFUSED, why="MLflow keeps what came before the nonsense and drops the rest", everywhere=True
    )
    call(traced, "POST", f"{V3}/{{trace}}/assessments", json={"assessment": fields}, deviation=half_read)


def test_what_is_not_there_is_not_found(traced: Both) -> None:
    assess(traced, **FEEDBACK)
    call(traced, "POST", f"{V3}/nope/assessments", json={"assessment": FEEDBACK}, message=True)
    for path in ("{trace}/assessments/nope", "nope/assessments/{assessment}"):
        call(traced, "GET", f"{V3}/{path}", message=True)
        call(traced, "PATCH", f"{V3}/{path}", json={"assessment": {"rationale": "x"}, "update_mask": "rationale"})
        call(traced, "DELETE", f"{V3}/{path}")


@pytest.mark.parametrize(
    ("given", "mask"),
    [
        ({"rationale": "new"}, "rationale"),
        (
            {"assessment_name": "z", "feedback": {"value": "s"}, "metadata": {"q": "1"}},
            "assessmentName,feedback,metadata",
        ),
        ({"metadata": {"k": "w"}, "rationale": "not meant"}, "metadata"),
        ({"feedback": {"error": {"error_code": "E"}}}, "feedback"),
        ({"expectation": {"value": 1}}, "expectation"),
        ({"rationale": "x"}, "nonsense"),
        ({"rationale": "x"}, ""),
    ],
)
def test_an_update_changes_what_its_mask_names(traced: Both, given: dict[str, Any], mask: str) -> None:
    assess(traced, feedback={"value": 1}, metadata={"k": "v"}, rationale="old")
    call(traced, "PATCH", f"{V3}/{{trace}}/assessments/{{assessment}}", json={"assessment": given, "update_mask": mask})
    call(traced, "GET", f"{V3}/{{trace}}/assessments/{{assessment}}")


def test_an_expectation_is_updated_as_one(traced: Both) -> None:
    assess(traced, expectation={"value": "x"})
    path = f"{V3}/{{trace}}/assessments/{{assessment}}"
    call(traced, "PATCH", path, json={"assessment": {"expectation": {"value": "y"}}, "update_mask": "expectation"})
    call(
        traced,
        "PATCH",
        path,
        json={"assessment": {"feedback": {"value": "y"}}, "update_mask": "feedback"},
        message=True,
    )
    call(traced, "PATCH", path, json={"assessment": {"rationale": "x"}}, message=True)
    call(traced, "PATCH", path, json={"update_mask": "rationale"}, message=True)


def test_an_override_makes_the_older_one_invalid_until_it_is_deleted(traced: Both) -> None:
    assess(traced, "older", **FEEDBACK)
    assess(traced, "newer", feedback={"value": 2}, overrides="{older}")
    call(traced, "GET", f"{V3}/{{trace}}/assessments/{{older}}")
    for _ in range(2):
        call(traced, "DELETE", f"{V3}/{{trace}}/assessments/{{newer}}")
    call(traced, "GET", f"{V3}/{{trace}}/assessments/{{older}}")


def test_a_trace_may_start_with_assessments(traced: Both) -> None:
    given = [
        {"assessment_id": traced.unique("a"), "assessment_name": "n", "source": SOURCE, **FEEDBACK},
        {"assessment_id": traced.unique("b"), "assessment_name": "m", "source": SOURCE, "expectation": {"value": "x"}},
    ]
    times = {"create_time": "2025-01-01T00:00:00Z", "last_update_time": "2025-01-01T00:00:00Z"}
    start(traced, "other", assessments=[one | times for one in given])
    call(traced, "GET", f"{V3}/{{other}}")


def test_an_id_that_is_taken_is_refused(traced: Both) -> None:
    mine = traced.unique("a")
    assess(traced, assessment_id=mine, **FEEDBACK)
    taken = Deviation((500, "INTERNAL_ERROR"), (400, "RESOURCE_ALREADY_EXISTS"), why="a client did it")
    body = {"assessment": {"assessment_id": mine} | FEEDBACK}
    call(traced, "POST", f"{V3}/{{trace}}/assessments", json=body, deviation=taken)


def test_times_are_kept(traced: Both) -> None:
    times = {"create_time": "2025-01-01T00:00:00Z", "last_update_time": "2025-01-01T00:00:00.5Z"}
    traced.call("POST", f"{V3}/{{trace}}/assessments", json={"assessment": FEEDBACK | times})
    traced.call("GET", f"{V3}/{{trace}}")

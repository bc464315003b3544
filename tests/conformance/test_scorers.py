"""Scorers: the same calls to MLflow's server and to ours."""

import json
from typing import Any

import pytest

from tests.conformance.compare import Answer, Both, Deviation

BAD = (400, "INVALID_PARAMETER_VALUE")
CRASH = (500, "INTERNAL_ERROR")
OK = (200, None)
JUDGE = json.dumps({"name": "judge", "instructions_judge_pydantic_data": {"model": "openai:/gpt", "é": [1]}})


def call(both: Both, method: str, path: str, **rest: Any) -> Answer:
    return both.call(method, f"/api/3.0/mlflow/scorers/{path}", ignore=("scorer_id",), **rest)


def register(both: Both, name: str = "judge", serialized: str = JUDGE, **rest: Any) -> Answer:
    body = {"experiment_id": "{experiment}", "name": name, "serialized_scorer": serialized}
    return call(both, "POST", "register", json=body, **rest)


@pytest.fixture
def judged(both: Both) -> Both:
    """Both servers with an {experiment} and two versions of the scorer "judge" in it."""
    both.new_experiment()
    register(both)
    register(both, serialized='{"name": "judge", "second": true}')
    return both


JUDGED = {"experiment_id": "{experiment}", "name": "judge"}


def test_versions_are_numbered_per_name_and_experiment(judged: Both) -> None:
    first = register(judged).at("scorer_id")
    assert register(judged).at("scorer_id") == first
    assert register(judged, name="another").at("version") == 1
    call(judged, "GET", "versions", params=JUDGED)
    call(judged, "GET", "list", params={"experiment_id": "{experiment}"})
    judged.new_experiment()
    assert register(judged).at("version") == 1


@pytest.mark.parametrize("name", ["a b/ü", "Judge", "x" * 256, " ", "", 7, None, "\t"])
def test_a_name_is_accepted_or_refused_alike(judged: Both, name: Any) -> None:
    register(judged, name=name, message=name == " ")
    call(judged, "GET", "list", params={"experiment_id": "{experiment}"})


@pytest.mark.parametrize(
    "serialized",
    [
        "nope", "", 7, "{", '{"call_source": "def f(): pass"}', '{"call_source": null}',
        '{"ensemble_scorer_data": {"scorers": [{"call_source": "x"}]}}', "{}",
    ],
)  # fmt: skip
def test_a_text_is_accepted_or_refused_alike(judged: Both, serialized: Any) -> None:
    register(judged, serialized=serialized)
    call(judged, "GET", "versions", params=JUDGED)


THIRD_PARTY = json.dumps({"third_party_scorer_data": {"kwargs": {"api_base": "http://127.0.0.1"}}})
GATEWAY = json.dumps({"instructions_judge_pydantic_data": {"model": "gateway:/chat"}})
NOT_READ = "nothing is taken from the text, for nothing of it is run here"


@pytest.mark.parametrize(
    ("serialized", "theirs", "ours", "why"),
    [
        ("[]", CRASH, BAD, "a mistake of the caller"),
        ("1", CRASH, BAD, "a mistake of the caller"),
        (json.dumps({"a": "x" * 2_000_000}), OK, BAD, "a scorer is a few kilobytes"),
        (THIRD_PARTY, BAD, OK, NOT_READ),
        (GATEWAY, (404, "RESOURCE_DOES_NOT_EXIST"), OK, NOT_READ),
    ],
    ids=("list", "number", "large", "third-party", "gateway"),
)
def test_a_text_that_we_see_otherwise(judged: Both, serialized: str, theirs: Any, ours: Any, why: str) -> None:
    register(judged, serialized=serialized, deviation=Deviation(theirs, ours, why))


def test_a_very_long_name_is_refused(judged: Both) -> None:
    register(judged, name="x" * 257, deviation=Deviation(OK, BAD, why="the limit that MLflow declares"))


@pytest.mark.parametrize("experiment", ["98765432", "abc", "", 7, None])
def test_an_experiment_must_be_there(judged: Both, experiment: Any) -> None:
    register_body = {"experiment_id": experiment, "name": "judge", "serialized_scorer": JUDGE}
    call(judged, "POST", "register", json=register_body, message=experiment in {"98765432", "abc"})
    query = {"experiment_id": str(experiment or ""), "name": "judge"}
    for path in ("get", "versions"):
        call(judged, "GET", path, params=query)
    call(judged, "DELETE", "delete", json=query)


def test_nothing_is_done_in_a_deleted_experiment(judged: Both) -> None:
    judged.call("POST", "experiments/delete", json={"experiment_id": "{experiment}"})
    register(judged, message=True)
    for path in ("get", "versions", "list"):
        call(judged, "GET", path, params=JUDGED if path != "list" else {"experiment_id": "{experiment}"})
    call(judged, "GET", "list", params={"experiment_ids": "{experiment}"})
    call(judged, "DELETE", "delete", json=JUDGED)


@pytest.mark.parametrize("version", [1, 2, "2", "1.0", 3, 0, -1, "x", ""])
def test_a_version_is_read_or_not_found_alike(judged: Both, version: Any) -> None:
    call(judged, "GET", "get", params=JUDGED | {"version": version}, message=version == 3)


def test_the_newest_version_is_read_without_a_number(judged: Both) -> None:
    assert call(judged, "GET", "get", params=JUDGED).at("scorer.scorer_version") == 2
    call(judged, "GET", "get", params=JUDGED | {"name": "none"}, message=True)
    call(judged, "GET", "versions", params=JUDGED | {"name": "none"}, message=True)
    call(judged, "GET", "versions", params={"experiment_id": "{experiment}"}, message=True)


def test_a_version_too_large_for_any_is_refused(judged: Both) -> None:
    wraps = Deviation(OK, BAD, why="MLflow loses the number on the way and answers with the newest version")
    call(judged, "GET", "get", params=JUDGED | {"version": 2**40}, deviation=wraps)


def test_versions_are_deleted_one_by_one_or_all(judged: Both) -> None:
    for version in (9, 2, 2, "x"):
        call(judged, "DELETE", "delete", json=JUDGED | {"version": version}, message=version == 9)
        call(judged, "GET", "versions", params=JUDGED)
    assert register(judged).at("version") == 2
    call(judged, "DELETE", "delete", json=JUDGED)
    call(judged, "DELETE", "delete", json=JUDGED, message=True)
    assert register(judged).at("version") == 1
    call(judged, "DELETE", "delete", json=JUDGED | {"version": 1})
    for path in ("get", "versions"):
        call(judged, "GET", path, params=JUDGED)
    call(judged, "DELETE", "delete", json=JUDGED)
    call(judged, "GET", "list", params={"experiment_id": "{experiment}"})
    assert register(judged).at("version") == 1


@pytest.mark.parametrize("query", [{}, {"scorer_ids": ["x", "y"]}, {"scorer_ids": "x"}])
def test_no_scorer_is_run_by_the_server(both: Both, query: Any) -> None:
    call(both, "GET", "online-configs", params=query)


def test_scorers_are_listed_of_one_experiment_some_or_all(judged: Both) -> None:
    judged.new_experiment("second")
    body = {"experiment_id": "{second}", "name": "A judge", "serialized_scorer": JUDGE}
    call(judged, "POST", "register", json=body)
    for query in (
        {"experiment_ids": ["{experiment}", "{second}", "{second}"]},
        {"experiment_ids": ["98765432"]},
        {"experiment_ids": ["abc"]},
        {"experiment_ids": ""},
        {"experiment_id": "{second}", "experiment_ids": ["{second}"]},
        {"experiment_id": "98765432"},
        {"experiment_id": "abc"},
    ):
        call(judged, "GET", "list", params=query)
    everywhere = call(judged, "GET", "list", body=False).at("scorers")
    assert {"judge", "A judge"} <= {scorer["scorer_name"] for scorer in everywhere}

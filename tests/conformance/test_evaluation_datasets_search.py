"""datasets/search: the same datasets in the same order as MLflow's server finds, same refusals."""

import json
from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation

SEARCH = "/api/3.0/mlflow/datasets/search"
BAD = (400, "INVALID_PARAMETER_VALUE")
CRASH = (500, "INTERNAL_ERROR")
OK = (200, None)

FILTERS = [
    "", "name = 'alpha'", 'name = "alpha"', "name != 'alpha'", "name LIKE 'a%'", "name LIKE '%_1'", "name ILIKE 'A%'",
    "name IN ('alpha', 'é')", "name IN ('nothing')", "name = 'it''s'", "name = 'é'", "created_by = 'ada'",
    "created_by != 'ada'", "created_by LIKE 'A%'", "created_by ILIKE 'A%'", "last_updated_by = 'bob'",
    "last_updated_by != 'bob'", "created_time > 5", "created_time < 5", "created_time != 5", "created_time >= 0",
    "last_update_time > 1000 AND name = 'alpha'", "last_update_time <= -1", "tags.team = 'red'", "tags.team != 'red'",
    "tags.team LIKE 'r%'", "tags.team ILIKE 'R%'", "tags.team = 'red' AND tags.team != 'blue'", "tags.missing = 'x'",
    "tags.dotted.key = 'x'", "tags.team = 'red' AND name LIKE 'a%'", "AND", "name = 'alpha' AND",
    "name = 'alpha' tags.team = 'red'", "name LIKE '%' and tags.team = 'Red'",
]  # fmt: skip

BAD_FILTERS = [
    " ", "name", "name = ", "name = alpha", "name = 1", "name IN ()", "name IN (1)", "name NOT IN ('alpha')",
    "name IS NULL", "created_by IN ('ada')", "tags.team IN ('red')", "tags.team IS NULL", "tags.team > 'a'",
    "tags.team = 1", "tags.team = red", "tag.team = 'red'", "attribute.name = 'alpha'", "attributes.name = 'alpha'",
    "metrics.a > 1", "params.a = 'x'", "dataset_id = 'x'", "digest = 'x'", "created_time > '5'", "created_time > 5.5",
    "created_time > 1e3", "created_time LIKE '5'", "created_time IN (1)", "name = 'a' OR name = 'b'", "(name = 'a')",
    "name = 'alpha", "Name = 'alpha'",
]  # fmt: skip

ORDERS = [
    [], ["name"], ["name DESC"], ["name asc"], ["created_time"], ["created_time DESC"], ["last_update_time"],
    ["last_update_time DESC", "name"], ["name", "name DESC"],
]  # fmt: skip
BAD_ORDERS = [
    [""], [" name"], ["name foo"], ["created_by"], ["dataset_id"], ["tags.team"], ["attribute.name"],
    ["created_time DESC NULLS"], "name", ["name", "nonsense"],
]  # fmt: skip

_filled: dict[str, str] = {}  # the experiment on each server


@pytest.fixture
def searched(both: Both) -> Both:
    """Both servers with the same datasets in {experiment}, once per session: each test only reads."""
    if _filled:
        for side in both.sides:
            side.bound["experiment"] = _filled[side.name]
        return both
    both.new_experiment()
    for name, tags in {
        "alpha": {"team": "red", "mlflow.user": "ada"},
        "Alpha": {"team": "Red", "mlflow.user": "Ada"},
        "beta_1": {"dotted.key": "x"},
        "é": {"team": "blue", "mlflow.user": "bob"},
        "it's": {"team": "red", "two words": "x"},
    }.items():
        request = {"name": name, "experiment_ids": ["{experiment}"], "tags": json.dumps(tags)}
        both.call("POST", "/api/3.0/mlflow/datasets/create", json=request, ignore=("digest",))
        both.tick()
        if name == "alpha":
            both.bind("first", "dataset.dataset_id")
    record = json.dumps([{"inputs": {"q": 1}, "tags": {"mlflow.user": "bob"}}])
    both.call("POST", "/api/3.0/mlflow/datasets/{first}/records", json={"records": record})
    for side in both.sides:
        _filled[side.name] = side.bound["experiment"]
    return both


def search(both: Both, **request: Any) -> list[list[str]]:
    """The names each side found, in its order; the answers are compared."""
    rest = {name: request.pop(name) for name in ("deviation", "message") if name in request}
    body = {"experiment_ids": ["{experiment}"], **request}
    both.call("POST", SEARCH, json=body, ignore=("digest", "next_page_token"), **rest)
    found = []
    for side in both.sides:
        assert side.last is not None
        entries = side.last.body.get("datasets", []) if side.last.status == 200 else []
        found.append([entry["name"] for entry in entries])
    return found


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_selects_the_same_datasets(searched: Both, text: str) -> None:
    theirs, ours = search(searched, filter_string=text)
    assert theirs == ours


def test_most_filters_find_some_datasets_but_not_all(searched: Both) -> None:
    found = [len(search(searched, filter_string=text)[1]) for text in FILTERS]
    assert len([number for number in found if 0 < number < 5]) > len(found) / 2


@pytest.mark.parametrize("text", BAD_FILTERS)
def test_a_bad_filter_is_refused_alike(searched: Both, text: str) -> None:
    search(searched, filter_string=text)
    assert searched.ours.last is not None
    assert searched.ours.last.status == 400


@pytest.mark.parametrize(
    ("text", "theirs", "ours", "why"),
    [
        ("name like 'a%'", CRASH, OK, "words are words in any case, as in other searches"),
        ("`name` = 'alpha'", BAD, OK, "a quoted key, as in other searches"),
        ("tags.`two words` = 'x'", OK, OK, "MLflow looks for a key with the quotes in it"),
        ("name == 'a'", CRASH, BAD, "a mistake of the caller"),
        ("name > 'a'", OK, BAD, "no order of texts in any search of MLflow's documentation"),
        ("name RLIKE 'a'", OK, BAD, "only traces are searched by patterns in MLflow's documentation"),
        ("created_time > 99999999999999999999", CRASH, OK, "a number too large is still a number"),
    ],
)
def test_a_filter_that_we_see_otherwise(searched: Both, text: str, theirs: Any, ours: Any, why: str) -> None:
    search(searched, filter_string=text, deviation=Deviation(theirs, ours, why))


@pytest.mark.parametrize("order_by", ORDERS, ids=" then ".join)
def test_an_order_is_followed(searched: Both, order_by: list[str]) -> None:
    theirs, ours = search(searched, order_by=order_by)
    assert theirs == ours


@pytest.mark.parametrize("order_by", BAD_ORDERS, ids=str)
def test_a_bad_order_is_refused_alike(searched: Both, order_by: Any) -> None:
    search(searched, order_by=order_by)


@pytest.mark.parametrize("max_results", [0, -1, 1, 50_000, 50_001, "x"])
def test_a_page_size_is_accepted_or_refused_alike(searched: Both, max_results: Any) -> None:
    search(searched, max_results=max_results)


@pytest.mark.parametrize("ids", [[], ["987654"], ["{experiment}", "0"], "{experiment}", ["nonsense"], ["9" * 30]])
def test_experiments_are_named_as_in_mlflow(searched: Both, ids: Any) -> None:
    search(searched, experiment_ids=ids, filter_string="name = 'Alpha' AND created_by = 'Ada'")


@pytest.mark.parametrize("size", [1, 2, 4, 5])
@pytest.mark.parametrize("order_by", [[], ["name DESC"]])
def test_pages_follow_each_other(searched: Both, size: int, order_by: list[str]) -> None:
    token: dict[str, str] = {}
    seen: list[str] = []
    for _ in range(6):
        theirs, ours = search(searched, max_results=size, order_by=order_by, **token)
        assert theirs == ours
        seen += ours
        for side in searched.sides:
            side.bound["token"] = (side.last.body if side.last else {}).get("next_page_token", "")
        assert bool(searched.mlflow.bound["token"]) == bool(searched.ours.bound["token"])
        if not searched.ours.bound["token"]:
            break
        token = {"page_token": "{token}"}
    assert len(seen) == len(set(seen)) == 5


def test_a_made_up_page_token_is_refused(searched: Both) -> None:
    for token in ("nonsense", "bm9uc2Vuc2U=", "e30="):
        search(searched, page_token=token)


def test_the_search_can_be_asked_by_get(searched: Both) -> None:
    query = {"experiment_ids": "{experiment}", "filter_string": "tags.team = 'red'", "order_by": "name"}
    searched.call("GET", SEARCH, params=query, ignore=("digest",))

"""experiments/*: the same calls to MLflow's server and to ours. The search's language is in test_search_experiments."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation


@pytest.fixture
def made(both: Both) -> Both:
    """Both servers with an {experiment} of the name {name} and two tags."""
    name = both.unique("made")
    tags = [{"key": "a", "value": "1"}, {"key": "b", "value": ""}]
    both.call("POST", "experiments/create", json={"name": name, "tags": tags})
    both.bind("experiment", "experiment_id")
    both.name("name", name)
    return both


def test_an_experiment_is_read_back_by_id_and_by_name(made: Both) -> None:
    made.call("GET", "experiments/get", params={"experiment_id": "{experiment}"})
    made.call("GET", "experiments/get-by-name", params={"experiment_name": "{name}"})
    made.call("GET", "/ajax-api/2.0/mlflow/experiments/get", params={"experiment_id": "{experiment}"})


def test_the_default_experiment_is_there(both: Both) -> None:
    both.call("GET", "experiments/get", params={"experiment_id": "0"}, ignore=("last_update_time", "creation_time"))
    both.call("GET", "experiments/get-by-name", params={"experiment_name": "Default"})


@pytest.mark.parametrize("experiment_id", ["98765432", "abc", "1.5", "", "0x1", "../1"])
def test_an_id_without_experiment_is_refused_alike(both: Both, experiment_id: str) -> None:
    both.call("GET", "experiments/get", params={"experiment_id": experiment_id})
    for endpoint in ("delete", "restore"):
        both.call("POST", f"experiments/{endpoint}", json={"experiment_id": experiment_id})
    both.call("POST", "experiments/update", json={"experiment_id": experiment_id, "new_name": both.unique()})
    both.call("POST", "experiments/set-experiment-tag", json={"experiment_id": experiment_id, "key": "a", "value": "b"})


@pytest.mark.parametrize(
    ("experiment_id", "theirs"), [("-1", (404, "RESOURCE_DOES_NOT_EXIST")), ("9" * 20, (500, "INTERNAL_ERROR"))]
)
def test_a_number_that_is_no_id_is_an_invalid_id(both: Both, experiment_id: str, theirs: tuple[int, str]) -> None:
    shape = Deviation(theirs, (400, "INVALID_PARAMETER_VALUE"), why="an id is a number of 63 bits")
    both.call("GET", "experiments/get", params={"experiment_id": experiment_id}, deviation=shape)
    both.call("POST", "experiments/delete", json={"experiment_id": experiment_id}, deviation=shape)


def test_what_is_missing_is_named_in_the_same_words(both: Both) -> None:
    both.call("GET", "experiments/get", message=True)
    both.call("GET", "experiments/get-by-name", message=True)
    for endpoint in ("create", "update", "delete", "restore", "set-experiment-tag", "delete-experiment-tag"):
        both.call("POST", f"experiments/{endpoint}", json={}, message=True)
    both.call("POST", "experiments/update", json={"experiment_id": "0"})
    both.call("POST", "experiments/set-experiment-tag", json={"experiment_id": "0"}, message=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": None},
        {"name": 7},
        {"name": ["x"]},
        {"name": "n" * 501},
        {"tags": "x"},
        {"tags": {"a": "b"}},
        {"tags": [{"key": "k" * 251, "value": "v"}]},
        {"tags": [{"key": "a", "value": "v" * 20001}]},
        {"tags": [{"key": "no/../such", "value": "v"}]},
        {"tags": [{"key": "", "value": "v"}]},
        {"artifact_location": 7},
    ],
)
def test_a_bad_creation_is_refused_alike(both: Both, fields: dict[str, Any]) -> None:
    name = both.unique("bad")
    both.call("POST", "experiments/create", json={"name": name} | fields)
    both.call("GET", "experiments/get-by-name", params={"experiment_name": name})


@pytest.mark.parametrize(
    "fields",
    [
        {"tags": []},
        {"tags": None},
        {"tags": [{"key": "k" * 250, "value": "v" * 20000}]},
        {"tags": [{"key": "a/b.c-d e:f_g", "value": "ü"}]},
        {"tags": [{"key": "a"}]},
        {"unknown": {"field": 1}},
    ],
)
def test_a_good_creation_reads_back_alike(both: Both, fields: dict[str, Any]) -> None:
    both.call("POST", "experiments/create", json={"name": both.unique("good")} | fields)
    both.bind("experiment", "experiment_id")
    both.call("GET", "experiments/get", params={"experiment_id": "{experiment}"})


def test_a_line_break_in_a_tags_key_is_refused(both: Both) -> None:
    both.call(
        "POST",
        "experiments/create",
        json={"name": both.unique(), "tags": [{"key": "a\n", "value": "v"}]},
        deviation=Deviation((200, None), (400, "INVALID_PARAMETER_VALUE"), why="its pattern forgets the last one"),
    )


def test_of_a_tag_given_twice_the_last_value_counts(both: Both) -> None:
    both.call(
        "POST",
        "experiments/create",
        json={"name": both.unique(), "tags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]},
        deviation=Deviation((400, "RESOURCE_ALREADY_EXISTS"), (200, None), why="no experiment of the name exists"),
    )


@pytest.mark.parametrize("name", ["ü 日本", "with/slash", "  blanks  ", "a.b:c%d", "n" * 480])
def test_any_text_is_a_name(both: Both, name: str) -> None:
    name = name + both.unique()
    both.name("name", name)
    both.call("POST", "experiments/create", json={"name": name})
    both.bind("experiment", "experiment_id")
    both.call("GET", "experiments/get-by-name", params={"experiment_name": name})


def test_a_name_is_taken_even_by_a_deleted_experiment(made: Both) -> None:
    made.call("POST", "experiments/create", json={"name": "{name}"})
    made.call("POST", "experiments/delete", json={"experiment_id": "{experiment}"})
    made.call("POST", "experiments/create", json={"name": "{name}"})
    made.new_experiment("other")
    made.call(
        "POST",
        "experiments/update",
        json={"experiment_id": "{other}", "new_name": "{name}"},
        deviation=Deviation((400, "BAD_REQUEST"), (400, "RESOURCE_ALREADY_EXISTS"), why="MLflow shows its database"),
    )


def test_an_experiment_is_renamed(made: Both) -> None:
    made.call("POST", "experiments/update", json={"experiment_id": "{experiment}", "new_name": "{name}x"})
    made.call("GET", "experiments/get", params={"experiment_id": "{experiment}"})
    made.call("GET", "experiments/get-by-name", params={"experiment_name": "{name}"}, message=True)
    made.call("POST", "experiments/update", json={"experiment_id": "{experiment}", "new_name": "{name}x"})
    for bad in ("", 7, "n" * 501):
        made.call("POST", "experiments/update", json={"experiment_id": "{experiment}", "new_name": bad})


def test_an_experiment_is_deleted_and_restored_with_its_runs(made: Both) -> None:
    made.new_run()
    made.call("POST", "experiments/delete", json={"experiment_id": "{experiment}"})
    made.call("GET", "experiments/get", params={"experiment_id": "{experiment}"})
    made.call("GET", "experiments/get-by-name", params={"experiment_name": "{name}"})
    made.call("GET", "runs/get", params={"run_id": "{run}"})
    made.call("POST", "experiments/delete", json={"experiment_id": "{experiment}"}, message=True)
    made.call(
        "POST", "experiments/set-experiment-tag", json={"experiment_id": "{experiment}", "key": "a", "value": "b"}
    )
    made.call("POST", "runs/create", json={"experiment_id": "{experiment}"}, message=True)
    made.call("POST", "runs/log-parameter", json={"run_id": "{run}", "key": "a", "value": "b"}, message=True)
    made.call("POST", "experiments/restore", json={"experiment_id": "{experiment}"})
    made.call("POST", "experiments/restore", json={"experiment_id": "{experiment}"}, message=True)
    made.call("GET", "experiments/get", params={"experiment_id": "{experiment}"})
    made.call("GET", "runs/get", params={"run_id": "{run}"})


def test_a_deleted_experiment_cannot_be_renamed(made: Both) -> None:
    made.call("POST", "experiments/delete", json={"experiment_id": "{experiment}"})
    made.call(
        "POST",
        "experiments/update",
        json={"experiment_id": "{experiment}", "new_name": "{name}x"},
        deviation=Deviation((500, "INVALID_STATE"), (400, "INVALID_STATE"), why="a client did it, not the server"),
    )


def test_tags_are_set_overwritten_and_deleted(made: Both) -> None:
    tag = {"experiment_id": "{experiment}", "key": "a"}
    made.call("POST", "experiments/set-experiment-tag", json=tag | {"value": "2"})
    made.call("POST", "experiments/set-experiment-tag", json=tag | {"key": "c"})
    made.call("POST", "experiments/set-experiment-tag", json=tag | {"key": "a/b", "value": "v" * 20000})
    made.call("GET", "experiments/get", params={"experiment_id": "{experiment}"})
    made.call("POST", "experiments/delete-experiment-tag", json=tag)
    made.call("POST", "experiments/delete-experiment-tag", json=tag, message=True)
    made.call("GET", "experiments/get", params={"experiment_id": "{experiment}"})


@pytest.mark.parametrize(
    "fields", [{"key": ""}, {"key": "k" * 251}, {"key": "../x"}, {"key": 7}, {"value": "v" * 20001}, {"value": 7}]
)
def test_a_bad_tag_is_refused_alike(made: Both, fields: dict[str, Any]) -> None:
    tag = {"experiment_id": "{experiment}", "key": "k", "value": "v"} | fields
    made.call("POST", "experiments/set-experiment-tag", json=tag)
    made.call("GET", "experiments/get", params={"experiment_id": "{experiment}"})


@pytest.mark.parametrize("content", [b"{", b"", b"null", b'{"name": "a", "name": ', b"{}x"])
def test_a_body_that_is_broken_or_empty_is_refused_alike(both: Both, content: bytes) -> None:
    both.call("POST", "experiments/create", content=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("content", "theirs", "ours"),
    [
        (b"[]", (500, None), "INVALID_PARAMETER_VALUE"),
        (b"7", (500, None), "INVALID_PARAMETER_VALUE"),
        (b'"x"', (500, None), "INVALID_PARAMETER_VALUE"),
    ],
)
def test_a_body_that_is_no_object_is_refused(
    both: Both, content: bytes, theirs: tuple[int, str | None], ours: str
) -> None:
    refused = Deviation(theirs, (400, ours), why="MLflow stumbles over it")
    headers = {"Content-Type": "application/json"}
    both.call("POST", "experiments/create", content=content, headers=headers, deviation=refused)


def test_a_body_that_is_no_text_is_refused_alike(both: Both) -> None:
    headers = {"Content-Type": "application/json"}
    both.call("POST", "experiments/create", content=b"\xff", headers=headers)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-8"]
)
def test_a_body_of_another_content_type_is_answered_alike(both: Both, content_type: str) -> None:
    body = b'{"experiment_id": "0", "key": "a", "value": "b"}'
    both.call("POST", "experiments/set-experiment-tag", content=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "experiments/nothing"), ("POST", "nothing"), ("DELETE", "experiments/get"), ("PUT", "experiments/create")],
)
def test_an_unknown_endpoint_is_not_found(both: Both, method: str, path: str) -> None:
    answer = both.call(
        method,
        path,
        deviation=Deviation(
            (404 if method in {"GET", "POST"} else 405, None), (404, "ENDPOINT_NOT_FOUND"), why="JSON, not a page"
        ),
    )
    assert path in (answer.message or "")


def test_pages_of_a_search_follow_each_other(both: Both) -> None:
    prefix = both.unique("paged")
    for n in range(5):
        both.call("POST", "experiments/create", json={"name": f"{prefix}-{n}"})
    search = {"filter": f"name LIKE '{prefix}%'", "max_results": 2, "order_by": ["name ASC"]}
    seen = []
    for _ in range(3):
        answer = both.call("POST", "experiments/search", json=search, ignore=("next_page_token",))
        seen += [experiment["name"] for experiment in answer.at("experiments")]
        if "next_page_token" in answer.body:
            both.bind("token", "next_page_token")
            search |= {"page_token": "{token}"}
    assert seen == [f"{prefix}-{n}" for n in range(5)]


@pytest.mark.parametrize("max_results", [0, -1, 50001, "x", 1.5, "7", None])
def test_a_page_size_is_checked_alike(both: Both, max_results: Any) -> None:
    search = {"max_results": max_results, "filter": "name = 'Default'"}
    both.call("POST", "experiments/search", json=search, ignore=("creation_time", "last_update_time"))


def test_a_search_may_come_as_a_query(both: Both) -> None:
    params = {"max_results": 5, "filter": "name = 'Default'", "view_type": "ALL"}
    both.call("GET", "experiments/search", params=params)
    both.call("GET", "experiments/search", params={"max_results": "x"})
    nonsense = {"max_results": 5, "view_type": "NONSENSE"}
    passed_over = Deviation(
        (200, None), (400, "INVALID_PARAMETER_VALUE"), why="MLflow passes over what it cannot read", everywhere=True
    )
    both.call("GET", "experiments/search", params=nonsense, deviation=passed_over)

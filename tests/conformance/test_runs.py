"""Runs, their tags and keys: the same calls to MLflow's server and to ours. See test_logging and test_search too."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation

UNKNOWN = "0" * 32
REFUSED = (400, "INVALID_PARAMETER_VALUE")
HALF_READ = Deviation(
    (200, None), REFUSED, why="MLflow passes over what it cannot read, and writes the rest", everywhere=True
)


def read(both: Both, run_id: str = "{run}") -> None:
    both.call("GET", "runs/get", params={"run_id": run_id})


# runs/create


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"run_name": "mine", "user_id": "me", "start_time": 5},
        {"start_time": "5"},
        {"start_time": 0},
        {"run_name": None, "tags": None},
        {"run_name": "n" * 8001},
        {"run_name": "ü/日本"},
        {"tags": [{"key": "a", "value": "1"}, {"key": "b"}]},
        {"tags": [{"key": "mlflow.runName", "value": "by tag"}]},
        {"run_name": "same", "tags": [{"key": "mlflow.runName", "value": "same"}]},
        {"tags": [{"key": "mlflow.user", "value": "somebody"}, {"key": "mlflow.source.name", "value": "x.py"}]},
        {"tags": [{"key": "k" * 250, "value": "v" * 8000}]},
        {"unknown": 1},
    ],
)
def test_a_good_run_reads_back_alike(both: Both, fields: dict[str, Any]) -> None:
    both.new_experiment()
    both.call("POST", "runs/create", json={"experiment_id": "{experiment}"} | fields)
    both.bind("run", "run.info.run_id")
    read(both)


@pytest.mark.parametrize(
    "fields",
    [
        {"experiment_id": "98765432"},
        {"experiment_id": "abc"},
        {"experiment_id": 7.5},
        {"experiment_id": []},
        {"run_name": 7},
        {"start_time": "now"},
        {"run_name": "one", "tags": [{"key": "mlflow.runName", "value": "other"}]},
    ],
)
def test_a_bad_run_is_refused_alike(both: Both, fields: dict[str, Any]) -> None:
    both.new_experiment()
    both.call("POST", "runs/create", json={"experiment_id": "{experiment}"} | fields)
    both.call("POST", "runs/search", json={"experiment_ids": ["{experiment}"]})


@pytest.mark.parametrize("fields", [{"start_time": 1.5}, {"user_id": 7}, {"tags": "x"}, {"tags": {"a": "b"}}])
def test_a_run_that_can_be_read_in_part_only_is_refused(both: Both, fields: dict[str, Any]) -> None:
    both.new_experiment()
    both.call("POST", "runs/create", json={"experiment_id": "{experiment}"} | fields, deviation=HALF_READ)


@pytest.mark.parametrize("key", ["a/../b", "", "what?"])
def test_a_tags_key_is_not_checked_when_a_run_is_created(both: Both, key: str) -> None:
    both.new_experiment()
    tags = [{"key": key, "value": "v"}]
    answer = both.call("POST", "runs/create", json={"experiment_id": "{experiment}", "tags": tags})
    assert {"key": key, "value": "v"} in answer.at("run.data.tags")


def test_a_tags_key_has_its_limit_even_when_a_run_is_created(both: Both) -> None:
    both.new_experiment()
    sqlite_is_wide = Deviation((200, None), REFUSED, why="250 characters are the width of MLflow's own column")
    tags = [{"key": "k" * 251, "value": "v"}]
    both.call("POST", "runs/create", json={"experiment_id": "{experiment}", "tags": tags}, deviation=sqlite_is_wide)


def test_of_a_tag_given_twice_the_last_counts_even_when_a_run_is_created(both: Both) -> None:
    both.new_experiment()
    shows_its_database = Deviation((400, "BAD_REQUEST"), (200, None), why="MLflow shows a constraint of its database")
    for tags in (
        [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}],
        [{"key": "mlflow.runName", "value": ""}],  # MLflow adds the name it makes up
    ):
        body = {"experiment_id": "{experiment}", "tags": tags, "start_time": 1}
        answer = both.call("POST", "runs/create", json=body, deviation=shows_its_database)
        kept = {tag["key"]: tag["value"] for tag in answer.at("run.data.tags")}
        assert kept.pop("mlflow.runName") == answer.at("run.info.run_name")
        assert kept in ({"a": "2"}, {})


def test_a_tags_value_is_kept_whole_when_a_run_is_created(both: Both) -> None:
    both.new_experiment()
    tags = [{"key": "a", "value": "v" * 8001}]
    answer = both.call("POST", "runs/create", json={"experiment_id": "{experiment}", "tags": tags})
    assert {"key": "a", "value": "v" * 8001} in answer.at("run.data.tags")


def test_a_run_without_experiment_is_refused(both: Both) -> None:
    shows_its_database = Deviation((400, "BAD_REQUEST"), REFUSED, why="MLflow shows a constraint of its database")
    both.call("POST", "runs/create", json={}, deviation=shows_its_database)


# runs/get, update, delete, restore


@pytest.mark.parametrize("run_id", [UNKNOWN, "nope", "../../etc", "é", "x" * 300, "{experiment}"])
def test_an_unknown_run_is_not_found(both: Both, run_id: str) -> None:
    both.new_experiment()
    read(both, run_id)
    both.call("POST", "runs/update", json={"run_id": run_id, "status": "FINISHED"})
    both.call("POST", "runs/delete", json={"run_id": run_id})
    both.call("POST", "runs/restore", json={"run_id": run_id})
    both.call("POST", "runs/set-tag", json={"run_id": run_id, "key": "a", "value": "b"})
    both.call("POST", "runs/delete-tag", json={"run_id": run_id, "key": "a"})
    both.call("POST", "runs/log-metric", json={"run_id": run_id, "key": "a", "value": 1, "timestamp": 1})
    both.call("POST", "runs/log-parameter", json={"run_id": run_id, "key": "a", "value": "b"})


def test_what_is_missing_is_named_in_the_same_words(run: Both) -> None:
    run.call("GET", "runs/get", message=True)
    run.call("GET", "metrics/get-history", params={"run_id": "{run}"}, message=True)
    for endpoint in ("update", "delete", "restore", "log-batch"):
        run.call("POST", f"runs/{endpoint}", json={}, message=True)
    for endpoint in ("set-tag", "delete-tag", "log-metric", "log-parameter"):
        run.call("POST", f"runs/{endpoint}", json={"run_id": "{run}"}, message=True)
        run.call("POST", f"runs/{endpoint}", json={"key": "a", "value": "1", "timestamp": 1})


def test_the_old_name_of_the_id_is_understood(run: Both) -> None:
    run.call("GET", "runs/get", params={"run_uuid": "{run}"})
    run.call("POST", "runs/set-tag", json={"run_uuid": "{run}", "key": "a", "value": "b"})
    run.call("POST", "runs/log-metric", json={"run_uuid": "{run}", "key": "a", "value": 1, "timestamp": 1})
    run.call("POST", "runs/log-parameter", json={"run_uuid": "{run}", "key": "a", "value": "1"})
    run.call("POST", "runs/update", json={"run_uuid": "{run}", "status": "FAILED"})
    read(run)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"status": "FINISHED", "end_time": 2000},
        {"status": "KILLED"},
        {"status": 3},
        {"end_time": "2000"},
        {"end_time": 0},
        {"run_name": "renamed"},
        {"run_name": ""},
        {"status": "FAILED", "run_name": "both"},
        {"status": 99},
        {"end_time": "soon"},
        {"run_name": 7},
    ],
)
def test_an_update_is_answered_alike(run: Both, fields: dict[str, Any]) -> None:
    run.call("POST", "runs/update", json={"run_id": "{run}"} | fields)
    read(run)


@pytest.mark.parametrize("status", ["NICE", "finished"])
def test_an_unknown_status_is_refused(run: Both, status: str) -> None:
    run.call("POST", "runs/update", json={"run_id": "{run}", "status": status}, deviation=HALF_READ)
    read(run)


def test_a_status_may_change_back(run: Both) -> None:
    for status, end_time in (("FINISHED", 5), ("RUNNING", None), ("SCHEDULED", None), ("KILLED", 7)):
        run.call("POST", "runs/update", json={"run_id": "{run}", "status": status, "end_time": end_time})
        read(run)


def test_a_deleted_run_is_readable_refuses_writes_and_can_be_restored(run: Both) -> None:
    for _ in range(2):
        run.call("POST", "runs/delete", json={"run_id": "{run}"})
    read(run)
    run.call("POST", "runs/update", json={"run_id": "{run}", "status": "FINISHED"}, message=True)
    run.call("POST", "runs/set-tag", json={"run_id": "{run}", "key": "a", "value": "b"}, message=True)
    run.call("POST", "runs/delete-tag", json={"run_id": "{run}", "key": "mlflow.runName"}, message=True)
    run.call("POST", "runs/log-metric", json={"run_id": "{run}", "key": "a", "value": 1, "timestamp": 1}, message=True)
    run.call("POST", "runs/log-parameter", json={"run_id": "{run}", "key": "a", "value": "b"}, message=True)
    run.call("POST", "runs/log-batch", json={"run_id": "{run}"}, message=True)
    for _ in range(2):
        run.call("POST", "runs/restore", json={"run_id": "{run}"})
    run.call("POST", "runs/set-tag", json={"run_id": "{run}", "key": "a", "value": "b"})
    read(run)


# tags


def test_tags_are_set_overwritten_and_deleted(run: Both) -> None:
    for value in ("1", "2", "", "v" * 8000, "v" * 8001, "ü\n"):
        run.call("POST", "runs/set-tag", json={"run_id": "{run}", "key": "a", "value": value})
        read(run)
    run.call("POST", "runs/set-tag", json={"run_id": "{run}", "key": "b"})
    for _ in range(2):
        run.call("POST", "runs/delete-tag", json={"run_id": "{run}", "key": "a"}, message=True)
    run.call("POST", "runs/set-tag", json={"run_id": "{run}", "key": "a", "value": "again"})
    read(run)


def test_the_name_of_a_run_follows_its_tag(run: Both) -> None:
    run.call("POST", "runs/set-tag", json={"run_id": "{run}", "key": "mlflow.runName", "value": "by tag"})
    read(run)
    run.call(
        "POST", "runs/log-batch", json={"run_id": "{run}", "tags": [{"key": "mlflow.runName", "value": "by batch"}]}
    )
    read(run)
    run.call("POST", "runs/update", json={"run_id": "{run}", "run_name": "by update"})
    read(run)
    run.call("POST", "runs/delete-tag", json={"run_id": "{run}", "key": "mlflow.runName"})
    read(run)


def test_an_empty_name_by_tag_leaves_the_run_its_name(run: Both) -> None:
    nameless = {"key": "mlflow.runName", "value": ""}
    run.call("POST", "runs/set-tag", json={"run_id": "{run}", **nameless})
    read(run)
    named = {"key": "mlflow.runName", "value": "by batch"}
    run.call("POST", "runs/log-batch", json={"run_id": "{run}", "tags": [named, nameless]})
    read(run)


def test_a_key_that_ends_in_a_line_feed_is_refused(run: Both) -> None:
    overlooked = Deviation((200, None), REFUSED, why="MLflow forbids control characters, and overlooks the last one")
    run.call("POST", "runs/set-tag", json={"run_id": "{run}", "key": "a\n", "value": "v"}, deviation=overlooked)


BAD_KEYS: list[Any] = ["", "k" * 251, "../x", "a//b", "/a", "a/", ".", "what?", "a\tb", 7, ["x"]]
GOOD_KEYS = ["k" * 250, "a/b", "a.b", "a b", "a-b_c:d", "é", "..a", " ", "A"]


@pytest.mark.parametrize("key", BAD_KEYS + GOOD_KEYS)
def test_a_key_is_judged_alike_wherever_it_stands(run: Both, key: Any) -> None:
    run.call("POST", "runs/set-tag", json={"run_id": "{run}", "key": key, "value": "v"})
    run.call("POST", "runs/log-parameter", json={"run_id": "{run}", "key": key, "value": "v"})
    run.call("POST", "runs/log-metric", json={"run_id": "{run}", "key": key, "value": 1, "timestamp": 1})
    read(run)


def test_the_ui_reads_and_writes_by_its_own_address(run: Both) -> None:
    ajax = "/ajax-api/2.0/mlflow"
    run.call("POST", f"{ajax}/runs/set-tag", json={"run_id": "{run}", "key": "mlflow.note.content", "value": "hi"})
    run.call("GET", f"{ajax}/runs/get", params={"run_id": "{run}"})
    run.call("POST", f"{ajax}/runs/search", json={"experiment_ids": ["{experiment}"], "max_results": 5})

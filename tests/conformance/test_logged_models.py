"""Logged models: the same calls to MLflow's server and to ours."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation

UNKNOWN = "m-" + "0" * 32
INTEGRITY = "MLflow shows a constraint of its database; an exact repeat is what a client's retry looks like"


@pytest.fixture
def model(both: Both) -> Both:
    """Both servers with {experiment}, {run} and a {model} that the run made."""
    both.new_experiment()
    both.new_run()
    create(both, "model", source_run_id="{run}", model_type="sklearn", params={"a": "1"}, tags={"t": "v"})
    return both


def create(
    both: Both, bound: str, *, params: dict[str, str] | None = None, tags: dict[str, str] | None = None, **fields: Any
) -> None:
    request = {"experiment_id": "{experiment}", "name": bound, "params": pairs(params), "tags": pairs(tags), **fields}
    both.call("POST", "logged-models", json=request)
    both.bind(bound, "model.info.model_id")


def pairs(values: dict[str, str] | None) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in (values or {}).items()]


def test_a_logged_model_is_created_finalized_and_read_back(model: Both) -> None:
    model.call("GET", "logged-models/{model}")
    model.call("PATCH", "logged-models/{model}", json={"model_id": "{model}", "status": "LOGGED_MODEL_READY"})
    model.call("GET", "/ajax-api/2.0/mlflow/logged-models/{model}")


def test_a_logged_model_without_a_name_gets_one(both: Both) -> None:
    both.new_experiment()
    answer = both.call("POST", "logged-models", json={"experiment_id": "{experiment}"}, ignore=("name",))
    assert answer.at("model.info.name").count("-") == 2


@pytest.mark.parametrize("status", ["LOGGED_MODEL_UPLOAD_FAILED", "LOGGED_MODEL_PENDING", 2, "3", 0])
def test_a_status_is_a_name_or_a_number(model: Both, status: Any) -> None:
    model.call("PATCH", "logged-models/{model}", json={"model_id": "{model}", "status": status})


@pytest.mark.parametrize("status", ["LOGGED_MODEL_NICE", 9, True])
def test_an_unknown_status_is_refused_where_mlflow_stores_unspecified(model: Both, status: Any) -> None:
    model.call(
        "PATCH",
        "logged-models/{model}",
        json={"model_id": "{model}", "status": status},
        deviation=Deviation((200, None), (400, "INVALID_PARAMETER_VALUE"), why="a typo would lose the status"),
    )


@pytest.mark.parametrize(
    "request_body",
    [
        {"name": "x"},
        {"experiment_id": "", "name": "x"},
        {"experiment_id": "abc"},
        {"experiment_id": "98765432"},
        {"experiment_id": "{experiment}", "name": 3},
        {"experiment_id": "{experiment}", "params": "x"},
        {"experiment_id": "{experiment}", "tags": {"a": "b"}},
        {"experiment_id": "{experiment}", "source_run_id": 7},
        *({"experiment_id": "{experiment}", "name": name} for name in ("a/b", "a:b", "a.b", "a%b", 'a"b', "a'b")),
        {
            "experiment_id": "{experiment}",
            "name": "x",
            "params": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}],
        },
        {
            "experiment_id": "{experiment}",
            "name": "x",
            "tags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}],
        },
    ],
)
def test_a_bad_creation_is_refused_alike(both: Both, request_body: dict[str, Any]) -> None:
    both.new_experiment()
    both.call("POST", "logged-models", json=request_body)
    both.call("POST", "logged-models/search", json={"experiment_ids": ["{experiment}"]})


def test_a_name_has_its_limit(both: Both) -> None:
    both.new_experiment()
    both.call("POST", "logged-models", json={"experiment_id": "{experiment}", "name": "n" * 500})
    both.call(
        "POST",
        "logged-models",
        json={"experiment_id": "{experiment}", "name": "n" * 501},
        deviation=Deviation(
            (200, None), (400, "INVALID_PARAMETER_VALUE"), why="500 characters are the width of MLflow's own column"
        ),
    )


def test_a_bad_name_is_refused_in_the_same_words(both: Both) -> None:
    both.new_experiment()
    both.call("POST", "logged-models", json={"experiment_id": "{experiment}", "name": "a/b"}, message=True)
    both.call("POST", "logged-models", json={"experiment_id": "98765432", "name": "a"}, message=True)
    both.call("GET", f"logged-models/{UNKNOWN}", message=True)


def test_no_logged_model_is_created_in_a_deleted_experiment(both: Both) -> None:
    both.new_experiment()
    both.call("POST", "experiments/delete", json={"experiment_id": "{experiment}"})
    both.call("POST", "logged-models", json={"experiment_id": "{experiment}", "name": "x"}, message=True)


def test_a_source_run_that_does_not_exist_is_kept_as_it_was_given(both: Both) -> None:
    both.new_experiment()
    create(both, "model", source_run_id="0123456789abcdef0123456789abcdef")
    both.call("GET", "logged-models/{model}")


def test_a_source_run_that_cannot_exist_is_refused(both: Both) -> None:
    both.new_experiment()
    both.call(
        "POST",
        "logged-models",
        json={"experiment_id": "{experiment}", "name": "x", "source_run_id": "../../etc"},
        deviation=Deviation((200, None), (400, "INVALID_PARAMETER_VALUE"), why="ids have one shape"),
    )


def test_params_are_added_and_a_changed_value_is_refused(model: Both) -> None:
    model.call(
        "POST", "logged-models/{model}/params", json={"model_id": "{model}", "params": pairs({"b": "2", "c": ""})}
    )
    model.call(
        "POST", "logged-models/{model}/params", json={"model_id": "{model}", "params": pairs({"d": "4", "b": "3"})}
    )
    model.call("POST", "logged-models/{model}/params", json={"model_id": "{model}"})
    model.call("POST", "logged-models/{model}/params", json={"params": pairs({"e": "5"})}, message=True)
    model.call("POST", f"logged-models/{UNKNOWN}/params", json={"model_id": UNKNOWN, "params": pairs({"e": "5"})})
    model.call("GET", "logged-models/{model}")


def test_the_same_param_again_is_absorbed(model: Both) -> None:
    model.call(
        "POST",
        "logged-models/{model}/params",
        json={"model_id": "{model}", "params": pairs({"a": "1"})},
        deviation=Deviation((400, "BAD_REQUEST"), (200, None), why=INTEGRITY),
    )


def test_tags_are_set_overwritten_and_deleted(model: Both) -> None:
    tags = [{"key": "t", "value": "w"}, {"key": "t", "value": "z"}, {"key": "u"}]
    model.call("PATCH", "logged-models/{model}/tags", json={"tags": tags})
    model.call("PATCH", "logged-models/{model}/tags", json={})
    model.call("GET", "logged-models/{model}")
    model.call("DELETE", "logged-models/{model}/tags/u")
    model.call("DELETE", "logged-models/{model}/tags/u", message=True)
    model.call("GET", "logged-models/{model}")
    model.call("PATCH", f"logged-models/{UNKNOWN}/tags", json={"tags": tags})
    model.call("DELETE", f"logged-models/{UNKNOWN}/tags/u")


def test_a_deleted_logged_model_is_found_only_when_asked_for(model: Both) -> None:
    model.call("DELETE", "logged-models/{model}", json={"model_id": "{model}"})
    model.call("GET", "logged-models/{model}", message=True)
    model.call("GET", "logged-models/{model}", params={"allow_deleted": "true"})
    model.call("POST", "logged-models/search", json={"experiment_ids": ["{experiment}"]})
    model.call("GET", "logged-models/{model}/artifacts/directories")
    model.call("DELETE", "logged-models/{model}")
    model.call("PATCH", "logged-models/{model}", json={"model_id": "{model}", "status": 2})


@pytest.mark.parametrize("bad", ["nope", "m-1", UNKNOWN, UNKNOWN.upper(), "m-" + "g" * 32, f"{UNKNOWN}0"])
def test_an_unknown_logged_model_is_not_found(both: Both, bad: str) -> None:
    both.call("GET", f"logged-models/{bad}")
    both.call("DELETE", f"logged-models/{bad}")
    both.call("PATCH", f"logged-models/{bad}", json={"model_id": bad, "status": 2})
    both.call("GET", f"logged-models/{bad}/artifacts/directories")


def test_finalizing_needs_status_and_model_id(model: Both) -> None:
    model.call("PATCH", "logged-models/{model}", json={"status": 2}, message=True)
    model.call("PATCH", "logged-models/{model}", json={"model_id": "{model}"}, message=True)


def test_a_body_that_names_another_model_than_the_path_is_refused(model: Both) -> None:
    create(model, "other")
    model.call(
        "PATCH",
        "logged-models/{model}",
        json={"model_id": "{other}", "status": 2},
        deviation=Deviation((200, None), (400, "INVALID_PARAMETER_VALUE"), why="MLflow changes the body's model"),
    )


def test_points_that_name_a_model_are_points_of_the_run_and_of_the_model(model: Both) -> None:
    point = {"key": "a", "value": 0.5, "timestamp": 1, "model_id": "{model}"}
    model.call("POST", "runs/log-metric", json={"run_id": "{run}", **point, "dataset_name": "d", "dataset_digest": "x"})
    model.call(
        "POST",
        "runs/log-batch",
        json={"run_id": "{run}", "metrics": [point | {"key": "b", "step": 4}, point | {"key": "b", "step": 5}]},
    )
    model.call("GET", "logged-models/{model}")
    model.call("GET", "runs/get", params={"run_id": "{run}"})
    model.call("POST", "runs/log-metric", json={"run_id": "{run}", **point, "dataset_name": "d", "dataset_digest": "x"})
    model.call("GET", "logged-models/{model}")


def test_a_point_that_contradicts_another_of_the_same_model_step_and_time_is_refused(model: Both) -> None:
    point = {"run_id": "{run}", "key": "k", "timestamp": 1, "model_id": "{model}"}
    model.call("POST", "runs/log-metric", json=point | {"value": 1})
    model.call("POST", "runs/log-metric", json=point | {"value": 2})
    model.call("GET", "logged-models/{model}")


def test_a_point_of_an_unknown_model_is_refused_and_not_logged(model: Both) -> None:
    point = {"key": "k", "value": 1, "timestamp": 1, "model_id": UNKNOWN}
    model.call("POST", "runs/log-metric", json={"run_id": "{run}", **point})
    model.call("GET", "runs/get", params={"run_id": "{run}"})


def test_the_folder_of_a_model_without_files_is_empty(model: Both) -> None:
    model.call("GET", "logged-models/{model}/artifacts/directories")
    model.call("GET", "logged-models/{model}/artifacts/directories", params={"artifact_directory_path": "x"})
    model.call("GET", "logged-models/{model}/artifacts/directories", params={"artifact_directory_path": "../x"})


def test_files_of_a_model_are_listed_and_read(model: Both) -> None:
    root = "/api/2.0/mlflow-artifacts/artifacts/{experiment}/models/{model}/artifacts"
    model.call("PUT", f"{root}/MLmodel", content=b"flavors:\n")
    model.call("PUT", f"{root}/code/a.py", content=b"a = 1\n")
    model.call("GET", "logged-models/{model}/artifacts/directories")
    model.call("GET", "logged-models/{model}/artifacts/directories", params={"artifact_directory_path": "code"})
    files = "/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files"
    model.call("GET", files, params={"artifact_file_path": "code/a.py"}, compare_headers=("content-type",))
    model.call("GET", files, params={"artifact_file_path": "../../x"})
    model.call("GET", files)


@pytest.fixture
def several(both: Both) -> Both:
    both.new_experiment()
    both.new_run()
    create(both, "one", params={"lr": "0.1"}, tags={"stage": "dev", "team": "a"}, model_type="sklearn")
    create(both, "two", params={"lr": "0.2"}, tags={"stage": "Prod"}, source_run_id="{run}")
    create(both, "three", params={"lr": "0.2", "x": "y"}, tags={"stage": "dev"})
    return both


@pytest.mark.parametrize(
    "filter_string",
    [
        "name = 'one'",
        "name != 'one'",
        "name LIKE 't%'",
        "name like 'T%'",
        "name ILIKE 'T%'",
        "name IN ('one', 'two')",
        "name NOT IN ('one')",
        "attributes.name = 'one'",
        "params.lr = '0.2'",
        "params.`lr` = '0.2'",
        "params.lr != '0.2'",
        "params.lr = '0.2' AND tags.stage = 'dev'",
        "tags.stage ILIKE 'prod'",
        "tags.stage IN ('dev')",
        "tags.missing = 'x'",
        "source_run_id = '{run}'",
        "source_run_id != '{run}'",
        "model_type = 'sklearn'",
        "model_type != 'sklearn'",
        "model_id = '{two}'",
        "creation_timestamp > 0",
        "creation_time < 5 AND name = 'one'",
        "attributes.creation_timestamp_ms >= 1e3",
        "last_updated_timestamp != 7",
        "status = '1'",
        "",
    ],
)
def test_a_filter_selects_the_same_logged_models(several: Both, filter_string: str) -> None:
    several.call(
        "POST",
        "logged-models/search",
        json={"experiment_ids": ["{experiment}"], "filter": filter_string, "order_by": [{"field_name": "name"}]},
    )


@pytest.mark.parametrize(
    "search",
    [
        {"filter": "name > 'one'"},
        {"filter": "creation_timestamp LIKE 'x'"},
        {"filter": "name = 'one' OR name = 'two'"},
        {"filter": "nonsense"},
        {"filter": "dataset.name = 'x'"},
        {"filter": 7},
        {"order_by": [{"field_name": "nonsense"}]},
        {"order_by": [{"field_name": "params.lr"}]},
        {"order_by": "name"},
        {"page_token": "bm9uc2Vuc2U="},
        {"max_results": "many"},
        {"experiment_ids": "x"},
        {"experiment_ids": ["abc"]},
    ],
)
def test_a_bad_search_is_refused_alike(several: Both, search: dict[str, Any]) -> None:
    several.call("POST", "logged-models/search", json={"experiment_ids": ["{experiment}"]} | search)


def test_a_search_of_no_experiments_finds_nothing_and_experiments_must_be_named(several: Both) -> None:
    several.call("POST", "logged-models/search", json={"experiment_ids": []})
    several.call("POST", "logged-models/search", json={}, message=True)


@pytest.mark.parametrize(
    "order_by",
    [
        [{"field_name": "name", "ascending": False}],
        [{"field_name": "creation_timestamp"}, {"field_name": "name"}],
        [{"field_name": "model_type"}, {"field_name": "name"}],
        [{"field_name": "status", "ascending": False}, {"field_name": "name", "ascending": True}],
    ],
)
def test_an_order_is_followed(several: Both, order_by: list[dict[str, Any]]) -> None:
    request = {"experiment_ids": ["{experiment}"], "order_by": order_by}
    several.call("POST", "logged-models/search", json=request)


def test_pages_of_a_search_follow_each_other(several: Both) -> None:
    request = {"experiment_ids": ["{experiment}"], "order_by": [{"field_name": "name"}], "max_results": 2}
    several.call("POST", "logged-models/search", json=request, ignore=("next_page_token",))
    several.bind("token", "next_page_token")
    several.call("POST", "logged-models/search", json=request | {"page_token": "{token}"})
    several.call("POST", "logged-models/search", json=request | {"page_token": "{token}", "filter": "name = 'x'"})

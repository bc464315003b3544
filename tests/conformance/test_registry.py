"""Registered models, their tags and aliases: the same calls to MLflow's server and to ours."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation

BAD = (400, "INVALID_PARAMETER_VALUE")
CRASH = (500, "INTERNAL_ERROR")


@pytest.fixture
def model(both: Both) -> Both:
    """Both servers with a registered model {name} that has no versions."""
    both.name("name", both.unique("model"))
    both.call("POST", "registered-models/create", json={"name": "{name}", "description": "first"})
    return both


@pytest.fixture
def versions(model: Both) -> Both:
    """{name} with three versions, of a run {run}."""
    model.new_experiment()
    model.new_run()
    for _ in range(3):
        add_version(model)
    return model


def add_version(both: Both, **fields: Any) -> None:
    request = {"name": "{name}", "source": "runs:/{run}/model", "run_id": "{run}", **fields}
    both.call("POST", "model-versions/create", json=request)


def pairs(**values: str) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def test_a_registered_model_is_created_and_read_back(both: Both) -> None:
    both.name("name", both.unique("model"))
    request = {"name": "{name}", "description": "what it is", "tags": pairs(a="1", b="")}
    both.call("POST", "registered-models/create", json=request)
    both.call("GET", "registered-models/get", params={"name": "{name}"})
    both.call("GET", "/ajax-api/2.0/mlflow/registered-models/get", params={"name": "{name}"})


def test_of_a_tag_given_twice_the_last_value_counts(both: Both) -> None:
    both.name("name", both.unique("model"))
    request = {"name": "{name}", "tags": [*pairs(a="1"), *pairs(a="2"), {"key": "c"}]}
    both.call("POST", "registered-models/create", json=request)


@pytest.mark.parametrize("name", ["two words", "ünï", "a.b", "a%20b", "a%2fb", "a?b#c", "-", "m-1", "x" * 256, "a\\b"])
def test_a_good_name_names_one_model(both: Both, name: str) -> None:
    own = f"{name[:-9]}-{both.unique('')[-8:]}" if len(name) == 256 else f"{name}{both.unique()}"
    both.name("name", own)
    both.call("POST", "registered-models/create", json={"name": "{name}"})
    both.call("GET", "registered-models/get", params={"name": "{name}"})
    both.call("POST", "registered-models/create", json={"name": "{name}"}, message=True)


@pytest.mark.parametrize("name", ["", " ", "\t", "a/b", "a:b", "/", ".", "..", "../x", None, 7, ["a"], {"a": 1}, True])
def test_a_bad_name_is_refused_alike(both: Both, name: Any) -> None:
    both.call("POST", "registered-models/create", json={"name": name})
    both.call("GET", "registered-models/get", params={"name": name if isinstance(name, str) else ""})
    both.call("PATCH", "registered-models/update", json={"name": name, "description": "x"})
    both.call("DELETE", "registered-models/delete", json={"name": name})
    both.call("POST", "registered-models/get-latest-versions", json={"name": name})


@pytest.mark.parametrize("name", ["a/b", "a:b", ".", "./x"])
def test_a_bad_name_is_refused_in_the_same_words(both: Both, name: str) -> None:
    both.call("POST", "registered-models/create", json={"name": name}, message=True)
    both.call("GET", "registered-models/get", params={"name": name}, message=True)


def test_a_name_longer_than_mlflows_column_is_refused(both: Both) -> None:
    both.call(
        "POST",
        "registered-models/create",
        json={"name": "x" * 248 + both.unique("")},
        deviation=Deviation((200, None), BAD, why="SQLite keeps no limit of its columns, MLflow's others do"),
    )


def test_a_name_is_never_decoded_so_an_encoded_twin_is_another_model(both: Both) -> None:
    """CVE-2024-3099: `a%62` and `ab` must not meet."""
    both.name("plain", both.unique("ab"))
    both.name("twin", "a%62" + both.sides[0].bound["plain"][2:])
    both.call("POST", "registered-models/create", json={"name": "{plain}", "description": "plain"})
    both.call("GET", "registered-models/get", params={"name": "{twin}"}, message=True)
    both.call("POST", "registered-models/create", json={"name": "{twin}", "description": "twin"})
    both.call("GET", "registered-models/get", params={"name": "{plain}"})


@pytest.mark.parametrize(
    "fields",
    [
        {"tags": "x"},
        {"tags": {"a": "b"}},
        {"tags": [{"key": ""}]},
        {"tags": [{"value": "x"}]},
        {"tags": [{"key": "a$b", "value": "x"}]},
        {"tags": [{"key": "a/../b", "value": "x"}]},
        {"tags": [{"key": "k" * 251, "value": "x"}]},
        {"tags": [{"key": "k", "value": "x" * 100_001}]},
        {"tags": [{"key": 1, "value": "x"}]},
        {"description": 7},
        {"description": ["x"]},
    ],
)
def test_a_bad_creation_is_refused_alike_and_creates_nothing(both: Both, fields: dict[str, Any]) -> None:
    both.name("name", both.unique("model"))
    both.call("POST", "registered-models/create", json={"name": "{name}", **fields})
    both.call("GET", "registered-models/get", params={"name": "{name}"})


def test_an_unknown_model_is_not_found(both: Both) -> None:
    both.name("name", both.unique("nothing"))
    both.call("GET", "registered-models/get", params={"name": "{name}"}, message=True)
    both.call("PATCH", "registered-models/update", json={"name": "{name}", "description": "x"}, message=True)
    both.call("POST", "registered-models/rename", json={"name": "{name}", "new_name": "y"}, message=True)
    both.call("DELETE", "registered-models/delete", json={"name": "{name}"}, message=True)
    both.call("POST", "registered-models/get-latest-versions", json={"name": "{name}"}, message=True)
    both.call("POST", "registered-models/set-tag", json={"name": "{name}", "key": "a", "value": "b"}, message=True)
    both.call("DELETE", "registered-models/delete-tag", json={"name": "{name}", "key": "a"}, message=True)
    both.call("GET", "registered-models/alias", params={"name": "{name}", "alias": "a"}, message=True)
    both.call("DELETE", "registered-models/alias", json={"name": "{name}", "alias": "a"}, message=True)
    both.call("POST", "registered-models/alias", json={"name": "{name}", "alias": "a", "version": "1"}, message=True)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "registered-models/create"),
        ("GET", "registered-models/get"),
        ("POST", "registered-models/rename"),
        ("PATCH", "registered-models/update"),
        ("DELETE", "registered-models/delete"),
        ("POST", "registered-models/get-latest-versions"),
        ("GET", "registered-models/get-latest-versions"),
        ("POST", "registered-models/set-tag"),
        ("DELETE", "registered-models/delete-tag"),
        ("POST", "registered-models/alias"),
        ("DELETE", "registered-models/alias"),
        ("GET", "registered-models/alias"),
    ],
)
def test_a_request_without_its_parameters_is_refused(both: Both, method: str, path: str) -> None:
    if method == "GET":
        both.call(method, path)
        both.call(method, f"/ajax-api/2.0/mlflow/{path}")
    else:
        both.call(method, path, json={})
        both.call(method, f"/ajax-api/2.0/mlflow/{path}", json={})


@pytest.mark.parametrize("path", ["registered-models/search", "model-versions/search"])
def test_searches_are_asked_by_get_alone(both: Both, path: str) -> None:
    both.call("POST", path, json={}, body=False, deviation=Deviation((405, None), (404, "ENDPOINT_NOT_FOUND"), "ours"))


def test_a_description_is_replaced_and_left_out_it_becomes_empty(model: Both) -> None:
    model.call("PATCH", "registered-models/update", json={"name": "{name}", "description": "second"})
    model.call("PATCH", "registered-models/update", json={"name": "{name}"})
    model.call("GET", "registered-models/get", params={"name": "{name}"})


def test_a_renamed_model_keeps_everything(versions: Both) -> None:
    versions.name("new", versions.unique("renamed"))
    versions.call("POST", "registered-models/set-tag", json={"name": "{name}", "key": "a", "value": "b"})
    versions.call("POST", "registered-models/alias", json={"name": "{name}", "alias": "best", "version": "2"})
    versions.call("POST", "model-versions/set-tag", json={"name": "{name}", "version": "2", "key": "c", "value": "d"})
    versions.call("POST", "registered-models/rename", json={"name": "{name}", "new_name": "{new}"})
    versions.call("GET", "registered-models/get", params={"name": "{name}"})
    versions.call("GET", "registered-models/get", params={"name": "{new}"})
    versions.call("GET", "registered-models/alias", params={"name": "{new}", "alias": "best"})
    add_version(versions, name="{new}")


def test_a_rename_to_its_own_name_is_fine_and_to_a_taken_or_bad_one_is_not(model: Both) -> None:
    model.name("other", model.unique("other"))
    model.call("POST", "registered-models/create", json={"name": "{other}"})
    model.call("POST", "registered-models/rename", json={"name": "{name}", "new_name": "{name}"})
    model.call("POST", "registered-models/rename", json={"name": "{name}", "new_name": "{other}"})
    for bad in ("", " ", "a/b", "..", 7):
        model.call("POST", "registered-models/rename", json={"name": "{name}", "new_name": bad})
    model.call("POST", "registered-models/rename", json={"name": "{name}"}, body=False)
    model.call("GET", "registered-models/get", params={"name": "{name}"})


def test_a_deleted_model_is_gone_and_its_name_and_numbers_are_free_again(versions: Both) -> None:
    versions.call("DELETE", "registered-models/delete", json={"name": "{name}"})
    versions.call("GET", "registered-models/get", params={"name": "{name}"})
    versions.call("GET", "model-versions/get", params={"name": "{name}", "version": "1"})
    versions.call("DELETE", "registered-models/delete", json={"name": "{name}"})
    versions.call("POST", "registered-models/create", json={"name": "{name}"})
    add_version(versions)
    versions.call("GET", "registered-models/get", params={"name": "{name}"})


def test_tags_are_set_overwritten_and_deleted(model: Both) -> None:
    for value in ("1", "2", ""):
        model.call("POST", "registered-models/set-tag", json={"name": "{name}", "key": "a", "value": value})
        model.call("GET", "registered-models/get", params={"name": "{name}"})
    model.call("POST", "registered-models/set-tag", json={"name": "{name}", "key": "b c/d:e", "value": "ü" * 100_000})
    model.call("POST", "registered-models/set-tag", json={"name": "{name}", "key": "only"})
    model.call("DELETE", "registered-models/delete-tag", json={"name": "{name}", "key": "a"})
    model.call("DELETE", "registered-models/delete-tag", json={"name": "{name}", "key": "a"})
    model.call("GET", "registered-models/get", params={"name": "{name}"})


@pytest.mark.parametrize("key", ["", "a$b", "../a", "a//b", "k" * 251, 3, None])
def test_a_bad_tag_key_is_refused_alike(model: Both, key: Any) -> None:
    model.call("POST", "registered-models/set-tag", json={"name": "{name}", "key": key, "value": "x"})
    if not (isinstance(key, str) and len(key) > 250):
        model.call("DELETE", "registered-models/delete-tag", json={"name": "{name}", "key": key})


def test_a_tag_value_too_long_is_refused_in_the_same_words(model: Both) -> None:
    request = {"name": "{name}", "key": "a", "value": "x" * 100_001}
    model.call("POST", "registered-models/set-tag", json=request, message=True)


def test_an_alias_is_set_moved_read_and_deleted(versions: Both) -> None:
    for version in ("1", "3"):
        versions.call("POST", "registered-models/alias", json={"name": "{name}", "alias": "best", "version": version})
        versions.call("POST", "registered-models/alias", json={"name": "{name}", "alias": "Best_2", "version": "3"})
        versions.call("GET", "registered-models/alias", params={"name": "{name}", "alias": "best"})
        versions.call("GET", "registered-models/get", params={"name": "{name}"}, ignore=())
    versions.call("GET", "model-versions/get", params={"name": "{name}", "version": "3"})
    versions.call("GET", "model-versions/get", params={"name": "{name}", "version": "1"})
    versions.call("DELETE", "registered-models/alias", json={"name": "{name}", "alias": "best"})
    versions.call("DELETE", "registered-models/alias", json={"name": "{name}", "alias": "best"})
    versions.call("GET", "registered-models/alias", params={"name": "{name}", "alias": "best"}, message=True)
    versions.call("GET", "registered-models/alias", params={"name": "{name}", "alias": "BEST_2"}, message=True)


@pytest.mark.parametrize(
    "alias", ["", "a b", "a/b", "a@b", "ä", "latest", "LATEST", "v1", "V22", "v1a", "1", "x" * 256]
)
def test_an_alias_is_refused_alike(versions: Both, alias: str) -> None:
    request = {"name": "{name}", "alias": alias, "version": "1"}
    versions.call("POST", "registered-models/alias", json=request, message=alias != "")
    versions.call("GET", "registered-models/alias", params={"name": "{name}", "alias": alias})
    versions.call("DELETE", "registered-models/alias", json={"name": "{name}", "alias": alias})


def test_the_alias_latest_is_the_newest_version_of_all(versions: Both) -> None:
    versions.call("GET", "registered-models/alias", params={"name": "{name}", "alias": "latest"})
    versions.call("DELETE", "model-versions/delete", json={"name": "{name}", "version": "3"})
    versions.call(
        "POST", "model-versions/transition-stage", json={"name": "{name}", "version": "2", "stage": "Archived"}
    )
    versions.call("GET", "registered-models/alias", params={"name": "{name}", "alias": "Latest"})


def test_a_model_without_versions_has_no_latest_one(model: Both) -> None:
    model.call("GET", "registered-models/alias", params={"name": "{name}", "alias": "latest"}, message=True)
    model.call("POST", "registered-models/get-latest-versions", json={"name": "{name}"})


@pytest.mark.parametrize("version", ["9", "0", "-1", "x", "", "1.0", " 1", "1_0", 1, None])
def test_an_alias_needs_a_version_that_exists(versions: Both, version: Any) -> None:
    versions.call("POST", "registered-models/alias", json={"name": "{name}", "alias": "a", "version": version})
    versions.call("GET", "registered-models/get", params={"name": "{name}"})


def test_a_version_number_beyond_every_column_is_not_found(versions: Both) -> None:
    versions.call(
        "POST",
        "registered-models/alias",
        json={"name": "{name}", "alias": "a", "version": "9" * 30},
        deviation=Deviation(CRASH, (404, "RESOURCE_DOES_NOT_EXIST"), why="MLflow fails in its database"),
    )


def test_a_tag_value_that_is_no_text_is_refused_where_mlflow_forgets_it(both: Both) -> None:
    both.call(
        "POST",
        "registered-models/create",
        json={"name": both.unique("model"), "tags": [{"key": "a", "value": 1}]},
        deviation=Deviation((200, None), BAD, why="MLflow stores an empty value: what was sent would be lost"),
    )


def test_latest_versions_are_those_of_each_stage(versions: Both) -> None:
    add_version(versions)
    for version, stage in (("1", "Production"), ("2", "production"), ("4", "STAGING")):
        request = {"name": "{name}", "version": version, "stage": stage}
        versions.call("POST", "model-versions/transition-stage", json=request)
    versions.call("POST", "registered-models/alias", json={"name": "{name}", "alias": "best", "version": "2"})
    versions.call("GET", "registered-models/get", params={"name": "{name}"})
    for stages in ([], ["None"], ["production", "Staging"], ["Archived"], ["nonsense"], "Production", [1]):
        request = {"name": "{name}", "stages": stages}
        versions.call("POST", "registered-models/get-latest-versions", json=request)
    versions.call("GET", "registered-models/get-latest-versions", params={"name": "{name}"})
    query = [("name", "{name}"), ("stages", "Production"), ("stages", "Staging")]
    for side in versions.sides:
        side.bound["query"] = "&".join(f"{key}={side.fill(value)}" for key, value in query)
    versions.call("GET", "registered-models/get-latest-versions?{query}")
    versions.call(
        "POST", "registered-models/get-latest-versions", json={"name": "{name}", "stages": ["x"]}, message=True
    )

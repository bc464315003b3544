"""Model versions, their stages, tags and lineage: the same calls to MLflow's server and to ours."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation

BAD = (400, "INVALID_PARAMETER_VALUE")
CRASH = (500, "INTERNAL_ERROR")


@pytest.fixture
def model(both: Both) -> Both:
    """Both servers with a registered model {name}, and a run {run} that made a logged model {model}."""
    both.name("name", both.unique("model"))
    both.call("POST", "registered-models/create", json={"name": "{name}"})
    both.new_experiment()
    both.new_run()
    request = {"experiment_id": "{experiment}", "name": "made", "source_run_id": "{run}"}
    both.call("POST", "logged-models", json=request)
    both.bind("model", "model.info.model_id")
    return both


@pytest.fixture
def versions(model: Both) -> Both:
    """{name} with three versions."""
    for _ in range(3):
        model.call("POST", "model-versions/create", json=of_run())
    return model


def of_run(**fields: Any) -> dict[str, Any]:
    return {"name": "{name}", "source": "runs:/{run}/model", "run_id": "{run}", **fields}


def pairs(**values: str) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def test_versions_are_numbered_and_read_back(model: Both) -> None:
    model.call("POST", "model-versions/create", json=of_run())
    model.call("POST", "model-versions/create", json=of_run(description="d", run_link="http://l", tags=pairs(a="1")))
    for version in ("1", "2"):
        model.call("GET", "model-versions/get", params={"name": "{name}", "version": version})
        model.call("GET", "/ajax-api/2.0/mlflow/model-versions/get", params={"name": "{name}", "version": version})
        model.call("GET", "model-versions/get-download-uri", params={"name": "{name}", "version": version})
    model.call("GET", "registered-models/get", params={"name": "{name}"})


def test_a_deleted_versions_number_is_not_given_out_again(versions: Both) -> None:
    versions.call("POST", "registered-models/alias", json={"name": "{name}", "alias": "best", "version": "3"})
    versions.call("DELETE", "model-versions/delete", json={"name": "{name}", "version": "3"})
    versions.call("GET", "model-versions/get", params={"name": "{name}", "version": "3"}, message=True)
    versions.call("GET", "model-versions/get-download-uri", params={"name": "{name}", "version": "3"}, message=True)
    versions.call("DELETE", "model-versions/delete", json={"name": "{name}", "version": "3"}, message=True)
    versions.call("GET", "registered-models/alias", params={"name": "{name}", "alias": "best"}, message=True)
    versions.call("POST", "model-versions/create", json=of_run())
    versions.call("GET", "registered-models/get", params={"name": "{name}"})


@pytest.mark.parametrize(
    "source",
    [
        "runs:/{run}",
        "runs:/{run}/",
        "runs:/{run}/a/b c/d",
        "runs:/{run}/model/",
        "mlflow-artifacts:/{experiment}/{run}/artifacts",
        "mlflow-artifacts:/{experiment}/{run}/artifacts/model",
    ],
)
def test_a_place_in_its_run_is_a_source(model: Both, source: str) -> None:
    model.call("POST", "model-versions/create", json=of_run(source=source))
    model.call("GET", "model-versions/get-download-uri", params={"name": "{name}", "version": "1"})


def test_a_place_in_its_logged_model_is_a_source_and_the_run_is_the_models(model: Both) -> None:
    root = "mlflow-artifacts:/{experiment}/models/{model}/artifacts"
    for number, source in enumerate(("models:/{model}", root, f"{root}/code"), start=1):
        for fields in ({}, {"run_id": "{run}"}, {"run_id": ""}):
            request = {"name": "{name}", "source": source, "model_id": "{model}", **fields}
            model.call("POST", "model-versions/create", json=request)
        version = str(3 * number)
        model.call("GET", "model-versions/get-download-uri", params={"name": "{name}", "version": version})
    answer = model.call("GET", "logged-models/{model}")
    tags = {tag["key"]: tag["value"] for tag in answer.at("model.info.tags")}
    assert tags["mlflow.modelVersions"].count('"version"') == 9


def test_a_logged_model_that_no_run_made_has_no_run(model: Both) -> None:
    model.call("POST", "logged-models", json={"experiment_id": "{experiment}", "name": "alone"})
    model.bind("alone", "model.info.model_id")
    model.call(
        "POST",
        "model-versions/create",
        json={"name": "{name}", "source": "models:/{alone}", "model_id": "{alone}"},
    )
    model.call("GET", "logged-models/{alone}")


def test_a_copy_of_a_version_has_its_place_and_its_run(versions: Both) -> None:
    versions.name("copy", versions.unique("copy"))
    versions.call("POST", "registered-models/create", json={"name": "{copy}"})
    versions.call(
        "POST",
        "model-versions/create",
        json={"name": "{name}", "source": "models:/{model}", "model_id": "{model}"},
    )
    versions.call("POST", "registered-models/alias", json={"name": "{name}", "alias": "best", "version": "2"})
    versions.call(
        "POST", "model-versions/transition-stage", json={"name": "{name}", "version": "3", "stage": "Staging"}
    )
    suffixes = ("/1", "/4", "/latest", "/Latest", "/staging", "/None", "@best", "@latest", "/01")
    for number, suffix in enumerate(suffixes, start=1):
        versions.call("POST", "model-versions/create", json={"name": "{copy}", "source": "models:/{name}" + suffix})
        versions.call("GET", "model-versions/get-download-uri", params={"name": "{copy}", "version": str(number)})
    versions.call("POST", "model-versions/create", json={"name": "{copy}", "source": "models:/{copy}/2"})
    versions.call("GET", "model-versions/get-download-uri", params={"name": "{copy}", "version": "10"})
    versions.call("POST", "model-versions/create", json={"name": "{copy}", "source": "models:/{name}/1", "run_id": ""})
    versions.call(
        "POST", "model-versions/create", json={"name": "{copy}", "source": "models:/{name}/1", "run_id": "{run}"}
    )
    versions.call(
        "POST", "model-versions/create", json={"name": "{copy}", "source": "models:/{name}/4", "model_id": "{model}"}
    )
    versions.call(
        "POST", "model-versions/create", json={"name": "{copy}", "source": "models:/{name}/4", "model_id": ""}
    )


@pytest.mark.parametrize("suffix", ["/9", "/0", "@nobody", "@v1", "@a b", "@", "/nonsense", "/..", "/1/2", "/", "/ "])
def test_a_copy_of_what_is_not_there_is_refused_alike(versions: Both, suffix: str) -> None:
    versions.call("POST", "model-versions/create", json={"name": "{name}", "source": "models:/{name}" + suffix})
    versions.call("GET", "registered-models/get", params={"name": "{name}"})


@pytest.mark.parametrize("suffix", ["/latest", "/Production", "@latest"])
def test_a_copy_from_a_model_without_versions_is_not_found(model: Both, suffix: str) -> None:
    answers = {"@latest": (404, "RESOURCE_DOES_NOT_EXIST")}
    model.call(
        "POST",
        "model-versions/create",
        json={"name": "{name}", "source": "models:/{name}" + suffix},
        deviation=Deviation(answers.get(suffix, CRASH), (404, "RESOURCE_DOES_NOT_EXIST"), why="a client's mistake"),
    )


def test_a_copy_from_an_unknown_model_is_not_found(model: Both) -> None:
    for source in ("models:/nothing-here/1", "models:/nothing-here@best", "models:/{model}/model"):
        model.call("POST", "model-versions/create", json={"name": "{name}", "source": source}, message=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"source": ""},
        {"source": None},
        {"source": 7},
        {"source": "runs:/{run}/model", "run_id": ""},
        {"source": "runs:/{run}/model", "run_id": "0123456789abcdef0123456789abcdef"},
        {"source": "runs:/{run}/model", "run_id": 7},
        {"source": "runs:/0123456789abcdef0123456789abcdef/model"},
        {"source": "runs://{run}/model"},
        {"source": "runs:{run}/model"},
        {"source": "runs:/"},
        {"source": "runs:/{run}/model", "run_id": "{run}", "model_id": "{model}"},
        {"source": "models:/{model}", "run_id": "{run}"},
        {"source": "models:/{model}", "model_id": ""},
        {"source": "models:/{model}", "model_id": "m-0123456789abcdef0123456789abcdef"},
        {"source": "models://{model}", "model_id": "{model}"},
        {"source": "models:/m-0123456789abcdef0123456789abcdef"},
        {"source": "mlflow-artifacts:/{experiment}/{run}/artifacts/model", "run_id": ""},
        {"source": "mlflow-artifacts:/{experiment}/{run}/artifacts/model", "model_id": "{model}"},
        {"source": "mlflow-artifacts:/{experiment}/{run}/artifactsX"},
        {"source": "mlflow-artifacts:/{experiment}/{run}"},
        {"source": "mlflow-artifacts:/{experiment}/models/{model}/artifacts"},
        {"source": "mlflow-artifacts:/"},
        {"source": "mlflow-artifacts://elsewhere/{experiment}/{run}/artifacts/model"},
        {"tags": "x"},
        {"tags": [{"key": "a$b", "value": "x"}]},
        {"tags": [{"key": "", "value": "x"}]},
        {"tags": [{"key": "mlflow.prompt.text", "value": "x" * 100_001}]},
        {"description": 7},
        {"run_link": 7},
    ],
)
def test_a_bad_creation_is_refused_alike_and_creates_nothing(model: Both, fields: dict[str, Any]) -> None:
    model.call("POST", "model-versions/create", json=of_run() | fields)
    model.call("GET", "registered-models/get", params={"name": "{name}"})


def test_a_query_behind_a_source_is_refused_where_mlflow_passes_over_it(versions: Both) -> None:
    for source in ("models:/{name}/1?x", "runs:/{run}/model?x=/../../..", "runs:/{run}/model#/../.."):
        versions.call(
            "POST",
            "model-versions/create",
            json=of_run(source=source),
            deviation=Deviation((200, None) if ".." not in source else BAD, BAD, why="two readers, two meanings"),
        )


def test_the_sentences_of_a_refusal_are_mlflows(model: Both) -> None:
    for fields in (
        {"source": "runs:/{run}/model", "run_id": ""},
        {"source": "models:/{model}"},
        {"source": "mlflow-artifacts:/{experiment}/{run}/artifacts/model", "model_id": "{model}"},
        {"tags": [{"key": "mlflow.prompt.text", "value": "x" * 100_001}]},
        {"tags": pairs(**{"mlflow.prompt.is_prompt": "true"})},
    ):
        model.call("POST", "model-versions/create", json=of_run() | fields, message=True)


def test_a_version_of_an_unknown_or_badly_named_model_is_refused(model: Both) -> None:
    model.call("POST", "model-versions/create", json=of_run(name="nothing-here"), message=True)
    for name in ("", " ", "a/b", "..", None, 7):
        model.call("POST", "model-versions/create", json=of_run(name=name))


def test_the_source_of_a_run_or_model_that_does_not_exist_is_refused(model: Both) -> None:
    unknown = "0123456789abcdef0123456789abcdef"
    model.call(
        "POST",
        "model-versions/create",
        json=of_run(source=f"runs:/{unknown}/model", run_id=unknown),
        deviation=Deviation((200, None), BAD, why="its files cannot be in our store"),
    )
    source = f"mlflow-artifacts:/1/{unknown}/artifacts"
    model.call("POST", "model-versions/create", json=of_run(source=source, run_id=unknown))
    missing = f"m-{unknown}"
    model.call(
        "POST",
        "model-versions/create",
        json={"name": "{name}", "source": f"models:/{missing}", "model_id": missing},
        deviation=Deviation(CRASH, BAD, why="a client's mistake"),
    )


def test_a_deleted_runs_files_may_be_registered_and_a_deleted_logged_models_may_not(model: Both) -> None:
    model.call("POST", "runs/delete", json={"run_id": "{run}"})
    model.call("POST", "model-versions/create", json=of_run())
    model.call("DELETE", "logged-models/{model}")
    model.call(
        "POST",
        "model-versions/create",
        json={"name": "{name}", "source": "models:/{model}", "model_id": "{model}"},
        deviation=Deviation(CRASH, BAD, why="a client's mistake"),
    )


@pytest.mark.parametrize("version", ["9", "0", "-1", "x", "", "1.0", " 1", "1_0", "+1", 1, None, True])
def test_versions_are_asked_for_by_number(versions: Both, version: Any) -> None:
    of = {"name": "{name}", "version": version}
    query = {"name": "{name}", "version": version if isinstance(version, str) else ""}
    versions.call("GET", "model-versions/get", params=query)
    versions.call("GET", "model-versions/get-download-uri", params=query)
    versions.call("PATCH", "model-versions/update", json={**of, "description": "x"})
    versions.call("POST", "model-versions/set-tag", json={**of, "key": "a", "value": "b"})
    versions.call("DELETE", "model-versions/delete-tag", json={**of, "key": "a"})
    versions.call("POST", "model-versions/transition-stage", json={**of, "stage": "Staging"})
    versions.call("DELETE", "model-versions/delete", json=of)
    versions.call("GET", "registered-models/get", params={"name": "{name}"})


def test_the_sentence_about_a_missing_version_is_mlflows(versions: Both) -> None:
    for version in ("9", "x"):
        query = {"name": "{name}", "version": version}
        versions.call("GET", "model-versions/get", params=query, message=True)
        versions.call("GET", "model-versions/get-download-uri", params=query, message=True)
    versions.call("GET", "model-versions/get", params={"name": "nothing-here", "version": "1"}, message=True)
    versions.call("GET", "model-versions/get", params={"name": "a/b", "version": "1"}, message=True)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "model-versions/create"),
        ("GET", "model-versions/get"),
        ("PATCH", "model-versions/update"),
        ("DELETE", "model-versions/delete"),
        ("POST", "model-versions/transition-stage"),
        ("POST", "model-versions/set-tag"),
        ("DELETE", "model-versions/delete-tag"),
        ("GET", "model-versions/get-download-uri"),
    ],
)
def test_a_request_without_its_parameters_is_refused(both: Both, method: str, path: str) -> None:
    if method == "GET":
        both.call(method, path)
    else:
        both.call(method, path, json={})
        both.call(method, f"/ajax-api/2.0/mlflow/{path}", json={"name": "x"})


def test_a_description_is_replaced_and_left_out_it_is_taken_away(versions: Both) -> None:
    of = {"name": "{name}", "version": "2"}
    versions.call("PATCH", "model-versions/update", json={**of, "description": "new"})
    versions.call("PATCH", "model-versions/update", json={**of, "description": ""})
    versions.call("PATCH", "model-versions/update", json=of)
    versions.call("PATCH", "model-versions/update", json={**of, "description": 7})
    versions.call("GET", "model-versions/get", params=of)


def test_tags_are_set_overwritten_and_deleted(versions: Both) -> None:
    of = {"name": "{name}", "version": "1"}
    for value in ("1", "2", ""):
        versions.call("POST", "model-versions/set-tag", json={**of, "key": "a", "value": value})
    versions.call("POST", "model-versions/set-tag", json={**of, "key": "b"})
    versions.call("DELETE", "model-versions/delete-tag", json={**of, "key": "a"})
    versions.call("DELETE", "model-versions/delete-tag", json={**of, "key": "a"})
    versions.call("GET", "model-versions/get", params=of)
    for key in ("a$b", "../a", "k" * 251, "", 3):
        versions.call("POST", "model-versions/set-tag", json={**of, "key": key, "value": "x"})
    versions.call("POST", "model-versions/set-tag", json={**of, "key": "a", "value": "x" * 100_001}, message=True)


def test_a_version_moves_through_stages_and_may_archive_those_that_are_there(versions: Both) -> None:
    for version, stage, archive in (
        ("1", "Production", False), ("2", "production", False), ("3", "Production", True), ("3", "Production", True),
        ("1", "Staging", True), ("1", "None", False), ("2", "archived", False),
    ):  # fmt: skip
        request = {"name": "{name}", "version": version, "stage": stage, "archive_existing_versions": archive}
        versions.call("POST", "model-versions/transition-stage", json=request)
        for number in ("1", "2", "3"):
            versions.call("GET", "model-versions/get", params={"name": "{name}", "version": number})
    versions.call("GET", "registered-models/get", params={"name": "{name}"})


@pytest.mark.parametrize(
    "fields",
    [{"stage": "Nonsense"}, {"stage": ""}, {"stage": 1}, {"stage": "Staging", "archive_existing_versions": "x"}],
)
def test_a_bad_transition_is_refused_alike(versions: Both, fields: dict[str, Any]) -> None:
    request = {"name": "{name}", "version": "1", **fields}
    versions.call("POST", "model-versions/transition-stage", json=request)
    versions.call("GET", "model-versions/get", params={"name": "{name}", "version": "1"})


@pytest.mark.parametrize("stage", ["None", "Archived"])
def test_only_active_stages_archive_what_is_there(versions: Both, stage: str) -> None:
    versions.call(
        "POST",
        "model-versions/transition-stage",
        json={"name": "{name}", "version": "1", "stage": stage, "archive_existing_versions": True},
        deviation=Deviation(CRASH, BAD, why="a client's mistake"),
    )


def test_a_version_that_cannot_move_archives_nothing(versions: Both) -> None:
    request = {"name": "{name}", "version": "1", "stage": "Staging"}
    versions.call("POST", "model-versions/transition-stage", json=request)
    request |= {"version": "9", "archive_existing_versions": True}
    versions.call("POST", "model-versions/transition-stage", json=request, message=True)
    versions.call("GET", "model-versions/get", params={"name": "{name}", "version": "1"})


def test_files_of_a_version_are_served_by_its_number(versions: Both) -> None:
    run = "/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/model"
    logged = "/api/2.0/mlflow-artifacts/artifacts/{experiment}/models/{model}/artifacts"
    versions.call("PUT", f"{run}/MLmodel", content=b"of the run\n")
    versions.call("PUT", f"{logged}/code/a.py", content=b"a = 1\n")
    request = {"name": "{name}", "source": "models:/{model}", "model_id": "{model}"}
    versions.call("POST", "model-versions/create", json=request)
    get = "/model-versions/get-artifact"
    headers = ("content-type",)
    place = "mlflow-artifacts:/{experiment}/{run}/artifacts/model"
    versions.call("POST", "model-versions/create", json=of_run(source=place))
    file_of_run = {"name": "{name}", "version": "5", "path": "MLmodel"}
    versions.call("GET", get, params=file_of_run, compare_headers=headers)
    versions.call("HEAD", get, params=file_of_run, compare_headers=headers)
    answer = versions.call(
        "GET",
        get,
        params={**file_of_run, "version": "1"},
        deviation=Deviation(CRASH, (200, None), why="MLflow's own server cannot resolve runs:/ there"),
    )
    assert answer.content == b"of the run\n"
    of_model = {"name": "{name}", "version": "4", "path": "code/a.py"}
    versions.call("GET", get, params=of_model, compare_headers=headers)
    for path in ("../x", "/etc/passwd", "a/../../b", "..%2fx", "C:/x"):
        versions.call("GET", get, params={**of_model, "path": path}, body=False)
    odd = Deviation((404, "RESOURCE_DOES_NOT_EXIST"), BAD, why="one safe_path for all: no backslashes")
    versions.call("GET", get, params={**of_model, "path": "a\\b"}, deviation=odd)
    versions.call("GET", get, params={"name": "{name}", "version": "9", "path": "MLmodel"}, message=True)
    versions.call("GET", get, params={"name": "nothing-here", "version": "1", "path": "MLmodel"}, message=True)
    versions.call("GET", get, params={"name": "a/b", "version": "1", "path": "MLmodel"})

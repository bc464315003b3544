"""runs/log-inputs and runs/outputs: the same calls to MLflow's server and to ours."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation

DATASET = {"name": "d", "digest": "x", "source_type": "local", "source": "s"}
MODEL = "m-0123456789abcdef0123456789abcdef"
OTHER = "m-fedcba9876543210fedcba9876543210"


def given(dataset: dict[str, str], **tags: str) -> dict[str, Any]:
    return {"dataset": dataset, "tags": [{"key": key, "value": value} for key, value in tags.items()]}


def test_datasets_are_shown_by_get_and_by_search(run: Both) -> None:
    datasets = [given(DATASET, context="train"), given(DATASET | {"name": "e", "schema": "{}", "profile": "p"})]
    run.call("POST", "runs/log-inputs", json={"run_id": "{run}", "datasets": datasets})
    run.call("GET", "runs/get", params={"run_id": "{run}"})
    run.call("POST", "runs/search", json={"experiment_ids": ["{experiment}"]})


def test_of_a_dataset_given_twice_the_first_counts(run: Both) -> None:
    datasets = [given(DATASET, a="1"), given(DATASET | {"source": "t"}, a="2")]
    run.call("POST", "runs/log-inputs", json={"run_id": "{run}", "datasets": datasets})
    run.call("POST", "runs/log-inputs", json={"run_id": "{run}", "datasets": [given(DATASET, b="3")]})
    run.call("GET", "runs/get", params={"run_id": "{run}"})


def test_two_runs_share_a_dataset_and_each_has_its_own_tags(run: Both) -> None:
    run.new_run("second")
    run.call("POST", "runs/log-inputs", json={"run_id": "{run}", "datasets": [given(DATASET, a="1")]})
    changed = given(DATASET | {"source": "elsewhere"}, a="2")
    run.call("POST", "runs/log-inputs", json={"run_id": "{second}", "datasets": [changed]})
    run.call("GET", "runs/get", params={"run_id": "{second}"})


def test_logged_models_are_inputs_and_outputs(run: Both) -> None:
    models = [{"model_id": MODEL}, {"model_id": MODEL}]
    run.call("POST", "runs/log-inputs", json={"run_id": "{run}", "models": models})
    run.call("POST", "runs/log-inputs", json={"run_id": "{run}", "models": models})
    outputs = [{"model_id": MODEL, "step": 3}, {"model_id": OTHER}]
    run.call("POST", "runs/outputs", json={"run_id": "{run}", "models": outputs})
    run.call("GET", "runs/get", params={"run_id": "{run}"})


def test_a_search_shows_model_inputs_too(run: Both) -> None:
    run.call("POST", "runs/log-inputs", json={"run_id": "{run}", "models": [{"model_id": MODEL}]})
    answer = run.call("POST", "runs/search", json={"experiment_ids": ["{experiment}"]}, ignore=("model_inputs",))
    assert answer.at("runs.0.inputs.model_inputs.0.model_id") == MODEL


def test_an_output_at_another_step_is_refused(run: Both) -> None:
    run.call("POST", "runs/outputs", json={"run_id": "{run}", "models": [{"model_id": MODEL, "step": 3}]})
    run.call("POST", "runs/outputs", json={"run_id": "{run}", "models": [{"model_id": MODEL, "step": 4}]})
    twice = [{"model_id": OTHER, "step": 1}, {"model_id": OTHER, "step": 2}]
    run.call("POST", "runs/outputs", json={"run_id": "{run}", "models": twice})
    run.call("GET", "runs/get", params={"run_id": "{run}"})


def test_the_same_output_again_is_absorbed(run: Both) -> None:
    request = {"run_id": "{run}", "models": [{"model_id": MODEL, "step": 3}]}
    run.call("POST", "runs/outputs", json=request)
    repeated = Deviation((400, "BAD_REQUEST"), (200, None), why="an exact repeat is what a client's retry looks like")
    run.call("POST", "runs/outputs", json=request, deviation=repeated)
    run.call("GET", "runs/get", params={"run_id": "{run}"})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"datasets": []},
        {"datasets": [{"tags": []}]},
        {"datasets": [{"dataset": {"name": "x"}}]},
        {"datasets": [given(DATASET | {"digest": "x" * 36, "name": "n" * 500}, **{"k" * 255: "v" * 500})]},
        {"datasets": [given(DATASET | {"digest": "x" * 37})]},
        {"datasets": [given(DATASET | {"name": "n" * 501})]},
        {"datasets": [given(DATASET | {"source": "n" * 65536})]},
        {"datasets": [given(DATASET | {"schema": "n" * 1048576})]},
        {"datasets": [given(DATASET, **{"k" * 256: "v"})]},
        {"datasets": [given(DATASET, k="v" * 501)]},
        {"datasets": "x"},
        {"datasets": 7},
        {"models": "x"},
        {"models": {"model_id": MODEL}},
    ],
)
def test_good_and_bad_inputs_are_answered_alike(run: Both, fields: dict[str, Any]) -> None:
    run.call("POST", "runs/log-inputs", json={"run_id": "{run}"} | fields)
    run.call("GET", "runs/get", params={"run_id": "{run}"})


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        ("runs/log-inputs", {"datasets": [7]}),
        ("runs/log-inputs", {"datasets": [given({"name": 7})]}),
        ("runs/outputs", {"models": [{"model_id": MODEL, "step": "x"}]}),
    ],
)
def test_wrong_types_below_the_top_are_refused(run: Both, endpoint: str, fields: dict[str, Any]) -> None:
    half_read = Deviation(
        (200, None), (400, "INVALID_PARAMETER_VALUE"), why="MLflow writes what it could read of it", everywhere=True
    )
    run.call("POST", endpoint, json={"run_id": "{run}"} | fields, deviation=half_read)


@pytest.mark.parametrize("endpoint", ["runs/log-inputs", "runs/outputs"])
def test_an_unknown_or_deleted_run_is_refused_alike(run: Both, endpoint: str) -> None:
    models = [{"model_id": MODEL}]
    run.call("POST", endpoint, json={"run_id": "0" * 32, "models": models}, message=True)
    run.call("POST", endpoint, json={"models": models}, message=True)
    run.call("POST", "runs/delete", json={"run_id": "{run}"})
    run.call("POST", endpoint, json={"run_id": "{run}", "models": models}, message=True)


@pytest.mark.parametrize("models", [None, "x", [{"model_id": MODEL, "step": "3"}], []])
def test_good_and_bad_outputs_are_answered_alike(run: Both, models: Any) -> None:
    run.call("POST", "runs/outputs", json={"run_id": "{run}"} | ({} if models is None else {"models": models}))
    run.call("GET", "runs/get", params={"run_id": "{run}"})


@pytest.mark.parametrize("model_id", ["", "../x", "a" * 65])
@pytest.mark.parametrize("endpoint", ["runs/log-inputs", "runs/outputs"])
def test_what_cannot_be_an_id_is_refused(run: Both, endpoint: str, model_id: str) -> None:
    run.call(
        "POST",
        endpoint,
        json={"run_id": "{run}", "models": [{"model_id": model_id}]},
        deviation=Deviation((200, None), (400, "INVALID_PARAMETER_VALUE"), why="MLflow keeps any text as a model id"),
    )

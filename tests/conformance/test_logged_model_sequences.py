"""Lists of calls about logged models that Hypothesis makes up: MLflow's server and ours answer and store the same."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.compare import Both, Deviation

Call = tuple[str, str, dict[str, Any]]

MODELS = st.sampled_from(["{one}", "{one}", "{two}", "m-" + "0" * 32])
KEYS = st.sampled_from(["a", "b", "a b", "ü/ñ.x", "k" * 255, "../a", "what?", " "])
IN_PATHS = st.sampled_from(["a", "b", "a%20b", "k" * 255, "never", "what%3F"])
VALUES = st.sampled_from(["", "x", "ü\u200d🏃", "v" * 6000, "null", "'\"`"])
NUMBERS = st.sampled_from([0, -1.5, 1e308, 5e-324, "Infinity", "-Infinity"])  # NaN: see below
NAMES = st.sampled_from(["x", "ü y", "n" * 500, "a/b", "a.b", "-"])
STATUSES = st.sampled_from(["LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED", 2])


def pairs(values: st.SearchStrategy[str], *, once: bool = True) -> st.SearchStrategy[list[dict[str, str]]]:
    pair = st.fixed_dictionaries({"key": KEYS, "value": values})
    return st.lists(pair, max_size=3, unique_by=(lambda pair: pair["key"]) if once else None)


def call(
    method: str, path: str, fields: dict[str, st.SearchStrategy[Any]], optional: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[Call]:
    return st.tuples(st.just(method), st.just(path), st.fixed_dictionaries(fields, optional=optional))


def of_a_model(method: str, rest: str, fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Call]:
    return st.builds(
        lambda model, body: (method, f"logged-models/{model}{rest}", {"model_id": model, **body}),
        MODELS,
        st.fixed_dictionaries(fields),
    )


POINTS = call(
    "POST",
    "runs/log-metric",
    {"run_id": st.just("{run}"), "key": KEYS, "value": NUMBERS, "timestamp": st.just(1), "model_id": MODELS},
    {"step": st.sampled_from([0, 1, -1]), "dataset_name": st.just("d"), "dataset_digest": st.just("x")},
)
CALLS = st.one_of(
    call(
        "POST",
        "logged-models",
        {"experiment_id": st.just("{experiment}"), "name": NAMES},
        {
            "params": pairs(VALUES),
            "tags": pairs(VALUES),
            "model_type": st.sampled_from(["", "sklearn"]),
            "source_run_id": st.just("{run}"),
        },
    ),
    of_a_model("PATCH", "", {"status": STATUSES}),
    # "{call}" is another text in every call: the same value again is where we differ on purpose (test_logged_models.py)
    of_a_model("POST", "/params", {"params": pairs(st.just("{call}"))}),
    of_a_model("PATCH", "/tags", {"tags": pairs(VALUES, once=False)}),
    st.builds(lambda model, key: ("DELETE", f"logged-models/{model}/tags/{key}", {}), MODELS, IN_PATHS),
    of_a_model("DELETE", "", {}),
    POINTS,
    POINTS,
)
SEQUENCES = st.lists(CALLS, min_size=4, max_size=16)
FILTERS = (
    "",
    "name LIKE '%o%'",
    "params.a = '' AND tags.b != 'x'",
    "tags.a IN ('', 'x')",
    "source_run_id = '{run}'",
    "status = '2'",
    "model_type != 'sklearn'",
)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=SEQUENCES)
def test_any_sequence_of_calls_leaves_the_same_logged_models(both: Both, calls: list[Call]) -> None:
    both.new_experiment()
    both.new_run()
    for name, source in (("one", "{run}"), ("two", "")):
        made = {"experiment_id": "{experiment}", "name": name, "source_run_id": source}
        both.call("POST", "logged-models", json=made)
        both.bind(name, "model.info.model_id")
    for number, (method, path, body) in enumerate(calls):
        both.name("call", f"value-{number}")
        both.call(method, path, json=body)
    for model in ("{one}", "{two}"):
        both.call("GET", f"logged-models/{model}", params={"allow_deleted": "true"})
    both.call("GET", "runs/get", params={"run_id": "{run}"})
    for text in FILTERS:
        by_name = [{"field_name": "name"}, {"field_name": "creation_timestamp"}]
        both.call(
            "POST",
            "logged-models/search",
            json={"experiment_ids": ["{experiment}"], "filter": text, "order_by": by_name},
        )


def test_not_a_number_is_kept_where_mlflow_makes_it_zero(both: Both) -> None:
    both.new_experiment()
    both.new_run()
    both.call("POST", "logged-models", json={"experiment_id": "{experiment}", "name": "x"})
    both.bind("model", "model.info.model_id")
    point = {"key": "a", "value": "NaN", "timestamp": 1, "model_id": "{model}"}
    both.call("POST", "runs/log-metric", json={"run_id": "{run}", **point})
    both.call("GET", "runs/get", params={"run_id": "{run}"})
    other_values = Deviation((200, None), (200, None), why="a loss that diverged is no loss of zero")
    both.call("GET", "logged-models/{model}", deviation=other_values)
    assert [side.last and side.last.at("model.data.metrics.0.value") for side in both.sides] == [0, "NaN"]

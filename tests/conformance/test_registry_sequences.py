"""Random sequences of registry calls: after each, MLflow's server and ours say the same."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.compare import Both

NAMES = st.sampled_from(["{one}", "{two}", "{three}"])
VERSIONS = st.sampled_from(["1", "2", "3", "4", "x"])
KEYS = st.sampled_from(["a", "b", "mlflow.prompt.is_prompt"])
VALUES = st.sampled_from(["", "x", "true"])
ALIASES = st.sampled_from(["best", "Best", "latest"])
STAGES = st.sampled_from(["None", "staging", "Production", "Archived", "odd"])
SOURCES = st.sampled_from(
    [
        {"source": "runs:/{run}/model", "run_id": "{run}"},
        {"source": "mlflow-artifacts:/{experiment}/{run}/artifacts/x", "run_id": "{run}"},
        {"source": "models:/{model}", "model_id": "{model}"},
        {"source": "models:/{one}/1"},
        {"source": "models:/{two}@best"},
        {"source": "models:/{two}/2", "run_id": ""},
        {"source": "runs:/{run}/model"},
    ]
)
OF_OURS = "name IN ('{one}', '{two}', '{three}')"


def call(method: str, path: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, str, Any]]:
    return st.tuples(st.just(method), st.just(path), st.fixed_dictionaries(fields))


CALLS = st.one_of(
    call("POST", "registered-models/create", name=NAMES, description=VALUES),
    st.builds(
        lambda name, source, value: ("POST", "model-versions/create", {"name": name, "description": value, **source}),
        NAMES, SOURCES, VALUES,
    ),
    call("POST", "registered-models/rename", name=NAMES, new_name=NAMES),
    call("PATCH", "registered-models/update", name=NAMES, description=VALUES),
    call("DELETE", "registered-models/delete", name=NAMES),
    call("POST", "registered-models/set-tag", name=NAMES, key=KEYS, value=VALUES),
    call("DELETE", "registered-models/delete-tag", name=NAMES, key=KEYS),
    call("POST", "registered-models/alias", name=NAMES, alias=ALIASES, version=VERSIONS),
    call("DELETE", "registered-models/alias", name=NAMES, alias=ALIASES),
    call("PATCH", "model-versions/update", name=NAMES, version=VERSIONS, description=VALUES),
    call("DELETE", "model-versions/delete", name=NAMES, version=VERSIONS),
    call("POST", "model-versions/set-tag", name=NAMES, version=VERSIONS, key=KEYS, value=VALUES),
    call("DELETE", "model-versions/delete-tag", name=NAMES, version=VERSIONS, key=KEYS),
    call(
        "POST",
        "model-versions/transition-stage",
        name=NAMES,
        version=VERSIONS,
        stage=st.sampled_from(["staging", "Production", "odd"]),
        archive_existing_versions=st.booleans(),
    ),
    call("POST", "model-versions/transition-stage", name=NAMES, version=VERSIONS, stage=STAGES),
)  # fmt: skip
SEQUENCES = st.lists(CALLS, min_size=4, max_size=16)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=SEQUENCES)
def test_any_sequence_of_calls_leaves_the_same_registry(both: Both, calls: list[tuple[str, str, Any]]) -> None:
    for name in ("one", "two", "three"):
        both.name(name, both.unique(name))
    if "run" not in both.ours.bound:
        both.new_experiment()
        both.new_run()
        both.call(
            "POST", "logged-models", json={"experiment_id": "{experiment}", "name": "x", "source_run_id": "{run}"}
        )
        both.bind("model", "model.info.model_id")
    for name in ("{one}", "{two}"):
        both.call("POST", "registered-models/create", json={"name": name})
    for method, path, body in calls:
        both.call(method, path, json=body)
    for name in ("{one}", "{two}", "{three}"):
        both.call("GET", "registered-models/get", params={"name": name})
        both.call("POST", "registered-models/get-latest-versions", json={"name": name})
        for alias in ("best", "latest"):
            both.call("GET", "registered-models/alias", params={"name": name, "alias": alias})
        for version in ("1", "2", "3"):
            both.call("GET", "model-versions/get", params={"name": name, "version": version})
            both.call("GET", "model-versions/get-download-uri", params={"name": name, "version": version})
    both.call("GET", "registered-models/search", params={"filter": OF_OURS})
    both.call("GET", "model-versions/search", params={"filter": OF_OURS, "order_by": "name"})
    for path in ("registered-models/search", "model-versions/search"):
        prompts = f"tags.`mlflow.prompt.is_prompt` = 'true' AND {OF_OURS}"
        both.call("GET", path, params={"filter": prompts, "order_by": "name"})

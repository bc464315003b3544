"""Lists of calls that Hypothesis makes up, edge values included: MLflow's server and ours answer and store the same."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.compare import Both

Call = tuple[str, dict[str, Any]]

RUNS = st.sampled_from(["{run}", "{run}", "{other}", "0" * 32])
KEYS = st.sampled_from(["a", "b", "a b", "ü/ñ.x", "k" * 250, "k" * 251, "", "/a", "a//b", "../a", "a:b", "a%41"])
TAG_KEYS = st.one_of(KEYS, st.sampled_from(["mlflow.runName", "mlflow.note.content", "mlflow.parentRunId"]))
VALUES = st.sampled_from(["", "x", "y", "ü\u200d🏃", "v" * 6000, "v" * 6001, " ", "null", "'\"`"])
TAG_VALUES = st.one_of(VALUES, st.sampled_from(["v" * 8000, "v" * 8001]))
NUMBERS = st.one_of(
    st.sampled_from([0, -0.0, 1, -1.5, 1e308, 5e-324, 2**53 + 1, "NaN", "Infinity", "-Infinity", "1e400", "x", None]),
    st.floats(allow_nan=False, allow_infinity=False),
)
TIMES = st.sampled_from([0, 1, 2, 1_700_000_000_000, 2**63 - 1, -1, "7"])
STEPS = st.sampled_from([0, 1, 2, -1, 2**63 - 1, -(2**63), "3"])
STATUSES = st.sampled_from(["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED", 3])


def pairs(
    keys: st.SearchStrategy[str], values: st.SearchStrategy[str], *, once: bool = False
) -> st.SearchStrategy[list[dict[str, str]]]:
    pair = st.fixed_dictionaries({"key": keys, "value": values})
    return st.lists(pair, max_size=4, unique_by=(lambda pair: pair["key"]) if once else None)


METRIC: dict[str, st.SearchStrategy[Any]] = {"key": KEYS, "value": NUMBERS, "timestamp": TIMES}
METRICS = st.lists(st.fixed_dictionaries(METRIC, optional={"step": STEPS}), max_size=4)


def call(
    path: str, fields: dict[str, st.SearchStrategy[Any]], optional: dict[str, st.SearchStrategy[Any]] | None = None
) -> st.SearchStrategy[Call]:
    return st.tuples(st.just(path), st.fixed_dictionaries({"run_id": RUNS, **fields}, optional=optional or {}))


CALLS = st.one_of(
    call("runs/log-metric", METRIC, {"step": STEPS}),
    call(
        "runs/log-batch", {}, {"metrics": METRICS, "params": pairs(KEYS, VALUES), "tags": pairs(TAG_KEYS, TAG_VALUES)}
    ),
    call("runs/log-parameter", {"key": KEYS, "value": VALUES}),
    call("runs/set-tag", {"key": TAG_KEYS, "value": TAG_VALUES}),
    call("runs/delete-tag", {"key": TAG_KEYS}),
    call("runs/update", {}, {"status": STATUSES, "end_time": TIMES, "run_name": VALUES}),
    call("runs/delete", {}),
    call("runs/restore", {}),
    st.tuples(
        st.just("runs/create"),
        st.fixed_dictionaries(
            {
                "experiment_id": st.just("{experiment}"),
                "tags": pairs(KEYS.filter(lambda key: len(key) <= 250), TAG_VALUES, once=True),
            },
            optional={"run_name": VALUES, "user_id": VALUES},
        ),
    ),
)
QUERIES: tuple[dict[str, Any], ...] = (
    {"run_view_type": "ALL"},
    {"filter": "metrics.a > 0"},
    {"filter": "metrics.a <= 1 AND attributes.status != 'FAILED'"},
    {"filter": "params.a = ''"},
    {"filter": "params.`a b` LIKE '%'", "run_view_type": "DELETED_ONLY"},
    {"filter": "tags.`mlflow.runName` ILIKE 'X%'"},
    {"run_view_type": "ALL", "order_by": ["metrics.a ASC"]},
    {"run_view_type": "ALL", "order_by": ["metrics.a DESC", "params.a"]},
    {"order_by": ["tags.a DESC", "attributes.end_time ASC"]},
)
SEQUENCES = st.lists(CALLS, min_size=4, max_size=16)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=SEQUENCES)
def test_any_sequence_of_calls_leaves_the_same_runs(both: Both, calls: list[Call]) -> None:
    both.new_experiment()
    both.new_run()
    both.new_run("other", start_time=2000)
    for number, (path, body) in enumerate(calls):
        first_of_its_time = {"start_time": 3000 + number} if path == "runs/create" else {}
        both.call("POST", path, json={**body, **first_of_its_time})
    for run in ("{run}", "{other}"):
        both.call("GET", "runs/get", params={"run_id": run})
        for key in ("a", "b", "ü/ñ.x"):
            both.call("GET", "metrics/get-history", params={"run_id": run, "metric_key": key})
    for query in QUERIES:
        both.call("POST", "runs/search", json={"experiment_ids": ["{experiment}"], **query})

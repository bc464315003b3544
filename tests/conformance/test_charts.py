"""What charts, dataset menus and pages ask for: the same calls to MLflow's server and to ours."""

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.compare import Both, Deviation, assert_same, normal

PAGES = "/ajax-api/2.0/mlflow"
BULK = f"{PAGES}/metrics/get-history-bulk"
INTERVAL = f"{PAGES}/metrics/get-history-bulk-interval"
DATASETS = f"{PAGES}/experiments/search-datasets"
BAD = (400, "INVALID_PARAMETER_VALUE")


@pytest.fixture
def runs(both: Both) -> Both:
    """Both servers with an {experiment} and its runs {run} and {second}."""
    both.new_experiment()
    both.new_run()
    both.new_run("second")
    return both


def log(both: Both, points: list[tuple[int, int, float | str]], run: str = "{run}", key: str = "loss") -> None:
    """Log `(step, timestamp, value)` of one metric on both servers."""
    metrics = [{"key": key, "step": step, "timestamp": at, "value": value} for step, at, value in points]
    for start in range(0, len(metrics), 1000):
        both.call("POST", "runs/log-batch", json={"run_id": run, "metrics": metrics[start : start + 1000]})


def in_order_of_ids(both: Both, runs: tuple[str, ...] = ("run", "second")) -> list[list[tuple[Any, ...]]]:
    """Points of the last bulk answer, run by run: ids are random, so the order of runs differs between servers."""
    answers = []
    for side in both.sides:
        assert side.last is not None
        by_run = {side.bound[run]: [] for run in runs}
        for point in side.last.body["metrics"]:
            by_run[point["run_id"]].append((point["key"], point["step"], point["timestamp"], point["value"]))
        assert [point["run_id"] for point in side.last.body["metrics"]] == [
            run_id for run_id in sorted(by_run) for _ in by_run[run_id]
        ], side.name
        answers.append([by_run[side.bound[run]] for run in runs])
    assert_same("points by run", *answers)
    return answers[1]


def test_the_history_of_several_runs_is_ordered_by_run_time_step_and_value(runs: Both) -> None:
    log(runs, [(2, 10, 0.5), (1, 10, 0.25), (1, 5, 7), (1, 10, -1)])
    log(runs, [(0, 1, 1), (1, 2, 2)], run="{second}")
    log(runs, [(0, 1, 1)], key="other")
    runs.call("GET", BULK, params={"run_id": ["{run}", "{second}"], "metric_key": "loss"}, body=False)
    assert [len(points) for points in in_order_of_ids(runs)] == [4, 2]


def test_the_limit_counts_all_runs_together(runs: Both) -> None:
    log(runs, [(step, step, step) for step in range(9)])
    runs.call("GET", BULK, params={"run_id": "{run}", "metric_key": "loss", "max_results": 4})
    runs.call("GET", BULK, params={"run_id": "{run}", "metric_key": "loss", "max_results": 0})
    runs.call("GET", BULK, params={"run_id": ["{run}", "{run}"], "metric_key": "loss", "max_results": 30_000})


def test_a_history_that_is_not_there_is_empty(runs: Both) -> None:
    runs.call("GET", BULK, params={"run_id": "{run}", "metric_key": "loss"})
    runs.call("GET", BULK, params={"run_id": "0" * 32, "metric_key": "loss"})
    runs.call("GET", BULK, params={"run_id": "nonsense", "metric_key": "loss"})
    runs.call("GET", BULK, params={"run_id": "{run}", "metric_key": ""})
    runs.call("GET", INTERVAL, params={"run_ids": "{run}", "metric_key": "loss"})
    runs.call("GET", INTERVAL, params={"run_ids": "0" * 32, "metric_key": "loss"})
    runs.call("GET", INTERVAL, params={"run_ids": "nonsense", "metric_key": "loss"})


@pytest.mark.parametrize(
    "params",
    [
        {"metric_key": "loss"},
        {"run_id": "{run}"},
        {"run_id": ["{run}"] * 101, "metric_key": "loss"},
    ],
)
def test_a_bad_bulk_request_is_refused_alike(runs: Both, params: dict[str, Any]) -> None:
    runs.call("GET", BULK, params=params)


@pytest.mark.parametrize(
    ("limit", "theirs"), [("x", (500, None)), ("-1", (200, None)), ("1.5", (500, None)), ("", (500, None))]
)
def test_a_bad_limit_of_a_bulk_request_is_refused(runs: Both, limit: str, theirs: tuple[int, str | None]) -> None:
    params = {"run_id": "{run}", "metric_key": "loss", "max_results": limit}
    runs.call("GET", BULK, params=params, deviation=Deviation(theirs, BAD, why="a client's mistake is a 400"))


def test_nan_travels_as_text_as_it_does_everywhere_else(runs: Both) -> None:
    log(runs, [(0, 1, "NaN"), (1, 2, "Infinity")])
    runs.call("GET", BULK, params={"run_id": "{run}", "metric_key": "loss"}, ignore=("value",))
    theirs, ours = [[p["value"] for p in side.last.body["metrics"]] for side in runs.sides if side.last]
    assert math.isnan(theirs[0])  # which no browser's JSON.parse reads
    assert ours[0] == "NaN"
    assert theirs[1] == ours[1]
    runs.call("GET", INTERVAL, params={"run_ids": "{run}", "metric_key": "loss"})


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10, 99, 100, 101, 2500])
def test_a_long_history_is_sampled_alike(runs: Both, limit: int) -> None:
    log(runs, [(step * step, step, step / 3) for step in range(100)])
    runs.call("GET", INTERVAL, params={"run_ids": "{run}", "metric_key": "loss", "max_results": limit})
    between = {"start_step": 50, "end_step": 8100}
    runs.call("GET", INTERVAL, params={"run_ids": "{run}", "metric_key": "loss", "max_results": limit} | between)


def test_more_points_than_the_default_limit_are_sampled_alike(runs: Both) -> None:
    log(runs, [(step, 1, step) for step in range(3000)])
    runs.call("GET", INTERVAL, params={"run_ids": "{run}", "metric_key": "loss"})
    runs.call("GET", f"/api{INTERVAL.removeprefix('/ajax-api')}", params={"run_ids": "{run}", "metric_key": "loss"})


def test_runs_are_sampled_each_for_itself_and_answered_as_asked(runs: Both) -> None:
    log(runs, [(step, step, step) for step in range(10)])
    log(runs, [(step, step, step) for step in range(1000, 1300)], run="{second}")
    asked = ["{second}", "{run}", "{second}"]
    runs.call("GET", INTERVAL, params={"run_ids": asked, "metric_key": "loss", "max_results": 20})


POINTS = st.lists(
    st.tuples(
        st.integers(-2, 4),
        st.integers(0, 3),
        st.sampled_from([-1.5, 0.0, 0.25, 3.0, "NaN", "Infinity", "-Infinity"]),
    ),
    unique=True, min_size=1, max_size=60,
)  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=POINTS, limit=st.integers(1, 12), steps=st.none() | st.tuples(st.integers(-3, 2), st.integers(2, 5)))
def test_any_history_is_sampled_alike(
    both: Both, points: list[tuple[int, int, float | str]], limit: int, steps: tuple[int, int] | None
) -> None:
    """Steps, times and values repeat, so every tie of MLflow's order is met."""
    both.new_experiment()
    both.new_run()
    log(both, points)
    params = {"run_ids": "{run}", "metric_key": "loss", "max_results": limit}
    both.call("GET", INTERVAL, params=params | ({"start_step": steps[0], "end_step": steps[1]} if steps else {}))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"metric_key": "loss"},
        {"run_ids": "{run}"},
        {"run_ids": "{run}", "metric_key": ""},
        {"run_ids": ["{run}"] * 101, "metric_key": "loss"},
        {"run_ids": "{run}", "metric_key": "loss", "max_results": 0},
        {"run_ids": "{run}", "metric_key": "loss", "max_results": 2501},
        {"run_ids": "{run}", "metric_key": "loss", "max_results": "x"},
        {"run_ids": "{run}", "metric_key": "loss", "start_step": 1},
        {"run_ids": "{run}", "metric_key": "loss", "end_step": 1},
        {"run_ids": "{run}", "metric_key": "loss", "start_step": 2, "end_step": 1},
        {"run_ids": "{run}", "metric_key": "loss", "start_step": "x", "end_step": 1},
    ],
)
def test_a_bad_interval_request_is_refused_alike(runs: Both, params: dict[str, Any]) -> None:
    runs.call("GET", INTERVAL, params=params)


def dataset(name: str, context: str | None = None) -> dict[str, Any]:
    tags = [] if context is None else [{"key": "mlflow.data.context", "value": context}]
    return {"dataset": {"name": name, "digest": "d", "source_type": "local", "source": "s"}, "tags": tags}


def test_datasets_are_summed_up_by_name_digest_and_context(runs: Both) -> None:
    given = [dataset("a", "train"), dataset("b"), dataset("c", "test")]
    runs.call("POST", "runs/log-inputs", json={"run_id": "{run}", "datasets": given})
    runs.call("POST", "runs/log-inputs", json={"run_id": "{second}", "datasets": [dataset("a", "eval"), dataset("b")]})
    runs.new_experiment("other")
    runs.call("POST", DATASETS, json={"experiment_ids": ["{experiment}", "{other}"]}, body=False)
    found = [
        sorted(
            normal(side.last.body["dataset_summaries"], side, ()),
            key=lambda summary: (summary["name"], summary.get("context", "")),
        )
        for side in runs.sides
        if side.last
    ]
    assert_same("summaries", *found)
    assert len(found[1]) == 4


def test_deleted_runs_still_count_among_the_users_of_a_dataset(runs: Both) -> None:
    runs.call("POST", "runs/log-inputs", json={"run_id": "{run}", "datasets": [dataset("a")]})
    runs.call("POST", "runs/delete", json={"run_id": "{run}"})
    runs.call("POST", DATASETS, json={"experiment_ids": ["{experiment}"]})


@pytest.mark.parametrize(
    "body", [{}, {"experiment_ids": []}, {"experiment_ids": ["0"] * 21}, {"experiment_ids": ["987654321"]}]
)
def test_a_search_of_no_or_too_many_experiments_is_answered_alike(runs: Both, body: dict[str, Any]) -> None:
    runs.call("POST", DATASETS, json=body, message=True)


def test_an_experiment_id_that_is_none_is_refused(runs: Both) -> None:
    runs.call("POST", DATASETS, json={"experiment_ids": ["x"]})


def test_what_the_server_can_do_is_told_in_the_same_words(both: Both) -> None:
    ours = ("features_enabled",)
    answer = both.call("GET", "/api/3.0/mlflow/server-info", ignore=ours)
    assert both.mlflow.last is not None
    assert set(answer.body) == set(both.mlflow.last.body)
    assert answer.body["features_enabled"] == {"gateway": False}
    both.call("GET", "/ajax-api/3.0/mlflow/server-info", ignore=ours)


def test_telemetry_and_gateway_are_answered_as_by_a_server_without_them(both: Both) -> None:
    both.call("GET", "/ajax-api/3.0/mlflow/ui-telemetry")
    both.call("POST", "/ajax-api/3.0/mlflow/ui-telemetry", json={"records": [{"event_name": "x"}]})
    both.call("GET", f"{PAGES}/gateway-proxy", params={"gateway_path": "api/2.0/endpoints"})
    both.call("POST", f"{PAGES}/gateway-proxy", json={"gateway_path": "gateway/x/invocations"})


def model(**fields: Any) -> str:
    described = {
        "artifact_path": "model", "flavors": {"sklearn": {"code": None, "config": {"a": 1}}, "other": "text"},
        "utc_time_created": "2026-01-01 00:00:00", "run_id": "{run}",
    }  # fmt: skip
    return json.dumps(described | fields)


def test_models_logged_the_old_way_stand_in_a_tag(runs: Both) -> None:
    for side in runs.sides:
        side.bound["described"] = model().replace("{run}", side.bound["run"])
        side.bound["named"] = model(model_uuid="u", run_id=None).replace("{run}", side.bound["run"])
    runs.call("POST", "runs/log-model", json={"run_id": "{run}", "model_json": "{described}"})
    runs.call("POST", "runs/log-model", json={"run_id": "{run}", "model_json": "{named}"})
    tags = []
    for side in runs.sides:
        answer = side.client.get("/api/2.0/mlflow/runs/get", params={"run_id": side.bound["run"]}).json()
        tags.append({tag["key"]: tag["value"] for tag in answer["run"]["data"]["tags"]}["mlflow.log-model.history"])
        tags[-1] = tags[-1].replace(side.bound["run"], "<run>")
    assert tags[0] == tags[1]
    assert len(json.loads(tags[1])) == 2


@pytest.mark.parametrize(
    "model_json", [None, "", "{", json.dumps({"flavors": {}}), json.dumps({"artifact_path": "m", "run_id": "r"})]
)
def test_what_describes_no_model_is_refused_alike(runs: Both, model_json: str | None) -> None:
    fields = {} if model_json is None else {"model_json": model_json}
    runs.call("POST", "runs/log-model", json={"run_id": "{run}"} | fields)


@pytest.mark.parametrize("model_json", ["[]", "7", model(flavors=[1])])
def test_a_model_of_another_type_is_refused(runs: Both, model_json: str) -> None:
    mistake = Deviation((500, None), BAD, why="a client's mistake is a 400")
    runs.call("POST", "runs/log-model", json={"run_id": "{run}", "model_json": model_json}, deviation=mistake)


def test_a_model_of_an_unknown_or_deleted_run_is_refused_alike(runs: Both) -> None:
    runs.call("POST", "runs/log-model", json={"run_id": "0" * 32, "model_json": model()})
    runs.call("POST", "runs/log-model", json={"model_json": model()})
    runs.call("POST", "runs/delete", json={"run_id": "{run}"})
    runs.call("POST", "runs/log-model", json={"run_id": "{run}", "model_json": model()})


def test_a_small_file_can_be_uploaded_by_a_page(runs: Both) -> None:
    path = f"{PAGES}/upload-artifact"
    runs.call("POST", path, params={"run_uuid": "{run}", "path": "a/b.txt"}, content=b"hello")
    runs.call("GET", "artifacts/list", params={"run_id": "{run}", "path": "a"})
    runs.call("GET", "/get-artifact", params={"run_uuid": "{run}", "path": "a/b.txt"})


@pytest.mark.parametrize(
    ("params", "content"),
    [
        ({"path": "a"}, b"x"),
        ({"run_uuid": "{run}"}, b"x"),
        ({"run_uuid": "{run}", "path": "a"}, b""),
        ({"run_uuid": "{run}", "path": "../a"}, b"x"),
        ({"run_uuid": "{run}", "path": "/a"}, b"x"),
        ({"run_uuid": "0" * 32, "path": "a"}, b"x"),
        ({"run_uuid": "{run}", "path": "a"}, bytes(10 * 1024**2 + 1)),
    ],
)
def test_a_bad_upload_is_refused_alike(runs: Both, params: dict[str, str], content: bytes) -> None:
    runs.call("POST", f"{PAGES}/upload-artifact", params=params, content=content)
    runs.call("GET", "artifacts/list", params={"run_id": "{run}"})

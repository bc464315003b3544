"""Params, metrics, histories and batches: the same calls to MLflow's server and to ours."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation

UNKNOWN = "0" * 32
REFUSED = (400, "INVALID_PARAMETER_VALUE")
HALF_READ = Deviation(
    (200, None), REFUSED, why="MLflow passes over what it cannot read, and writes the rest", everywhere=True
)
STUMBLES = Deviation((500, None), REFUSED, why="MLflow stumbles over it")


def read(both: Both, run_id: str = "{run}") -> None:
    both.call("GET", "runs/get", params={"run_id": run_id})


def test_a_param_is_written_once(run: Both) -> None:
    param = {"run_id": "{run}", "key": "a", "value": "1"}
    for _ in range(2):
        run.call("POST", "runs/log-parameter", json=param)
    run.call("POST", "runs/log-parameter", json=param | {"value": "2"}, message=True)
    params = [{"key": "b", "value": "1"}, {"key": "a", "value": "2"}]
    run.call("POST", "runs/log-batch", json={"run_id": "{run}", "params": params})
    run.call("POST", "runs/log-parameter", json={"run_id": "{run}", "key": "none"})
    run.call("POST", "runs/log-parameter", json=param | {"key": "A"})
    read(run)


@pytest.mark.parametrize("value", ["v" * 6000, "v" * 6001, "", "ü", " x ", 7, None, {"a": 1}, True])
def test_a_params_value_is_judged_alike(run: Both, value: Any) -> None:
    run.call("POST", "runs/log-parameter", json={"run_id": "{run}", "key": "a", "value": value})
    if isinstance(value, str):
        run.call("POST", "runs/log-batch", json={"run_id": "{run}", "params": [{"key": "b", "value": value}]})
    read(run)


# metrics


@pytest.mark.parametrize(
    "fields",
    [
        {"value": 0},
        {"value": -0.0},
        {"value": 1e308},
        {"value": 5e-324},
        {"value": 0.1},
        {"value": "1.5"},
        {"value": "NaN"},
        {"value": "Infinity"},
        {"value": "-Infinity"},
        {"value": 1, "step": -5},
        {"value": 1, "step": 2**63 - 1},
        {"value": 1, "step": "7"},
        {"value": 1, "timestamp": 0},
        {"value": 1, "timestamp": "12"},
        {"value": 1, "timestamp": 2**63 - 1},
        {"value": None},
        {"value": "x"},
        {"value": 1, "timestamp": None},
        {"value": 1, "timestamp": "x"},
        {"value": 1, "timestamp": -1},
        {"value": 1, "step": "x"},
        {"value": 1, "key": None},
    ],
)
def test_a_point_is_judged_alike(run: Both, fields: dict[str, Any]) -> None:
    point = {"key": "a", "timestamp": 5} | fields
    run.call("POST", "runs/log-metric", json={"run_id": "{run}"} | point)
    read(run)
    run.call("GET", "metrics/get-history", params={"run_id": "{run}", "metric_key": "a"})


@pytest.mark.parametrize(
    ("fields", "deviation"),
    [({"value": [1]}, STUMBLES), ({"value": 1, "step": 1.5}, HALF_READ), ({"value": 1, "step": 2**63}, HALF_READ)],
)
def test_a_point_that_cannot_be_read_is_refused(run: Both, fields: dict[str, Any], deviation: Deviation) -> None:
    point = {"run_id": "{run}", "key": "a", "timestamp": 5} | fields
    run.call("POST", "runs/log-metric", json=point, deviation=deviation)


@pytest.mark.parametrize(
    ("value", "kept"),
    [(float("nan"), "NaN"), (float("inf"), 1.7976931348623157e308), (-float("inf"), -1.7976931348623157e308)],
)
def test_numbers_that_json_does_not_have_are_kept(run: Both, value: float, kept: object) -> None:
    """MLflow answers 200 and keeps value 0 at time 0."""
    run.call("POST", "runs/log-metric", json={"run_id": "{run}", "key": "a", "value": value, "timestamp": 1})
    answer = run.call("GET", "runs/get", params={"run_id": "{run}"}, ignore=("value", "timestamp"))
    assert answer.at("run.data.metrics") == [{"key": "a", "value": kept, "timestamp": 1, "step": 0}]


def test_the_latest_point_is_the_one_of_the_greatest_step_time_and_value(run: Both) -> None:
    for step, timestamp, value in ((1, 5, 3.0), (0, 9, 7.0), (1, 5, 2.0), (1, 5, 4.0), (1, 6, 1.0), (1, 6, "NaN")):
        point = {"key": "a", "value": value, "timestamp": timestamp, "step": step}
        run.call("POST", "runs/log-metric", json={"run_id": "{run}"} | point)
        read(run)
    run.call("GET", "metrics/get-history", params={"run_id": "{run}", "metric_key": "a"})


def test_an_exact_repeat_is_absorbed(run: Both) -> None:
    point = {"key": "a", "value": 1.5, "timestamp": 5, "step": 1}
    for _ in range(2):
        run.call("POST", "runs/log-metric", json={"run_id": "{run}"} | point)
        run.call("POST", "runs/log-batch", json={"run_id": "{run}", "metrics": [point, point, point | {"step": 2}]})
    run.call("GET", "metrics/get-history", params={"run_id": "{run}", "metric_key": "a"})
    read(run)


def test_the_history_comes_in_pages(run: Both) -> None:
    points = [{"key": "a", "value": n, "timestamp": 100 - n, "step": n} for n in range(25)]
    run.call("POST", "runs/log-batch", json={"run_id": "{run}", "metrics": points})
    query = {"run_id": "{run}", "metric_key": "a", "max_results": 10}
    seen = []
    for _ in range(3):
        answer = run.call("GET", "metrics/get-history", params=query, ignore=("next_page_token",))
        seen += [point["step"] for point in answer.at("metrics")]
        if "next_page_token" in answer.body:
            run.bind("token", "next_page_token")
            query |= {"page_token": "{token}"}
    assert seen == list(range(24, -1, -1))


@pytest.mark.parametrize("query", [{"max_results": -1}, {"metric_key": ""}, {"metric_key": "never"}])
def test_a_query_of_a_history_is_judged_alike(run: Both, query: dict[str, Any]) -> None:
    run.call("GET", "metrics/get-history", params={"run_id": "{run}", "metric_key": "a"} | query)


def test_a_page_size_that_is_no_number_is_refused(run: Both) -> None:
    query = {"run_id": "{run}", "metric_key": "a", "max_results": "x"}
    run.call("GET", "metrics/get-history", params=query, deviation=HALF_READ)


def test_the_history_of_an_unknown_run_is_empty(both: Both) -> None:
    both.call("GET", "metrics/get-history", params={"run_id": UNKNOWN, "metric_key": "a"})


# runs/log-batch


def numbered(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"key": f"k{n}", "value": "1", **fields} for n in range(count)]


def points(count: int) -> list[dict[str, Any]]:
    return numbered(count, value=1, timestamp=1)


@pytest.mark.parametrize(
    ("metrics", "params", "tags"),
    [(0, 0, 0), (1000, 0, 0), (1001, 0, 0), (0, 100, 0), (0, 101, 0), (0, 0, 100), (0, 0, 101), (800, 100, 100),
     (801, 100, 100)],
)  # fmt: skip
def test_the_limits_of_a_batch_are_the_same(run: Both, metrics: int, params: int, tags: int) -> None:
    batch = {"metrics": points(metrics), "params": numbered(params), "tags": numbered(tags)}
    run.call("POST", "runs/log-batch", json={"run_id": "{run}"} | batch, message=True)
    read(run)


@pytest.mark.parametrize(
    "batch",
    [
        {"metrics": [{"key": "a", "value": "NaN", "timestamp": 1}], "params": [{"key": "a"}], "tags": [{"key": "a"}]},
        {"tags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]},
        {"params": [{"key": "a", "value": "1"}, {"key": "a", "value": "1"}]},
        {"params": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]},
        {"params": [{"key": "b", "value": "1"}, {"key": "../a", "value": "2"}]},
        {"metrics": [{"key": "b", "value": 1, "timestamp": 1}, {"key": "b", "value": 1, "timestamp": -1}]},
        {"tags": [{"key": "b", "value": "1"}, {"key": "k" * 251, "value": "2"}]},
        {"params": [{"key": "b", "value": "v" * 6001}], "tags": [{"key": "b", "value": "v" * 8001}]},
        {"metrics": [{"key": "b", "value": 1}]},
        {"metrics": [{"value": 1, "timestamp": 1}]},
        {"metrics": [{"key": "b", "timestamp": 1}]},
        {"metrics": "x"},
        {"params": {"a": "b"}},
        {"tags": 7},
        {"metrics": [{"key": "b", "value": 1, "timestamp": 1}], "params": [{"key": 7, "value": "v"}]},
    ],
)
def test_a_batch_is_judged_alike_and_a_bad_one_writes_nothing(run: Both, batch: dict[str, Any]) -> None:
    run.call("POST", "runs/log-batch", json={"run_id": "{run}"} | batch)
    read(run)


@pytest.mark.parametrize("run_id", [UNKNOWN, "nope", "../x", "", "x" * 300, 7])
def test_a_batch_for_an_unknown_run_is_refused_alike(both: Both, run_id: Any) -> None:
    both.call("POST", "runs/log-batch", json={"run_id": run_id, "metrics": points(1)})


@pytest.mark.parametrize(
    ("batch", "deviation"),
    [({"params": [7]}, STUMBLES), ({"metrics": [{"key": "b", "value": "x", "timestamp": 1}]}, HALF_READ)],
)
def test_a_batch_that_cannot_be_read_is_refused(run: Both, batch: dict[str, Any], deviation: Deviation) -> None:
    run.call("POST", "runs/log-batch", json={"run_id": "{run}"} | batch, deviation=deviation)


@pytest.mark.parametrize("content", [b"{", b"", b"null", b'{"run_id": "x"', b'{"run_id": "a", "metrics": [}'])
def test_a_broken_body_is_refused(both: Both, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    both.call("POST", "runs/log-batch", content=content, headers=headers, deviation=STUMBLES)
    both.call("POST", "runs/log-metric", content=content, headers=headers)


@pytest.mark.parametrize("half", [{"dataset_name": "d"}, {"dataset_digest": "x"}])
@pytest.mark.parametrize("model", [{}, {"model_id": "m-" + "0" * 32}])
def test_the_name_and_the_digest_of_a_points_dataset_go_together(
    run: Both, half: dict[str, str], model: dict[str, str]
) -> None:
    point = {"key": "k", "value": 1, "timestamp": 1, **half, **model}
    run.call("POST", "runs/log-metric", json={"run_id": "{run}", **point})
    run.call("POST", "runs/log-batch", json={"run_id": "{run}", "metrics": [point]})
    read(run)

"""The MLflow endpoint: what is written is read, and mistakes of a mirror stay visible."""

import pytest

from tests.azureml_emulator.process import EmulatorProcess
from tests.azureml_emulator.rest import Rest, points, stored_run


def test_experiments_are_unique_by_name(rest: Rest) -> None:
    first = rest.experiment("one")
    again = rest.post("/experiments/create", {"name": "one"})
    assert (again.status_code, again.json()["error_code"]) == (400, "RESOURCE_ALREADY_EXISTS")
    assert rest.get("/experiments/get-by-name", experiment_name="one").json()["experiment"]["experiment_id"] == first
    absent = rest.get("/experiments/get-by-name", experiment_name="two")
    assert (absent.status_code, absent.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_errors_have_azures_shape_and_mlflows_code(rest: Rest) -> None:
    error = rest.get("/runs/get", run_id="nope").json()
    assert error["Error"]["Message"] == "Run with id 'nope' was not found"
    assert error["ComponentName"] == "mlflow"
    assert error["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert error["statusCode"] == 404


def test_both_versions_of_the_endpoint_answer(rest: Rest) -> None:
    run = rest.run()
    for version in ("v1.0", "v2.0"):
        answer = rest.call("GET", f"mlflow/{version}", "/api/2.0/mlflow/runs/get", params={"run_id": run["run_id"]})
        assert answer.json()["run"]["info"]["run_uuid"] == run["run_id"]


def test_creating_a_run_twice_makes_two_runs(rest: Rest) -> None:
    experiment = rest.experiment()
    rest.run(experiment, run_name="same")
    rest.run(experiment, run_name="same")
    assert [run["run_name"] for run in rest.emulator.state()["runs"]] == ["same", "same"]


def test_points_sent_twice_stand_there_twice(rest: Rest) -> None:
    run = rest.run()
    for _ in range(2):
        assert rest.log_batch(run, metrics=points("loss", 2)).status_code == 200
    assert [point["step"] for point in stored_run(rest.emulator, run)["metrics"]] == [0, 1, 0, 1]
    found = rest.get("/metrics/get-history", run_id=run["run_id"], metric_key="loss").json()["metrics"]
    assert [point["step"] for point in found] == [0, 1, 0, 1]


def test_history_comes_in_pages(rest: Rest) -> None:
    run = rest.run()
    rest.log_batch(run, metrics=points("loss", 5))
    query = {"run_id": run["run_id"], "metric_key": "loss", "max_results": 2}
    steps, token = [], None
    while True:
        page = rest.get("/metrics/get-history", **query, **({"page_token": token} if token else {})).json()
        steps.append([point["step"] for point in page["metrics"]])
        token = page.get("next_page_token")
        if token is None:
            break
    assert steps == [[0, 1], [2, 3], [4]]


def test_the_latest_point_is_the_one_of_the_highest_step(rest: Rest) -> None:
    run = rest.run()
    for value, step in ((1.0, 5), (2.0, 9), (3.0, 7)):
        metric = {"key": "m", "value": value, "timestamp": 1, "step": step}
        rest.post("/runs/log-metric", {"run_id": run["run_id"], **metric})
    found = rest.get("/runs/get", run_id=run["run_id"]).json()["run"]["data"]["metrics"]
    assert [(metric["value"], metric["step"]) for metric in found] == [(2.0, 9)]


def test_numbers_come_as_text_and_nan_stays_nan(rest: Rest) -> None:
    run = rest.run(start_time="1700000000000")
    values = ["NaN", "Infinity", "-Infinity", 1]
    metrics = [{"key": "m", "value": value, "timestamp": "7", "step": "3"} for value in values]
    assert rest.log_batch(run, metrics=metrics).status_code == 200
    stored = stored_run(rest.emulator, run)
    assert stored["start_time"] == 1_700_000_000_000
    assert [point["value"] for point in stored["metrics"]] == ["NaN", "Infinity", "-Infinity", 1.0]


def test_params_are_write_once(rest: Rest) -> None:
    run = rest.run()
    first = {"run_id": run["run_id"], "key": "lr", "value": "0.1"}
    assert rest.post("/runs/log-parameter", first).status_code == 200
    assert rest.post("/runs/log-parameter", first).status_code == 200
    changed = rest.log_batch(run, params=[{"key": "lr", "value": "0.2"}], metrics=points("loss", 1))
    assert (changed.status_code, changed.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    stored = stored_run(rest.emulator, run)
    assert stored["params"] == {"lr": "0.1"}
    assert stored["metrics"] == []


def test_status_end_time_and_lifecycle_follow_updates(rest: Rest) -> None:
    run = rest.run()
    ended = {"run_id": run["run_id"], "status": "FINISHED", "end_time": 99, "run_name": "new"}
    info = rest.post("/runs/update", ended).json()["run_info"]
    assert (info["status"], info["end_time"], info["run_name"]) == ("FINISHED", 99, "new")
    assert rest.post("/runs/update", {"run_id": run["run_id"], "status": "DONE"}).status_code == 400
    rest.post("/runs/delete", {"run_id": run["run_id"]})
    assert rest.log_batch(run, metrics=points("loss", 1)).status_code == 400
    rest.post("/runs/restore", {"run_id": run["run_id"]})
    assert rest.log_batch(run, metrics=points("loss", 1)).status_code == 200


def test_the_service_adds_the_root_run_of_nested_runs(rest: Rest) -> None:
    parent = rest.run()
    child = rest.run(parent["experiment_id"], tags=[{"key": "mlflow.parentRunId", "value": parent["run_id"]}])
    assert stored_run(rest.emulator, child)["tags"]["mlflow.rootRunId"] == parent["run_id"]
    assert stored_run(rest.emulator, parent)["tags"]["mlflow.rootRunId"] == parent["run_id"]


@pytest.mark.parametrize(
    "text",
    [
        "tags.\"runmirror.run_id\" = 'abc'",
        "tags.`runmirror.run_id` = 'abc'",
        "tags.runmirror.run_id='abc' and params.lr = '0.1'",
        "metrics.loss >= 1 AND metrics.`val/loss` < 2.5e0",
        "attributes.status = 'RUNNING' and run_name LIKE 'a%'",
        "status IN ('RUNNING', 'FAILED') and tags.quote = 'it''s'",
        "attributes.start_time > 0",
        "",
    ],
)
def test_search_finds_the_one_run(rest: Rest, text: str) -> None:
    tags = [{"key": "runmirror.run_id", "value": "abc"}, {"key": "quote", "value": "it's"}]
    run = rest.run(run_name="a b", tags=tags)
    values = [{"key": "loss", "value": 1, "timestamp": 1}, {"key": "val/loss", "value": 2, "timestamp": 1}]
    rest.log_batch(run, metrics=values, params=[{"key": "lr", "value": "0.1"}])
    found = rest.post("/runs/search", {"experiment_ids": [run["experiment_id"]], "filter": text}).json()["runs"]
    assert [entry["info"]["run_id"] for entry in found] == [run["run_id"]]


@pytest.mark.parametrize(
    "text",
    ["tags.x = 'y'", "params.lr != '0.1'", "metrics.loss > 3", "status = 'FAILED'", "run_name ILIKE 'b%'"],
)
def test_search_leaves_out_what_does_not_fit(rest: Rest, text: str) -> None:
    run = rest.run(run_name="a")
    assert rest.post("/runs/search", {"experiment_ids": [run["experiment_id"]], "filter": text}).json()["runs"] == []


@pytest.mark.parametrize("text", ["tags.x = 'y' or tags.z = 'y'", "tags.x =", "what.x = 'y'", "nonsense = 1", "x"])
def test_search_refuses_what_the_service_does_not_know(rest: Rest, text: str) -> None:
    answer = rest.post("/runs/search", {"experiment_ids": [rest.experiment()], "filter": text})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_search_orders_by_attributes_only_and_comes_in_pages(rest: Rest) -> None:
    experiment = rest.experiment()
    for start in (2, 3, 1):
        rest.run(experiment, start_time=start, run_name=str(start))
    body = {"experiment_ids": [experiment], "order_by": ["attributes.start_time ASC"], "max_results": 2}
    page = rest.post("/runs/search", body).json()
    rest_of_it = rest.post("/runs/search", {**body, "page_token": page["next_page_token"]}).json()
    names = [run["info"]["run_name"] for run in page["runs"] + rest_of_it["runs"]]
    assert names == ["1", "2", "3"]
    assert "next_page_token" not in rest_of_it
    assert rest.post("/runs/search", {**body, "order_by": ["metrics.loss"]}).status_code == 400


def test_a_lagging_index_hides_young_writes(rest: Rest, emulator: EmulatorProcess) -> None:
    run = rest.run()
    rest.log_batch(run, metrics=points("loss", 1), tags=[{"key": "x", "value": "y"}])
    search = {"experiment_ids": [run["experiment_id"]], "filter": "tags.x = 'y'"}
    emulator.change_settings(read_lag_seconds=60)
    assert rest.post("/runs/search", search).json()["runs"] == []
    assert rest.get("/metrics/get-history", run_id=run["run_id"], metric_key="loss").json() == {}
    assert rest.get("/runs/get", run_id=run["run_id"]).json()["run"]["data"]["metrics"][0]["key"] == "loss"
    emulator.change_settings(read_lag_seconds=0)
    assert len(rest.post("/runs/search", search).json()["runs"]) == 1


def test_the_preview_batch_says_what_to_wait_for(rest: Rest) -> None:
    run = rest.run()
    path = "/api/2.0/preview/mlflow/runs/"
    body = {"run_id": run["run_id"], "metrics": points("loss", 2)}
    batch = rest.call("POST", "mlflow/v2.0", path + "log-batch-async", json=body).json()["batch_tracking_id"]
    query = {"run_id": run["run_id"], "batch_tracking_id": batch}
    status = rest.call("GET", "mlflow/v2.0", path + "get-run-data-status", params=query).json()
    assert status == {"is_complete": True}
    assert len(stored_run(rest.emulator, run)["metrics"]) == 2


def test_logged_models_are_absent_unless_switched_on(rest: Rest, emulator: EmulatorProcess) -> None:
    absent = rest.post("/logged-models/search", {"experiment_ids": []})
    assert (absent.status_code, absent.content) == (404, b"")
    assert rest.post("/logged-models", {"name": "m"}).content == b""
    emulator.change_settings(logged_models=True)
    assert rest.post("/logged-models/search", {"experiment_ids": []}).json() == {}
    assert emulator.requests(unknown=True) == []


def test_unknown_routes_are_refused_and_recorded(rest: Rest, emulator: EmulatorProcess) -> None:
    answer = rest.post("/traces/search", {})
    assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert rest.history("GET", "/nothing").json()["error"]["innerError"]["code"] == "RouteNotFound"
    unknown = [(request["method"], request["path"].rpartition("/")[2]) for request in emulator.requests(unknown=True)]
    assert unknown == [("POST", "search"), ("GET", "nothing")]
    assert rest.token not in str(emulator.requests())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/experiments/create", {}),
        ("/experiments/create", {"name": 3}),
        ("/runs/create", {"experiment_id": "E", "start_time": "soon"}),
        ("/runs/log-metric", {"run_id": "R", "key": "m", "value": "high", "timestamp": 1}),
        ("/runs/log-metric", {"key": "m", "value": 1, "timestamp": 1}),
        ("/runs/log-batch", {"run_id": "R", "metrics": {"key": "m"}}),
        ("/runs/log-batch", {"run_id": "R", "tags": ["x"]}),
    ],
)
def test_bad_bodies_are_refused_by_name(rest: Rest, path: str, body: dict[str, object]) -> None:
    run = rest.run()
    named = {"E": run["experiment_id"], "R": run["run_id"]}
    answer = rest.post(path, {key: named.get(str(value), value) for key, value in body.items()})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_model_versions_are_numbered_and_findable(rest: Rest) -> None:
    run = rest.run()
    assert rest.post("/registered-models/create", {"name": "net"}).status_code == 200
    again = rest.post("/registered-models/create", {"name": "net"})
    assert again.json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
    source = run["artifact_uri"] + "/model"
    for wanted in ("1", "2"):
        body = {"name": "net", "source": source, "run_id": run["run_id"], "tags": [{"key": "k", "value": wanted}]}
        version = rest.post("/model-versions/create", body).json()["model_version"]
        assert (version["version"], version["status"]) == (wanted, "READY")
    found = rest.get("/model-versions/search", filter="name = 'net' and tags.k = '2'").json()["model_versions"]
    assert [version["version"] for version in found] == ["2"]
    latest = rest.get("/registered-models/get", name="net").json()["registered_model"]["latest_versions"]
    assert [version["version"] for version in latest] == ["2"]
    assert rest.get("/model-versions/get-download-uri", name="net", version="1").json() == {"artifact_uri": source}
    orphan = rest.post("/model-versions/create", {"name": "net", "source": source, "run_id": "gone"})
    assert orphan.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert [len(model["versions"]) for model in rest.emulator.state()["models"]] == [2]

"""Run history, metrics and model management: the other side of what MLflow's clients write."""

from tests.azureml_emulator.rest import Json, Rest, points, stored_run


def test_an_experiment_answers_to_its_name_and_its_id(rest: Rest) -> None:
    run = rest.run(rest.experiment("demo"), run_name="r")
    run_id, experiment_id = run["run_id"], run["experiment_id"]
    for path in (
        f"/experiments/demo/runs/{run_id}",
        f"/experiments/{experiment_id}/runs/{run_id}",
        f"/experimentids/{experiment_id}/runs/{run_id}",
        f"/runs/{run_id}",
    ):
        found = rest.history("GET", path).json()
        assert (found["runId"], found["status"], found["displayName"]) == (run_id, "Running", "r")
    assert rest.history("GET", "/experiments/demo").json()["experimentId"] == experiment_id
    rest.experiment("other")
    assert rest.history("GET", f"/experiments/other/runs/{run_id}").status_code == 404
    assert rest.history("GET", "/experiments/nothing").json()["error"]["code"] == "UserError"


def test_an_experiment_is_created_by_history_and_seen_by_mlflow(rest: Rest) -> None:
    made = rest.history("POST", "/experiments/fresh").json()
    found = rest.get("/experiments/get-by-name", experiment_name="fresh").json()["experiment"]
    assert found["experiment_id"] == made["experimentId"]
    assert [e["name"] for e in rest.history("POST", "/experiments:query", json={}).json()["value"]] == ["fresh"]


def test_details_always_have_their_log_files(rest: Rest) -> None:
    run = rest.run()
    details = rest.history("GET", f"/runs/{run['run_id']}/details").json()
    assert details["logFiles"] == {}
    assert details["runId"] == run["run_id"]


def test_a_patched_run_is_made_once_under_the_callers_id(rest: Rest) -> None:
    rest.experiment("demo")
    body = {
        "displayName": "mine",
        "status": "Running",
        "startTimeUtc": "2026-01-01T00:00:00Z",
        "tags": {"k": "v"},
        "properties": {"p": "1"},
    }
    for _ in range(2):
        assert rest.history("PATCH", "/experiments/demo/runs/my_run-1", json=body).json()["runId"] == "my_run-1"
    (run,) = rest.emulator.state()["runs"]
    assert (run["run_name"], run["status"], run["start_time"]) == ("mine", "RUNNING", 1_767_225_600_000)
    assert run["tags"]["k"] == "v"
    assert rest.history("PATCH", "/experiments/demo/runs/bad%20id", json={}).status_code == 400


def test_events_change_the_status(rest: Rest) -> None:
    run = rest.run()
    path = f"/experiments/demo/runs/{run['run_id']}/events"
    for event, status in (("Heartbeat", "RUNNING"), ("Failed", "FAILED"), ("Completed", "FINISHED")):
        members = {"RunId": run["run_id"], "EndTime": "2026-01-01T00:00:00.5Z"}
        body = {"name": f"Microsoft.MachineLearning.Run.{event}", "data": members}
        assert rest.history("POST", path, json=body).status_code == 200
        assert stored_run(rest.emulator, run)["status"] == status
    assert stored_run(rest.emulator, run)["end_time"] == 1_767_225_600_500


def test_tags_are_deleted_by_a_list_of_keys(rest: Rest) -> None:
    run = rest.run(tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
    assert rest.history("DELETE", f"/experiments/demo/runs/{run['run_id']}/tags", json=["a"]).status_code == 200
    assert "a" not in stored_run(rest.emulator, run)["tags"]
    assert stored_run(rest.emulator, run)["tags"]["b"] == "2"


def test_runs_are_queried_by_parent_status_and_tag(rest: Rest) -> None:
    parent = rest.run(tags=[{"key": "k", "value": "v"}])
    child = rest.run(parent["experiment_id"], tags=[{"key": "mlflow.parentRunId", "value": parent["run_id"]}])

    def query(text: str | None, **members: object) -> list[str]:
        body: Json = {"filter": text, "orderby": "StartTimeUtc desc", **members}
        answer = rest.history("POST", "/experiments/demo/runs:query", json=body)
        return [run["runId"] for run in answer.raise_for_status().json()["value"]]

    assert query("(ParentRunId eq null)") == [parent["run_id"]]
    assert query("(ParentRunId eq null) and (Tags/k eq v)") == [parent["run_id"]]
    assert query("(Tags/k ne null or Tags/k eq null) and (Status eq Completed)") == []
    assert query(f"RootRunId eq {parent['run_id']}", top=5) == query(None)
    assert len(query(None)) == 2
    children = rest.history("GET", f"/experiments/demo/runs/{parent['run_id']}/children").json()["value"]
    assert [run["runId"] for run in children] == [child["run_id"]]
    assert rest.history("POST", "/experiments/demo/runs:query", json={"filter": "Colour eq red"}).status_code == 400


def test_a_run_token_opens_the_data_plane_only(rest: Rest) -> None:
    run = rest.run()
    answer = rest.history("GET", f"/experimentids/{run['experiment_id']}/runs/{run['run_id']}/token").json()
    headers = {"Authorization": f"Bearer {answer['token']}"}
    assert rest.history("GET", f"/runs/{run['run_id']}", headers=headers).status_code == 200
    assert rest.client.get("https://management.azure.com/subscriptions", headers=headers).status_code == 401


def test_the_metric_service_shows_what_mlflow_logged(rest: Rest) -> None:
    run = rest.run()
    rest.log_batch(run, metrics=[*points("loss", 2), {"key": "acc", "value": "NaN", "timestamp": 0}])
    path = f"/runs/{run['run_id']}"
    listed = rest.metric(path + "/list", {}).json()["value"]
    assert [entry["metricKey"]["name"] for entry in listed] == ["loss", "acc"]
    full = rest.metric(path + "/full", {"metricName": "loss"}).json()
    assert full["properties"] == {"uxMetricType": "azureml.v1.scalar"}
    assert [(value["step"], value["data"]) for value in full["value"]] == [(0, {"loss": 0.0}), (1, {"loss": 1.0})]
    assert rest.metric(path + "/full", {"metricName": "none"}).status_code == 404


def test_series_of_the_metric_service_are_seen_by_mlflow(rest: Rest) -> None:
    run = rest.run()
    scalar = {
        "name": "m",
        "columns": {"m": "double"},
        "value": [{"createdUtc": "2026-01-01T00:00:00Z", "data": {"m": 1.5}}],
    }
    table = {"name": "t", "columns": {"x": "double", "y": "string"}, "value": [{"data": {"x": 1, "y": "a"}}]}
    broken = {"name": "b", "columns": {"b": "double"}, "value": [{"data": {"b": "high"}}]}
    answer = rest.metric(f"/runs/{run['run_id']}/batch", {"values": [scalar, table, broken], "reportErrors": True})
    assert answer.status_code == 207
    assert [error["metricName"] for error in answer.json()["errors"]] == ["b"]
    found = rest.get("/metrics/get-history", run_id=run["run_id"], metric_key="m").json()["metrics"]
    assert [(metric["value"], metric["timestamp"]) for metric in found] == [(1.5, 1_767_225_600_000)]
    assert stored_run(rest.emulator, run)["tables"][0]["values"] == {"x": 1, "y": "a"}


def test_a_model_of_either_registry_is_in_both(rest: Rest) -> None:
    def call(method: str, path: str, body: Json | None = None) -> Json:
        answer: Json = rest.call(method, "modelmanagement/v1.0", path, json=body).raise_for_status().json()
        return answer

    asset = call("POST", "/assets", {"name": "net", "artifacts": [{"prefix": "LocalUpload/c/model.pkl"}]})
    model = {"name": "net", "url": f"aml://asset/{asset['id']}", "kvTags": {"k": "v"}, "mimeType": "application/json"}
    assert call("POST", "/models", model)["id"] == "net:1"
    rest.post("/model-versions/create", {"name": "net", "source": "azureml://x"})
    listed = call("GET", "/models?count=255&latestVersionOnly=false")["value"]
    assert [found["id"] for found in listed] == ["net:2", "net:1"]
    assert [found["id"] for found in call("GET", "/models?latestVersionOnly=true")["value"]] == ["net:2"]
    assert call("GET", "/models/net:1")["kvTags"] == {"k": "v"}
    assert rest.get("/model-versions/get", name="net", version="1").json()["model_version"]["tags"][0]["key"] == "k"
    missing = rest.call("GET", "modelmanagement/v1.0", "/models/net:9")
    assert (missing.status_code, missing.json()["statusCode"]) == (404, 404)

"""What may not be read is told by no list, page, count or neighbour, and changed by no way around."""

import asyncio
import json

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import event

from runmirror.auth.levels import Kind, Level
from tests.auth.conftest import Guarded
from tests.auth.world import SECRET, TRACE, World, populated

V2, V3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
GRAPHQL = """
query Q($ids: [String]) {
  mlflowSearchRuns(input: {experimentIds: $ids}) { runs { info { runName } modelVersions { name } } }
  mlflowSearchModelVersions(input: {}) { modelVersions { name } }
}
"""


async def own(client: httpx.AsyncClient) -> dict[str, str]:
    """An experiment, a run and a registered model of the caller's."""
    made = await client.post(f"{V2}/experiments/create", json={"name": "mine"})
    experiment_id = made.json()["experiment_id"]
    run = await client.post(f"{V2}/runs/create", json={"experiment_id": experiment_id, "start_time": 2})
    assert (await client.post(f"{V2}/registered-models/create", json={"name": "my-model"})).status_code == 200
    return {"experiment_id": experiment_id, "run_id": run.json()["run"]["info"]["run_id"]}


async def test_lists_pages_counts_and_neighbours_tell_nothing_of_what_may_not_be_read(guarded: Guarded) -> None:
    world = await populated(guarded)
    stranger = world.clients["stranger"]
    mine = await own(stranger)
    both = [world.experiment_id, mine["experiment_id"]]
    asked: list[tuple[str, str, object]] = [
        ("POST", f"{V2}/experiments/search", {"max_results": 1}),
        ("POST", f"{V2}/experiments/search", {"max_results": 100, "view_type": "ALL"}),
        ("POST", f"{V2}/experiments/search", {"max_results": 10, "filter": f"name LIKE '%{SECRET[1:]}%'"}),
        ("POST", f"{V2}/runs/search", {"experiment_ids": both, "max_results": 1, "run_view_type": "ALL"}),
        ("POST", f"{V2}/runs/search", {"experiment_ids": both[:1]}),
        ("POST", f"{V2}/logged-models/search", {"experiment_ids": both}),
        ("GET", f"{V2}/registered-models/search?max_results=1", None),
        ("GET", f"{V2}/registered-models/search?filter=name+LIKE+'%25'", None),
        ("GET", f"{V2}/model-versions/search?max_results=1", None),
        ("GET", f"{V2}/model-versions/search?filter=run_id='{'0' * 32}'", None),
        ("POST", f"{V3}/datasets/search", {}),
        ("POST", f"{V3}/datasets/search", {"experiment_ids": both}),
        ("GET", f"{V3}/scorers/list", None),
        ("GET", f"{V3}/scorers/list?experiment_ids={both[0]}&experiment_ids={both[1]}", None),
        ("POST", "/graphql", {"query": GRAPHQL, "variables": {"ids": both}}),
        ("GET", "/mirror/runs", None),
        ("GET", f"/mirror/runs?q={world.experiment_id}", None),
        ("GET", "/api/runmirror/v1/mirror/quarantine", None),
        ("GET", "/api/runmirror/v1/mirror/registered-models", None),
    ]
    for method, path, body in asked:
        answer = await stranger.request(method, path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        assert not [secret for secret in world.secrets if secret in answer.text.replace(str(body), "")], (
            path,
            answer.text,
        )
        if "json" in answer.headers["content-type"]:
            told = answer.json()
            assert not told.get("next_page_token"), (path, told)
        # The same question tells the reader: else the test would ask nothing.
    reader = world.clients["reader"]
    for method, path, body in asked[1:2] + asked[3:4] + asked[5:7] + asked[8:9] + asked[10:13] + asked[14:16]:
        answer = await reader.request(method, path, json=body)
        assert SECRET in answer.text, (path, answer.text)


async def test_what_a_graphql_document_names_is_asked_for_as_by_the_route_of_its_field(guarded: Guarded) -> None:
    world = await populated(guarded)
    fields = [
        f'mlflowGetRun(input: {{runId: "{world.run_id}"}}) {{ run {{ info {{ runName }} }} }}',
        f'mlflowGetExperiment(input: {{experimentId: "{world.experiment_id}"}}) {{ experiment {{ name }} }}',
        f'mlflowListArtifacts(input: {{runId: "{world.run_id}"}}) {{ files {{ path }} }}',
        f'mlflowSearchDatasets(input: {{experimentIds: ["{world.experiment_id}"]}}) {{ datasetSummaries {{ name }} }}',
    ]
    for field in fields:
        operation = "mutation" if "Datasets" in field else "query"  # where MLflow's schema has it
        document = {"query": f"{operation} {{ {field} }}"}
        refused = await world.clients["stranger"].post("/graphql", json=document)
        assert SECRET not in refused.text
        assert "Permission denied" in refused.text, refused.text
        answer = await world.clients["reader"].post("/graphql", json=document)
        assert SECRET in answer.text, answer.text


async def test_no_other_way_leads_to_what_may_not_be_changed(guarded: Guarded) -> None:
    """Each request is about something of the caller's own, and about something of others besides."""
    world = await populated(guarded)
    stranger = world.clients["stranger"]
    mine = await own(stranger)
    point = {"key": "m", "value": 1, "timestamp": 1, "model_id": world.model_id}
    info = {
        "trace_id": TRACE, "request_time": "2026-01-01T00:00:00Z", "state": "OK",
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": mine["experiment_id"]}},
    }  # fmt: skip
    run, experiment, model = mine["run_id"], mine["experiment_id"], world.model_id
    version = {"name": "my-model"}
    refused: list[tuple[str, str, dict[str, object]]] = [
        ("POST", f"{V2}/runs/log-metric", {"run_id": run, **point}),
        ("POST", f"{V2}/runs/log-batch", {"run_id": run, "metrics": [point]}),
        ("POST", f"{V2}/runs/log-metric", {"run_id": run, "run_uuid": world.run_id, **point, "model_id": ""}),
        ("POST", f"{V2}/runs/log-metric", {"run_id": world.run_id, "run_uuid": run, **point, "model_id": ""}),
        ("POST", f"{V2}/runs/set-tag?run_id={run}", {"run_id": world.run_id, "key": "k", "value": "v"}),
        ("POST", f"{V2}/runs/set-tag?run_id={world.run_id}", {"run_id": run, "key": "k", "value": "v"}),
        ("POST", f"{V2}/runs/outputs", {"run_id": run, "models": [{"model_id": model, "step": 0}]}),
        ("POST", f"{V2}/runs/log-inputs", {"run_id": run, "models": [{"model_id": model}]}),
        ("POST", f"{V2}/logged-models", {"experiment_id": experiment, "source_run_id": world.run_id}),
        (
            "POST",
            f"{V2}/model-versions/create",
            {**version, "source": f"runs:/{world.run_id}/m", "run_id": world.run_id},
        ),
        ("POST", f"{V2}/model-versions/create", {**version, "source": f"models:/{world.model}/1"}),
        ("POST", f"{V2}/model-versions/create", {**version, "source": f"models:/{world.model}@best"}),
        ("POST", f"{V2}/model-versions/create", {**version, "source": f"models:/{model}", "model_id": model}),
        ("POST", f"{V3}/traces", {"trace": {"trace_info": info}}),
        ("POST", f"{V2}/traces/link-to-run", {"run_id": run, "trace_ids": [TRACE]}),
        ("POST", f"{V3}/datasets/create", {"name": "x", "experiment_ids": [experiment, world.experiment_id]}),
        ("POST", f"{V3}/datasets/{world.dataset_id}/add-experiments", {"experiment_ids": [experiment]}),
        ("DELETE", f"{V2}-artifacts/artifacts/{world.experiment_id}", {}),
        ("DELETE", f"{V2}/registered-models/delete?name=my-model", {"name": world.model}),
        ("GET", f"{V2}/runs/get?run_id={run}&run_id={world.run_id}", {}),
        ("GET", f"{V2}/runs/get?run_id={world.run_id}&run_id={run}", {}),
        ("GET", f"{V2}-artifacts/artifacts?path={world.experiment_id}", {}),
        ("GET", f"{V2}/metrics/get-history-bulk-interval?run_ids={run}&run_ids={world.run_id}&metric_key=m", {}),
        *(
            ("POST", f"{V2}/experiments/create", {"name": "there", "artifact_location": f"mlflow-artifacts:/{place}"})
            for place in (world.experiment_id, f"{world.experiment_id}/{world.run_id}/artifacts", "1000000", "99/x")
        ),
        ("POST", f"{V2}/experiments/search-datasets", {"experiment_ids": [experiment, f" {world.experiment_id}"]}),
    ]
    before = await seen_by_admin(world)
    for method, path, body in refused:
        for way in (path, path.replace("/api/", "/ajax-api/", 1)):
            answer = await stranger.request(method, way, json=body or None)
            assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), (
                way,
                body,
                answer.text,
            )
    # Spans that name a trace of others, sent to an experiment of one's own.
    export = ExportTraceServiceRequest()
    span = export.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = bytes.fromhex("7" * 32), b"12345678", "mine"
    span.start_time_unix_nano = span.end_time_unix_nano = 1
    for ids in (
        [experiment],
        [world.experiment_id],
        [experiment, world.experiment_id],
        [world.experiment_id, experiment],
    ):
        headers = [("content-type", "application/x-protobuf"), *(("x-mlflow-experiment-id", each) for each in ids)]
        answer = await stranger.post("/v1/traces", content=export.SerializeToString(), headers=headers)
        assert answer.status_code == 403, (ids, answer.text)
    assert await seen_by_admin(world) == before


async def seen_by_admin(world: World) -> list[str]:
    """All that could have been changed of the secret experiment."""
    admin = world.clients["admin"]
    asked = (
        f"{V2}/runs/get?run_id={world.run_id}", f"{V2}/logged-models/{world.model_id}",
        f"{V3}/traces/{TRACE}", f"{V3}/datasets/{world.dataset_id}",
        f"{V2}/registered-models/get?name={world.model}", f"{V2}/model-versions/search",
        f"{V2}-artifacts/artifacts/{world.file}",
    )  # fmt: skip
    answers = [await admin.get(path) for path in asked]
    assert [answer.status_code for answer in answers] == [200] * len(asked)
    return [answer.text for answer in answers]


async def test_the_hot_way_is_under_the_same_permission_before_and_after_it_is_known(guarded: Guarded) -> None:
    world = await populated(guarded)
    point = {"run_id": world.run_id, "key": "hot", "value": 1.0, "timestamp": 1}
    new = {"experiment_id": world.experiment_id, "start_time": 1}
    for _ in range(3):  # the first time nothing is known of anybody, then it is
        for name, status in (("stranger", 403), ("reader", 403), ("editor", 200), ("manager", 200), ("admin", 200)):
            for path, body in (("log-metric", point), ("create", new)):
                answer = await world.clients[name].post(f"{V2}/runs/{path}", json=body)
                assert answer.status_code == status, (name, path, answer.text)
            for service in (f"{V2}-artifacts", f"/ajax-{V2[1:]}-artifacts"):
                place = f"{service}/artifacts/{world.experiment_id}/{world.run_id}/artifacts/hot.txt"
                answer = await world.clients[name].put(place, content=b"small")
                assert answer.status_code == status, (name, place, answer.text)
        assert (await guarded.as_nobody().post(f"{V2}/runs/log-metric", json=point)).status_code == 401
        assert (
            await guarded.as_nobody().put(f"{V2}-artifacts/artifacts/{world.file}", content=b"x")
        ).status_code == 401
    await guarded.grant("editor", Kind.EXPERIMENT, int(world.experiment_id), Level.READ)
    await forbidden_soon(world.clients["editor"], f"{V2}/runs/log-metric", point)


async def test_a_grant_of_a_group_of_everything_and_a_denial_are_folded(guarded: Guarded) -> None:
    world = await populated(guarded)
    stranger, path = world.clients["stranger"], f"{V2}/runs/get?run_id={world.run_id}"
    assert (await stranger.get(path)).status_code == 403
    assert (await stranger.get("/metrics")).status_code == 403
    await guarded.grant("everyone", Kind.EXPERIMENT, -1, Level.READ)
    await allowed_soon(stranger, path)
    assert (await stranger.get("/metrics")).status_code == 403, "models are hidden still"
    await guarded.grant("everyone", Kind.REGISTERED_MODEL, -1, Level.READ)
    await allowed_soon(stranger, "/metrics")
    await guarded.grant("stranger", Kind.EXPERIMENT, int(world.experiment_id), Level.DENY)
    await forbidden_soon(stranger, path)
    assert (await stranger.get("/mirror")).status_code == 403
    found = await stranger.post(f"{V2}/experiments/search", json={"max_results": 10})
    assert [one["name"] for one in found.json()["experiments"]] == ["Default"]


async def allowed_soon(client: httpx.AsyncClient, path: str) -> None:
    """A change is told by Postgres, milliseconds after its commit."""
    async with asyncio.timeout(10):
        while (await client.get(path)).status_code != 200:
            await asyncio.sleep(0.01)


async def forbidden_soon(client: httpx.AsyncClient, path: str, body: object = None) -> None:
    method = "GET" if body is None else "POST"
    content = None if body is None else json.dumps(body).encode()
    async with asyncio.timeout(10):
        while (
            await client.request(method, path, content=content, headers={"content-type": "application/json"})
        ).status_code != 403:
            await asyncio.sleep(0.01)


async def test_an_editors_files_take_the_short_way_until_the_place_is_anothers(guarded: Guarded) -> None:
    world = await populated(guarded)
    editor, admin = world.clients["editor"], world.clients["admin"]
    folder = f"/api/2.0/mlflow-artifacts/artifacts/{world.experiment_id}/{world.run_id}/artifacts"
    asked: list[str] = []

    @event.listens_for(guarded.app.state.engine.sync_engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    async with asyncio.timeout(10):
        while True:  # what making the world has told may come late
            asked.clear()
            assert (await editor.put(f"{folder}/a.txt", content=b"x")).status_code == 200
            if not asked:
                break
    assert (await editor.put(f"{folder}/deep/b.txt", content=b"x")).status_code == 200
    assert asked == [], "neither who it is nor what they may do is asked again"
    for name in ("stranger", "reader"):
        assert (await world.clients[name].put(f"{folder}/c.txt", content=b"x")).status_code == 403
    for path in ("%2e%2e%2f%2e%2e%2fx", "a//b", "%2e"):
        assert (await editor.put(f"{folder}/{path}", content=b"x")).status_code in {400, 403, 404}, path
    # An admin may have an experiment's files below another's; then both count.
    inner = {"name": "inner", "artifact_location": f"mlflow-artifacts:/{world.experiment_id}/inner"}
    assert (await admin.post(f"{V2}/experiments/create", json=inner)).status_code == 200
    place = f"/api/2.0/mlflow-artifacts/artifacts/{world.experiment_id}/inner/x"
    async with asyncio.timeout(10):
        while (await editor.put(place, content=b"x")).status_code != 403:
            await asyncio.sleep(0.01)

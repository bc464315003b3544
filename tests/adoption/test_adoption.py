"""A run that was born in the workspace becomes a run here, under its own id, and is not made twice anywhere."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.mirror.verify.session import verify_runs
from runmirror.mirror.verify.verdicts import Outcome
from runmirror.mirror.worker import Worker
from runmirror.run_ids import stored_id
from runmirror.settings import Settings
from tests.adoption.conftest import JOB, serving
from tests.azureml_emulator.process import EmulatorProcess
from tests.azureml_emulator.rest import Rest

Json = dict[str, Any]
API = "/api/2.0/mlflow"


async def get_run(client: httpx.AsyncClient, run_id: str) -> Json:
    answer = await client.get(f"{API}/runs/get", params={"run_id": run_id})
    assert answer.status_code == 200, answer.text
    run: Json = answer.json()["run"]
    return run


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> Json:
    answer = await client.post(API + path, json=body)
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


def at_home(emulator: EmulatorProcess, run_id: str = JOB) -> Json:
    """The run as it stands in the workspace."""
    [run] = [run for run in emulator.state()["runs"] if run["run_id"] == run_id]
    found: Json = run
    return found


async def number_of_runs(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM runs")) or 0)


async def test_a_run_of_the_workspace_is_found_here_with_all_that_it_has(client: httpx.AsyncClient, job: str) -> None:
    run = await get_run(client, JOB)
    assert (run["info"]["run_id"], run["info"]["run_uuid"]) == (JOB, JOB)
    assert (run["info"]["status"], run["info"]["run_name"]) == ("RUNNING", "happy lion")
    key = stored_id(JOB)
    assert key is not None
    assert run["info"]["artifact_uri"].endswith(f"/{key.hex}/artifacts"), "its files lie where ours do"
    assert {param["key"]: param["value"] for param in run["data"]["params"]} == {"image": "cuda"}
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags.items() >= {"team": "vision", "mlflow.runName": "happy lion"}.items()
    history = await client.get(f"{API}/metrics/get-history", params={"run_id": JOB, "metric_key": "warmup"})
    assert [point["value"] for point in history.json()["metrics"]] == [0.0, 1.0, 2.0]
    experiment = await client.get(f"{API}/experiments/get-by-name", params={"experiment_name": "jobs"})
    assert experiment.json()["experiment"]["experiment_id"] == run["info"]["experiment_id"]


async def test_what_is_logged_here_is_added_there_and_nothing_is_sent_twice(
    client: httpx.AsyncClient, job: str, azure_worker: Worker, emulator: EmulatorProcess, engine: AsyncEngine,
    azure_settings: Settings, store: Store,
) -> None:  # fmt: skip
    before = at_home(emulator)
    await get_run(client, JOB)
    await post(client, "/runs/update", run_id=JOB, status="RUNNING")
    point = {"key": "loss", "value": 0.5, "timestamp": 5000, "step": 1}
    more = {"key": "warmup", "value": 9.0, "timestamp": 5000, "step": 9}
    await post(
        client, "/runs/log-batch", run_id=JOB, metrics=[point, more], params=[{"key": "lr", "value": "0.1"}],
        tags=[{"key": "stage", "value": "late"}],
    )  # fmt: skip
    await azure_worker.drain()
    await post(client, "/runs/update", run_id=JOB, status="FINISHED", end_time=6000, run_name="renamed here")
    await azure_worker.drain()

    after = at_home(emulator)
    assert len(emulator.state()["runs"]) == 1
    assert after["params"] == {**before["params"], "lr": "0.1"}
    points = [(p["key"], p["step"], float(p["value"])) for p in after["metrics"]]
    assert sorted(points) == [("loss", 1, 0.5), *[("warmup", step, float(step)) for step in (0, 1, 2, 9)]]
    assert after["tags"].items() >= {**before["tags"], "stage": "late", "runmirror.source": "runmirror"}.items() - {
        ("mlflow.runName", "happy lion")
    }
    assert (after["run_name"], after["status"]) == ("renamed here", before["status"])
    row = (await client.get(f"/api/runmirror/v1/runs/{JOB}/mirror")).json()
    assert (row["run_id"], row["remote_run_id"], row["state"]) == (JOB, JOB, "current")
    run = await get_run(client, JOB)
    assert run["info"]["status"] == "FINISHED"
    assert {"key": "runmirror.azureml.run_id", "value": JOB} in run["data"]["tags"]
    key = stored_id(JOB)
    assert key is not None
    (verdict,) = await verify_runs(azure_settings, engine, store, [key])
    assert (verdict.outcome, verdict.differences) == (Outcome.EQUAL, ()), "what only the job may say is no difference"


async def test_every_kind_of_write_adopts_and_takes_effect_once(
    client: httpx.AsyncClient, rest: Rest, engine: AsyncEngine
) -> None:
    rest.experiment("jobs")
    point = {"key": "m", "value": 1.0, "timestamp": 1, "step": 0}
    writes: list[tuple[str, Json]] = [
        ("log-metric", point),
        ("log-parameter", {"key": "p", "value": "1"}),
        ("set-tag", {"key": "t", "value": "1"}),
        ("log-batch", {"metrics": [point]}),
        ("update", {"status": "RUNNING"}),
    ]
    for number, (endpoint, body) in enumerate(writes):
        run_id = f"job-{number}"
        rest.history("PATCH", f"/experiments/jobs/runs/{run_id}", json={"runId": run_id}).raise_for_status()
        await post(client, f"/runs/{endpoint}", run_id=run_id, **body)
    assert await number_of_runs(engine) == len(writes)
    logged = [await get_run(client, f"job-{number}") for number in range(len(writes))]
    assert [len(run["data"].get("metrics", [])) for run in logged] == [1, 0, 0, 1, 0]
    listed = await client.get(f"{API}/artifacts/list", params={"run_id": "job-0"})
    assert listed.status_code == 200, listed.text


async def test_writes_that_arrive_together_adopt_a_run_once_and_hold_up_no_other(
    client: httpx.AsyncClient, patient: Settings, job: str, engine: AsyncEngine
) -> None:
    async with serving(patient) as patiently:
        ours = (await post(client, "/runs/create", experiment_id=job, start_time=1))["run"]["info"]["run_id"]
        await asyncio.gather(*(
            post(patiently, "/runs/log-metric", run_id=run_id, key="m", value=float(step), timestamp=1, step=step)
            for step in range(8) for run_id in (JOB, ours)
        ))  # fmt: skip
    assert await number_of_runs(engine) == 2
    for run_id in (JOB, ours):
        history = await client.get(f"{API}/metrics/get-history", params={"run_id": run_id, "metric_key": "m"})
        assert [point["step"] for point in history.json()["metrics"]] == list(range(8))


async def test_many_clients_and_several_servers_adopt_one_run(
    client: httpx.AsyncClient, patient: Settings, job: str, engine: AsyncEngine
) -> None:
    async with serving(patient) as second, serving(patient) as third:
        runs = await asyncio.gather(*(get_run(at, JOB) for at in (client, second, third) for _ in range(8)))
    assert {run["info"]["run_id"] for run in runs} == {JOB}
    assert await number_of_runs(engine) == 1
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM mirrors")) == 1
        assert await connection.scalar(text("SELECT count(*) FROM metrics")) == 3


async def test_an_adopted_run_is_found_by_search_and_filter_and_charts(client: httpx.AsyncClient, job: str) -> None:
    run = await get_run(client, JOB)
    found = await post(client, "/runs/search", experiment_ids=[job], filter=f"attributes.run_id = '{JOB}'")
    assert [hit["info"]["run_id"] for hit in found["runs"]] == [JOB]
    assert found["runs"][0]["info"]["experiment_id"] == run["info"]["experiment_id"]
    charts = await client.get(
        "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval",
        params={"run_ids": JOB, "metric_key": "warmup", "max_results": 10},
    )
    assert {point["run_id"] for point in charts.json()["metrics"]} == {JOB}


async def test_the_experiment_of_the_job_is_known_by_the_id_that_azure_gave_it(
    client: httpx.AsyncClient, job: str, emulator: EmulatorProcess
) -> None:
    answer = await client.get(f"{API}/experiments/get", params={"experiment_id": job})
    ours = answer.json()["experiment"]
    assert (ours["name"], ours["experiment_id"].isdigit()) == ("jobs", True)
    made = await post(client, "/runs/create", experiment_id=job.upper(), start_time=1)
    assert made["run"]["info"]["experiment_id"] == ours["experiment_id"]
    asked = len(emulator.requests())
    await post(client, "/runs/search", experiment_ids=[job])
    assert len(emulator.requests()) == asked


async def test_an_experiment_of_that_name_is_used_and_not_made_again(client: httpx.AsyncClient, job: str) -> None:
    made = await post(client, "/experiments/create", name="jobs")
    assert (await get_run(client, JOB))["info"]["experiment_id"] == made["experiment_id"]


async def test_children_logged_models_and_versions_go_by_the_id_of_the_job(
    client: httpx.AsyncClient, job: str, azure_worker: Worker, emulator: EmulatorProcess
) -> None:
    await get_run(client, JOB)
    parent = {"key": "mlflow.parentRunId", "value": JOB}
    child = await post(client, "/runs/create", experiment_id=job, start_time=1, run_name="child", tags=[parent])
    model = await post(client, "/logged-models", experiment_id=job, name="net", source_run_id=JOB)
    assert model["model"]["info"]["source_run_id"] == JOB
    model_id = model["model"]["info"]["model_id"]
    of_model = {"key": "acc", "value": 1.0, "timestamp": 1, "step": 0, "model_id": model_id}
    await post(client, "/runs/log-batch", run_id=JOB, metrics=[of_model])
    read = (await client.get(f"{API}/logged-models/{model_id}")).json()["model"]
    assert (read["info"]["source_run_id"], read["data"]["metrics"][0]["run_id"]) == (JOB, JOB)
    await post(client, "/registered-models/create", name="net")
    version = await post(client, "/model-versions/create", name="net", source=f"runs:/{JOB}/model", run_id=JOB)
    assert version["model_version"]["run_id"] == JOB
    of_logged = await post(
        client, "/model-versions/create", name="net", source=f"models:/{model_id}", model_id=model_id
    )
    assert of_logged["model_version"]["run_id"] == JOB
    await azure_worker.drain()
    [remote] = [run for run in emulator.state()["runs"] if run["run_name"] == "child"]
    assert remote["tags"]["mlflow.parentRunId"] == JOB
    assert remote["tags"]["runmirror.run_id"] == child["run"]["info"]["run_id"]


async def test_deleting_an_adopted_run_leaves_the_job_alone(
    client: httpx.AsyncClient, job: str, azure_worker: Worker, emulator: EmulatorProcess
) -> None:
    await get_run(client, JOB)
    await post(client, "/runs/delete", run_id=JOB)
    await azure_worker.drain()
    assert at_home(emulator)["lifecycle_stage"] == "active"
    assert at_home(emulator)["tags"]["runmirror.lifecycle_stage"] == "deleted"


async def test_a_request_about_an_adopted_run_costs_no_statement_more_than_one_about_ours(
    patient: Settings, client: httpx.AsyncClient, job: str
) -> None:
    statements: list[str] = []
    process = serving(patient)
    async with process as counted:
        await get_run(counted, JOB)
        made = await post(counted, "/runs/create", experiment_id=job, start_time=1)
        event.listen(process.engine.sync_engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
        seen = []
        for run_id in (JOB, made["run"]["info"]["run_id"]):
            statements.clear()
            await get_run(counted, run_id)
            await post(counted, "/runs/set-tag", run_id=run_id, key="k", value="v")
            await post(counted, "/runs/log-parameter", run_id=run_id, key="p", value="v")
            seen.append([statement for statement in statements if "webhook" not in statement])
    assert seen[0] == seen[1] != []
    assert not any("SET seq" in statement for statement in seen[0]), "the hot way takes connections of its own"


async def test_a_job_with_as_many_tags_as_fit_takes_the_rest_all_the_same(
    client: httpx.AsyncClient, job: str, rest: Rest, azure_worker: Worker, emulator: EmulatorProcess
) -> None:
    tags = [{"key": f"t{number}", "value": "x"} for number in range(50 - len(at_home(emulator)["tags"]) + 1)]
    rest.post("/runs/log-batch", {"run_id": JOB, "tags": tags}).raise_for_status()
    await get_run(client, JOB)
    await post(client, "/runs/log-parameter", run_id=JOB, key="lr", value="0.1")
    await azure_worker.drain()
    assert at_home(emulator)["params"] == {"image": "cuda", "lr": "0.1"}
    row = (await client.get(f"/api/runmirror/v1/runs/{JOB}/mirror")).json()
    assert (row["state"], row["last_error"]) == ("current", None)


async def test_of_a_run_whose_points_take_long_to_read_the_newest_come(
    azure_settings: Settings, client: httpx.AsyncClient, job: str, emulator: EmulatorProcess
) -> None:
    emulator.add_fault("hang", {"path": "/metrics/get-history"}, seconds=60.0, times=-1)
    short = azure_settings.model_copy(update={"mirror_timeout": timedelta(seconds=2)})
    async with serving(short) as hasty:
        run = await get_run(hasty, JOB)
        history = await hasty.get(f"{API}/metrics/get-history", params={"run_id": JOB, "metric_key": "warmup"})
    assert [point["value"] for point in history.json()["metrics"]] == [2.0]
    assert [metric["value"] for metric in run["data"]["metrics"]] == [2.0]


async def test_a_request_about_an_adopted_run_asks_the_workspace_nothing(
    client: httpx.AsyncClient, job: str, emulator: EmulatorProcess
) -> None:
    await get_run(client, JOB)
    asked = len(emulator.requests())
    await get_run(client, JOB)
    await post(client, "/runs/set-tag", run_id=JOB, key="k", value="v")
    assert len(emulator.requests()) == asked

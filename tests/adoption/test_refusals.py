"""What a client hears when its run cannot be adopted: precisely why, and whether to come again."""

import asyncio
import time
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.adoption.flights import Flights
from runmirror.errors import Busy, DoesNotExist
from runmirror.mirror import destinations
from runmirror.mirror.link import Link, write_link
from runmirror.mirror.worker import Worker
from runmirror.run_ids import is_foreign, shown_id, stored_id
from runmirror.settings import Settings
from tests.adoption.conftest import JOB, serving
from tests.adoption.test_adoption import API, get_run, number_of_runs, post
from tests.azureml_emulator.process import EmulatorProcess
from tests.azureml_emulator.rest import Rest


async def refusal(client: httpx.AsyncClient, run_id: str = JOB, *, status: int = 404) -> str:
    answer = await client.get(f"{API}/runs/get", params={"run_id": run_id})
    assert answer.status_code == status, answer.text
    code = {404: "RESOURCE_DOES_NOT_EXIST", 429: "REQUEST_LIMIT_EXCEEDED"}[status]
    assert answer.json()["error_code"] == code
    return str(answer.json()["message"])


async def test_without_a_workspace_the_error_says_where_the_id_comes_from(settings: Settings) -> None:
    async with serving(settings) as client:
        assert await refusal(client) == (
            "Run with id=happy_lion_x1y2 not found: it is no id of this server's, and no Azure ML workspace is linked. "
            "If this program runs inside an Azure ML job, Azure ML itself has set MLFLOW_RUN_ID to the id of a run of "
            "its workspace: have that workspace linked to this server (runmirror link), or unset MLFLOW_RUN_ID to "
            "start a new run on this server."
        )
        guid = "11111111-2222-3333-4444-555555555555"
        answer = await client.get(f"{API}/experiments/get", params={"experiment_id": guid})
        assert answer.status_code == 404
        assert "MLFLOW_EXPERIMENT_ID" in answer.json()["message"]
        assert f"No Experiment with id={guid} exists" in answer.json()["message"]


async def test_a_run_that_the_workspace_does_not_know_is_asked_for_once(
    client: httpx.AsyncClient, emulator: EmulatorProcess, engine: AsyncEngine
) -> None:
    message = await refusal(client)
    name = emulator.workspace_id.rpartition("/")[2]
    assert message.startswith(
        f"Run with id={JOB} not found, neither here nor in the linked Azure ML workspace '{name}'."
    )
    assert "unset MLFLOW_RUN_ID" in message
    asked = len(emulator.requests())
    assert await refusal(client) == message
    assert len(emulator.requests()) == asked
    answer = await client.post(f"{API}/runs/log-batch", json={"run_id": JOB, "params": [{"key": "a", "value": "1"}]})
    assert (answer.status_code, answer.json()["message"]) == (404, message)
    assert await number_of_runs(engine) == 0


async def test_ids_of_ours_are_never_asked_for(client: httpx.AsyncClient, emulator: EmulatorProcess) -> None:
    message = await refusal(client, "0123456789abcdef0123456789abcdef")
    assert message == "Run with id=0123456789abcdef0123456789abcdef not found"
    for impossible in ("../jobs", "a" * 257, "a b", "-x", "ä", "https://evil.example/x"):
        assert await refusal(client, impossible) == f"Run with id={impossible} not found"
    assert emulator.requests() == []


async def test_while_the_workspace_cannot_be_asked_clients_are_told_to_come_again(
    client: httpx.AsyncClient, job: str, emulator: EmulatorProcess
) -> None:
    emulator.add_fault("status", {"path": "/runs/get"}, status=500, times=-1)
    answer = await client.get(f"{API}/runs/get", params={"run_id": JOB})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
    assert answer.json()["message"].startswith("The linked Azure ML workspace cannot be asked about this right now")
    emulator.clear_faults()
    deadline = time.monotonic() + 20
    while answer.status_code == 429 and time.monotonic() < deadline:
        answer = await client.get(f"{API}/runs/get", params={"run_id": JOB})
    assert answer.status_code == 200, answer.text


async def test_a_workspace_that_thinks_long_keeps_no_client_waiting_and_no_connection(
    azure_settings: Settings, client: httpx.AsyncClient, job: str, emulator: EmulatorProcess, engine: AsyncEngine
) -> None:
    hasty = azure_settings.model_copy(update={"azureml_adopt_timeout": timedelta(seconds=0.2), "db_pool_size": 1})
    emulator.add_fault("hang", {"path": "/runs/get"}, seconds=2.0, times=1)
    async with serving(hasty) as slow:
        first = asyncio.create_task(slow.get(f"{API}/runs/get", params={"run_id": JOB}))
        # The only connection of the pool is free while the workspace thinks.
        other = await slow.post(f"{API}/experiments/create", json={"name": "other"})
        assert other.status_code == 200, other.text
        answer = await first
        assert answer.status_code == 429, answer.text
        deadline = time.monotonic() + 20
        while answer.status_code == 429 and time.monotonic() < deadline:
            answer = await slow.get(f"{API}/runs/get", params={"run_id": JOB})
        assert answer.status_code == 200, answer.text
    # The look-up that the first request began was the one that the others found finished.
    asked = [request for request in emulator.requests() if request["path"].endswith("/runs/get")]
    assert len(asked) == 1


async def test_the_copy_of_a_run_of_ours_is_not_adopted_as_another_run(
    client: httpx.AsyncClient, azure_worker: Worker, emulator: EmulatorProcess, engine: AsyncEngine
) -> None:
    experiment = await post(client, "/experiments/create", name="mine")
    made = await post(client, "/runs/create", experiment_id=experiment["experiment_id"], start_time=1)
    run_id = made["run"]["info"]["run_id"]
    await azure_worker.drain()
    [copy] = emulator.state()["runs"]
    message = await refusal(client, copy["run_id"])
    assert f"the copy of run {run_id}" in message
    assert f"MLFLOW_RUN_ID={run_id}" in message
    assert await number_of_runs(engine) == 1


async def test_deleted_runs_and_experiments_are_not_adopted(
    client: httpx.AsyncClient, job: str, rest: Rest, engine: AsyncEngine
) -> None:
    experiment = await post(client, "/experiments/create", name="jobs")
    await post(client, "/experiments/delete", experiment_id=experiment["experiment_id"])
    assert "its experiment 'jobs' is deleted on this server" in await refusal(client)
    rest.history("PATCH", "/experiments/jobs/runs/gone", json={"runId": "gone"}).raise_for_status()
    rest.post("/runs/delete", {"run_id": "gone"}).raise_for_status()
    assert "is deleted in the linked Azure ML workspace" in await refusal(client, "gone")
    assert await number_of_runs(engine) == 0


async def test_adoption_can_be_switched_off(
    azure_settings: Settings, client: httpx.AsyncClient, job: str, emulator: EmulatorProcess
) -> None:
    asked = len(emulator.requests())
    async with serving(azure_settings.model_copy(update={"azureml_adopt": False})) as strict:
        assert "RUNMIRROR_AZUREML_ADOPT is off" in await refusal(strict)
    assert len(emulator.requests()) == asked


async def test_after_another_workspace_is_linked_the_run_is_copied_there_and_still_goes_by_its_name(
    client: httpx.AsyncClient, job: str, engine: AsyncEngine
) -> None:
    await get_run(client, JOB)
    other = "/subscriptions/00000000-0000-4000-8000-000000000009/resourceGroups/o/providers"
    async with engine.begin() as connection:
        await write_link(connection, Link(f"{other}/Microsoft.MachineLearningServices/workspaces/other"))
        await destinations.route(connection, settle=timedelta(0))
    assert (await get_run(client, JOB))["info"]["run_id"] == JOB
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT remote_run_id, watermark, state FROM mirrors"))).one()
    assert tuple(row) == (None, 0, "due")


async def test_one_look_up_serves_all_who_ask_and_a_no_is_remembered() -> None:
    flights = Flights[int](wait_s=5.0)
    release, calls = asyncio.Event(), 0

    async def look_up() -> int:
        nonlocal calls
        calls += 1
        await release.wait()
        return 7

    async def absent() -> int:
        nonlocal calls
        calls += 1
        raise DoesNotExist("no")

    waiting = [asyncio.create_task(flights.find("a", look_up)) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # who asked first goes away
    release.set()
    assert await asyncio.gather(*waiting[1:]) == [7] * 19
    assert calls == 1
    for _ in range(3):
        with pytest.raises(DoesNotExist, match="no"):
            await flights.find("b", absent)
    assert calls == 2


async def test_only_so_many_look_ups_are_under_way_at_once() -> None:
    flights = Flights[int](wait_s=0.0)

    async def never() -> int:
        await asyncio.Event().wait()
        return 0

    for number in range(16):
        with pytest.raises(Busy, match="not answered yet"):
            await flights.find(str(number), never)
    with pytest.raises(Busy, match="too many runs at once"):
        await flights.find("one more", never)
    await flights.close()


def test_an_id_of_azure_is_stored_under_one_uuid_that_is_none_of_ours() -> None:
    stored = stored_id(JOB)
    assert stored is not None
    assert (stored, stored.version) == (stored_id(JOB), 5)
    assert stored != stored_id(JOB.upper())
    assert (is_foreign(JOB), is_foreign(stored.hex), is_foreign("a/b")) == (True, False, False)
    assert (shown_id(stored, JOB), shown_id(stored, None)) == (JOB, stored.hex)
    assert stored_id(stored.hex) == stored

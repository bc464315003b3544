"""What a worker makes of a deployment: in order, once, and never without an end."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.deployments import queries
from runmirror.deployments.entities import Auth, Kind, Spec, State
from runmirror.deployments.queries import Outcome
from runmirror.mirror.link import Link, Wish, write_link
from runmirror.mirror.queue import LeaseLost
from tests.azureml_emulator.process import EmulatorProcess, Json
from tests.azureml_emulator.rest import Rest
from tests.deployments.conftest import Bench, is_done, version
from tests.mirror.factories import SourceRun
from tests.mirror.test_crash import struck, until
from tests.mirror.worker_process import working


def asked(emulator: EmulatorProcess, method: str, part: str) -> list[Json]:
    return [r for r in emulator.requests() if r["method"] == method and part in r["path"]]


async def test_an_endpoint_is_made_once_the_registry_has_the_version_and_gets_all_calls(
    bench: Bench, emulator: EmulatorProcess
) -> None:
    emulator.change_settings(deploy_seconds=0.2)
    deployment_id = await bench.deploy(spec=Spec(instance_type="Standard_F4s_v2", instance_count=2, auth=Auth.TOKEN))
    waiting = await bench.until(deployment_id, lambda held: "waits for" in held.message)
    assert waiting.state is State.WAITING
    assert asked(emulator, "PUT", "onlineEndpoints") == [], "nothing is asked for before the version is there"
    await bench.mirror()
    done = await bench.until(deployment_id)
    assert (done.state, done.reason, done.remote_name, done.remote_version) == (State.SUCCEEDED, None, "prices", "1")
    assert done.scoring_uri == "https://prices-live.eastus.inference.ml.azure.com/score"
    assert [step["state"] for step in done.history][:3] == ["waiting", "waiting", "creating"]
    assert done.history[-1]["state"] == "succeeded"
    (endpoint,) = emulator.state()["endpoints"]
    assert (endpoint["auth_mode"], endpoint["traffic"]) == ("AMLToken", {"main": 100})
    (deployment,) = endpoint["deployments"]
    assert (deployment["instance_type"], deployment["capacity"]) == ("Standard_F4s_v2", 2)
    assert deployment["tags"]["runmirror.deployment"] == str(deployment_id)
    assert len(asked(emulator, "PUT", "/deployments/main")) == 1

    await bench.delete(deployment_id)
    gone = await bench.until(deployment_id)
    assert (gone.state, emulator.state()["endpoints"]) == (State.DELETED, [])
    assert emulator.requests(unknown=True) == []


async def test_a_newer_version_takes_the_place_and_the_address_stays(
    bench: Bench, emulator: EmulatorProcess, engine: AsyncEngine, run: SourceRun
) -> None:
    await version(engine, run)
    await bench.mirror()
    first = await bench.until(await bench.deploy())
    second = await bench.until(await bench.deploy(model="models:/prices/2", replace=True))
    assert second.scoring_uri == first.scoring_uri
    assert (await bench.get(first.deployment_id)).state is State.REPLACED
    (endpoint,) = emulator.state()["endpoints"]
    assert endpoint["deployments"][0]["model"].endswith("/models/prices/versions/2")
    await bench.delete(second.deployment_id)
    assert (await bench.until(second.deployment_id)).state is State.DELETED


async def test_what_is_deleted_while_azure_makes_it_goes_when_azure_lets_it(
    bench: Bench, emulator: EmulatorProcess
) -> None:
    emulator.change_settings(deploy_seconds=0.4)
    await bench.mirror()
    deployment_id = await bench.deploy()
    await bench.until(deployment_id, lambda held: held.state is State.DEPLOYING)
    await bench.delete(deployment_id)
    busy = await bench.until(deployment_id, lambda held: held.last_error is not None)
    assert (busy.state, "is Creating" in str(busy.last_error)) == (State.DELETING, True)
    assert (await bench.until(deployment_id)).state is State.DELETED
    assert emulator.state()["endpoints"] == []


async def test_why_azure_could_not_deploy_is_told_in_its_words(bench: Bench, emulator: EmulatorProcess) -> None:
    emulator.change_settings(deployments_fail=True)
    await bench.mirror()
    failed = await bench.until(await bench.deploy())
    assert failed.state is State.FAILED
    assert failed.reason == "The container could not be started; the scoring script exited with code 3"

    emulator.change_settings(deployments_fail=False)
    again = await bench.until(await bench.deploy())
    assert again.state is State.SUCCEEDED, "one that failed leaves its name to the next"


async def test_what_somebody_else_has_there_is_neither_replaced_nor_deleted(
    bench: Bench, emulator: EmulatorProcess
) -> None:
    url = f"https://management.azure.com{emulator.workspace_id}/onlineEndpoints/prices-live?api-version=2023-10-01"
    body = {"location": "eastus", "properties": {"authMode": "Key"}}
    with emulator.client() as client:
        headers = {"Authorization": f"Bearer {emulator.token()}"}
        client.put(url, json=body, headers=headers).raise_for_status()
        await bench.mirror()
        deployment_id = await bench.deploy()
        failed = await bench.until(deployment_id)
        assert "an endpoint" not in str(failed.reason)
        assert "that runmirror did not make: choose another name" in str(failed.reason)
        await bench.delete(deployment_id)
        assert (await bench.until(deployment_id)).state is State.DELETED
        assert client.get(url, headers=headers).status_code == 200


async def test_an_outage_is_waited_out_and_told_and_what_takes_too_long_has_failed(
    bench: Bench, emulator: EmulatorProcess
) -> None:
    await bench.mirror()
    fault = {"path": "onlineEndpoints/prices-live"}
    emulator.add_fault("status", fault, status=503, times=3)
    emulator.add_fault("status", {"path": "/deployments/main"}, status=403, times=2)
    first = await bench.until(await bench.deploy())
    assert first.state is State.SUCCEEDED
    assert [f["hits"] for f in emulator.faults()] == [3, 2]

    emulator.add_fault("status", {"path": "onlineEndpoints/other"}, status=403, times=-1)
    late = await bench.deploy(name="other")
    held_up = await bench.until(late, lambda held: held.last_error is not None)
    assert held_up.state is State.CREATING
    assert "403" in str(held_up.last_error)
    await bench.write("UPDATE deployments SET deadline_at = now() WHERE deployment_id = :id", id=late)
    ended = await bench.until(late)
    assert ended.state is State.FAILED
    assert "not deployed after 1:00:00" in str(ended.reason)
    assert "403" in str(ended.reason)


async def test_workers_that_die_in_the_middle_of_each_write_leave_one_endpoint_to_the_next(
    bench: Bench, emulator: EmulatorProcess
) -> None:
    """Nothing is written down and nothing given back: the next one looks what is there, and asks for nothing twice."""
    await bench.mirror()
    deployment_id = await bench.deploy()
    died = 0
    while (await bench.get(deployment_id)).state.is_open:
        emulator.add_fault("hang_after", {"method": "PUT", "path": "/prices-live"}, seconds=30)
        dying = bench.deployer()
        working = asyncio.create_task(dying.round())
        while not working.done() and not any(fault["hits"] for fault in emulator.faults()):
            await asyncio.sleep(0.02)
        died += any(fault["hits"] for fault in emulator.faults())
        emulator.clear_faults()
        await bench.write("UPDATE deployments SET lease_token = NULL, lease_expires_at = NULL, due_at = now()")
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await dying.close()
    assert died == 3
    puts = [request["path"].rpartition("/onlineEndpoints")[2] for request in asked(emulator, "PUT", "onlineEndpoints")]
    assert puts == ["/prices-live", "/prices-live/deployments/main", "/prices-live"]
    assert (await bench.get(deployment_id)).state is State.SUCCEEDED


async def test_a_worker_that_is_killed_while_azureml_core_asks_is_followed_by_one_that_finds_the_service(
    bench: Bench, emulator: EmulatorProcess, azureml_python: Path, tmp_path: Path
) -> None:
    """Processes as operators start them."""
    await bench.mirror()
    deployment_id = await bench.deploy(kind=Kind.ACI, name="prices-aci")
    emulator.add_fault("hang_after", {"method": "POST", "path": "/services$"}, seconds=60)
    core = {"RUNMIRROR_AZUREML_PYTHON": str(azureml_python)}
    with working(bench.settings, emulator, tmp_path / "log", **core) as worker:
        await until(lambda: struck(emulator))
        worker.kill()
        worker.wait()
    emulator.clear_faults()
    assert (await bench.get(deployment_id)).state is State.CREATING

    async def is_over() -> bool:
        return is_done(await bench.get(deployment_id))

    with working(bench.settings, emulator, tmp_path / "log", **core):
        await until(is_over)
    assert (await bench.get(deployment_id)).state is State.SUCCEEDED
    assert [request["path"][-9:] for request in asked(emulator, "POST", "/services")].count("/services") == 1


async def test_a_late_worker_changes_nothing(bench: Bench, engine: AsyncEngine) -> None:
    deployment_id = await bench.deploy()
    nothing = timedelta(0)
    async with engine.begin() as connection:
        (late,) = await queries.claim(connection, most=5, ttl=nothing, settle=nothing)
    async with engine.begin() as connection:
        (held,) = await queries.claim(connection, most=5, ttl=timedelta(minutes=1), settle=nothing)
    for change in (
        lambda c: queries.renew(c, late, timedelta(1)),
        lambda c: queries.release(c, late, nothing),
        lambda c: queries.settle(c, late, Outcome(State.SUCCEEDED, "late")),
    ):
        with pytest.raises(LeaseLost):
            async with engine.begin() as connection:
                await change(connection)
    await bench.delete(deployment_id)
    with pytest.raises(LeaseLost):
        async with engine.begin() as connection:
            await queries.settle(connection, held, Outcome(State.SUCCEEDED, "late"))
    assert (await bench.get(deployment_id)).state is State.DELETING


async def test_a_version_that_cannot_come_to_that_workspace_fails_at_once_with_the_reason(
    bench: Bench, emulator: EmulatorProcess, engine: AsyncEngine
) -> None:
    await bench.mirror()
    async with engine.begin() as connection:
        await write_link(connection, Link(emulator.other_workspace_ids[0]), Wish(name="second"))
    elsewhere = await bench.until(await bench.deploy(workspace="second"))
    assert f"is mirrored to another workspace, {emulator.workspace_id}" in str(elsewhere.reason)

    await bench.write("UPDATE mirrored_versions SET remote_version = NULL, problem = 'no mirrored run has its files'")
    lacking = await bench.until(await bench.deploy(name="lacking"))
    assert lacking.reason == "the workspace's registry has no version 1: no mirrored run has its files"
    await bench.write("UPDATE model_versions SET current_stage = 'Deleted_Internal'")
    deleted = await bench.until(await deployed_before(bench))
    assert deleted.reason == "version 1 of 'prices' is deleted"


async def deployed_before(bench: Bench) -> UUID:
    """As `deploy`, of a version that is deleted right after it was asked for."""
    await bench.write("UPDATE model_versions SET current_stage = 'None'")
    deployment_id = await bench.deploy(name="early")
    await bench.write("UPDATE model_versions SET current_stage = 'Deleted_Internal'")
    return deployment_id


async def test_without_azureml_core_a_web_service_fails_with_what_to_do(bench: Bench) -> None:
    await bench.mirror()
    failed = await bench.until(await bench.deploy(kind=Kind.ACI))
    assert failed.state is State.FAILED
    assert "set RUNMIRROR_AZUREML_PYTHON to its python" in str(failed.reason)


async def test_a_web_service_that_was_asked_for_is_found_again_and_failures_are_told(
    bench: Bench, emulator: EmulatorProcess, azureml_python: Path
) -> None:
    """azureml-core asks and cannot read what came of it; then the container does not start, and its log says why."""
    emulator.change_settings(deployments_fail=True)
    emulator.add_fault("status", {"method": "GET", "path": "/services/prices-aci$"}, status=400, skip=1)
    await bench.mirror()
    deployment_id = await bench.deploy(
        kind=Kind.ACI, name="prices-aci", spec=Spec(cpu=0.5, memory_gb=1, auth=Auth.NONE)
    )
    await bench.until(deployment_id, lambda held: held.state is State.DEPLOYING, azureml_python=azureml_python)
    assert [fault["hits"] for fault in emulator.faults()] == [1]
    asked_once = asked(emulator, "POST", "/services")
    await bench.write("UPDATE deployments SET state = 'creating'")  # the worker died before it could say so
    failed = await bench.until(deployment_id)
    assert asked(emulator, "POST", "/services") == asked_once
    assert failed.state is State.FAILED
    assert failed.reason is not None
    assert failed.reason.startswith("The container could not be started; the scoring script exited with code 3")
    assert "its log ends: Traceback (most recent call last): exit code 3" in failed.reason
    with emulator.client() as client:
        told = (
            Rest(emulator, client, emulator.token()).call("GET", "modelmanagement/v1.0", "/services/prices-aci").json()
        )
    assert (told["authEnabled"], told["containerResourceRequirements"]["cpu"]) == (False, 0.5)
    assert told["kvTags"]["runmirror.model"] == "prices/1"

    missing = await bench.deploy(kind=Kind.AKS, name="prices-aks", spec=Spec(aks_cluster="nowhere"))
    refused = await bench.until(missing, azureml_python=azureml_python)
    assert "nowhere not found" in str(refused.reason)

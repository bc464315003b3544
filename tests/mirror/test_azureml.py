"""A worker and the emulated workspace: what stands there is what was logged, whatever goes wrong on the way."""

import asyncio
import base64
import hashlib
import math
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.entities import LifecycleStage, Metric, RunStatus
from runmirror.mirror import azureml, link, status
from runmirror.mirror.azureml_upload import Sizes
from runmirror.mirror.overflow import PATH
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess, Json
from tests.mirror.azure import files_of, points_of, remote_run
from tests.mirror.factories import START_MS, Source, SourceRun, points


def md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def expected(key: str, count: int) -> list[tuple[int, int, float]]:
    return [(point.step, point.timestamp_ms, point.value) for point in points(key, count)]


async def a_run(source: Source, count: int = 450) -> SourceRun:
    return await a_run_of(source, "0", count)


async def a_run_of(source: Source, experiment_id: str, count: int = 450) -> SourceRun:
    run = await source.run("wire", experiment_id=experiment_id, team="x")
    await run.log(metrics=points("loss", count), params={"lr": "0.1"})
    await run.upload("notes/a.txt", b"hello")
    await run.finish()
    return run


async def check_complete(emulator: EmulatorProcess, run: SourceRun, count: int = 450) -> None:
    remote = remote_run(emulator, run.run_id.hex)
    assert points_of(remote, "loss") == expected("loss", count)
    assert remote["params"] == {"lr": "0.1"}
    assert files_of(remote) == {"notes/a.txt": (5, md5(b"hello"))}
    assert (remote["run_name"], remote["status"], remote["user_id"]) == ("wire", "FINISHED", "ada")
    assert (remote["start_time"], remote["end_time"]) == (START_MS, START_MS + 60_000)
    assert (remote["tags"]["team"], remote["tags"]["runmirror.source"]) == ("x", "runmirror")
    assert (await run.mirror()).state == "current"


async def test_a_run_stands_in_the_workspace(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, engine: AsyncEngine
) -> None:
    run = await a_run(source)
    await run.log(metrics=[Metric("odd", math.nan, START_MS, 1), Metric("odd", math.inf, START_MS, 2)])
    await azure_worker.drain()
    await check_complete(emulator, run)
    odd = points_of(remote_run(emulator, run.run_id.hex), "odd")
    assert math.isnan(odd[0][2])
    assert emulator.requests(unknown=True) == []
    assert emulator.requests(refused=True) == []
    async with engine.connect() as connection:
        told = await status.mirror_status(connection)
    assert (told.state, told.workspace_id, told.runs_behind) == (status.OK, emulator.workspace_id, 0)
    portal = (await run.mirror()).portal_url
    assert portal.startswith(f"https://ml.azure.com/runs/{remote_run(emulator, run.run_id.hex)['run_id']}?wsid=")
    assert portal.endswith(f"&tid={emulator.tenant_id}")


async def test_a_large_file_goes_in_blocks(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azureml, "Sizes", lambda: Sizes(block=1000))
    run = await source.run()
    large, just, empty = bytes(range(256)) * 20, b"x" * 1000, b""
    await run.upload("large.bin", large)
    await run.upload("ünïcode & söns/100%.bin", just)
    await run.upload("empty", empty)
    await azure_worker.drain()
    assert files_of(remote_run(emulator, run.run_id.hex)) == {
        "large.bin": (5120, md5(large)), "ünïcode & söns/100%.bin": (1000, md5(just)), "empty": (0, md5(b"")),
    }  # fmt: skip
    blocks = [r for r in emulator.requests() if r["method"] == "PUT" and r["path"].endswith("large.bin")]
    assert len(blocks) == 7, "six blocks and their list"


def own_files(remote: Json) -> dict[str, tuple[int | None, str | None]]:
    """Without the mirror's own, which tells of the others."""
    return {path: file for path, file in files_of(remote).items() if not path.endswith(PATH)}


@pytest.mark.parametrize(("write_sas", "known"), [(True, True), (False, True), (False, False)])
async def test_an_overwritten_file_is_overwritten_or_becomes_a_revision(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, engine: AsyncEngine, write_sas: bool, known: bool
) -> None:
    """Seen by its MD5, or by reading it when that is not `known`, as after a multipart upload."""
    emulator.change_settings(write_sas=write_sas)
    run = await source.run()
    await run.upload("a.txt", b"first")
    await run.finish()
    await azure_worker.drain()
    await run.upload("a.txt", b"other")
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE artifacts SET md5 = NULL WHERE NOT :known"), {"known": known})
    seq = (await run.mirror()).seq
    await azure_worker.drain()
    found = own_files(remote_run(emulator, run.run_id.hex))
    first, other = (5, md5(b"first")), (5, md5(b"other"))
    assert found == ({"a.txt": other} if write_sas else {"a.txt": first, f"runmirror/revisions/{seq}/a.txt": other})
    await run.upload("a.txt", b"other")  # the same again: nothing new, whichever path has it
    await run.delete_file("a.txt")
    await azure_worker.drain()
    assert own_files(remote_run(emulator, run.run_id.hex)) == found


@pytest.mark.parametrize("write_sas", [True, False])
async def test_a_file_registered_but_not_uploaded_is_uploaded(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, write_sas: bool
) -> None:
    emulator.change_settings(write_sas=write_sas)
    emulator.add_fault("reset_before", {"host": "*.blob.*", "method": "PUT"})
    run = await a_run(source)
    await azure_worker.drain()
    await check_complete(emulator, run)


async def test_tags_names_and_stages_follow(source: Source, emulator: EmulatorProcess, azure_worker: Worker) -> None:
    run = await a_run(source)
    await azure_worker.drain()
    await run.update(RunStatus.RUNNING, name="renamed")
    await run.delete_tag("team")
    await run.log(tags={"new": "1"}, metrics=points("loss", 1, first=450))
    await azure_worker.drain()
    remote = remote_run(emulator, run.run_id.hex)
    assert (remote["run_name"], remote["status"]) == ("renamed", "RUNNING")
    assert ("team" in remote["tags"], remote["tags"]["new"]) == (False, "1")
    await run.move(LifecycleStage.DELETED)
    await azure_worker.drain()
    assert remote_run(emulator, run.run_id.hex)["lifecycle_stage"] == "deleted"
    await run.move(LifecycleStage.ACTIVE)
    await run.log(metrics=points("loss", 1, first=451))
    await azure_worker.drain()
    remote = remote_run(emulator, run.run_id.hex)
    assert (remote["lifecycle_stage"], points_of(remote, "loss")) == ("active", expected("loss", 452))


@pytest.mark.parametrize("kind", ["reset_after", "reset_before", "truncate"])
@pytest.mark.parametrize(
    "path",
    [
        "runs/create",
        "runs/log-batch",
        "runs/update",
        "experiments/create",
        "batch/metadata",
        "runs/search",
        "get-by-name",
    ],
)
async def test_a_lost_answer_changes_nothing(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, engine: AsyncEngine, path: str, kind: str
) -> None:
    experiment_id = await source.experiment("elsewhere")
    run = await source.run("wire", experiment_id=experiment_id, team="x")
    await run.log(metrics=points("loss", 450), params={"lr": "0.1"})
    await run.upload("notes/a.txt", b"hello")
    await run.finish()
    async with engine.begin() as connection:
        # A run that was held before is searched for.
        held_before = text("UPDATE mirrors SET lease_token = NULL WHERE :is_search")
        await connection.execute(held_before, {"is_search": path == "runs/search"})
    emulator.add_fault(kind, {"path": path}, skip=1 if path == "runs/log-batch" else 0)
    await azure_worker.drain()
    assert [fault["hits"] for fault in emulator.faults()] == [1]
    await check_complete(emulator, run)


@pytest.mark.parametrize(
    ("status_code", "headers", "times"),
    [(429, {"Retry-After": "0.2"}, 3), (429, {}, 2), (503, {"Retry-After": "0"}, 2), (500, {}, 3), (403, {}, 2),
     (401, {}, 1), (502, {}, 1), (408, {}, 1)],
)  # fmt: skip
async def test_a_workspace_that_says_no_for_a_while_is_waited_for(
    source: Source,
    emulator: EmulatorProcess,
    azure_worker: Worker,
    status_code: int,
    headers: dict[str, str],
    times: int,
) -> None:
    runs = [await a_run(source) for _ in range(3)]
    emulator.add_fault("status", {"path": "log-batch"}, status=status_code, headers=headers, times=times, skip=2)
    await azure_worker.drain()
    assert [fault["hits"] for fault in emulator.faults()] == [times]
    for run in runs:
        await check_complete(emulator, run)
        assert (await run.mirror()).attempt == 0


async def test_a_refused_token_is_replaced_at_once(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    run = await a_run(source)
    emulator.add_fault("status", {"path": "log-batch"}, status=401)
    await azure_worker.drain()
    await check_complete(emulator, run)
    assert caplog.records == [], "no run was given back, no outage was told"
    assert sum(r["path"].endswith("/oauth2/v2.0/token") for r in emulator.requests()) == 2


@pytest.mark.parametrize("method", ["PUT", "HEAD"])
async def test_storage_that_refuses_us_is_an_outage_not_the_runs_fault(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, method: str
) -> None:
    run = await a_run(source)
    await azure_worker.drain()
    await run.upload("notes/a.txt", b"HELLO")
    emulator.add_fault("status", {"host": "*.blob.*", "method": method}, status=403, times=3)
    await azure_worker.drain()
    assert [fault["hits"] for fault in emulator.faults()] == [3]
    assert files_of(remote_run(emulator, run.run_id.hex)) == {"notes/a.txt": (5, md5(b"HELLO"))}
    assert (await run.mirror()).attempt == 0


async def test_retry_after_is_honoured(source: Source, emulator: EmulatorProcess, azure_worker: Worker) -> None:
    run = await a_run(source)
    emulator.add_fault("status", {"path": "log-batch"}, status=429, headers={"Retry-After": "1"})
    started = asyncio.get_running_loop().time()
    await azure_worker.drain()
    assert asyncio.get_running_loop().time() - started >= 1
    await check_complete(emulator, run)


async def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    run = await a_run(source)
    emulator.add_fault("hang_after", {"path": "log-batch"}, seconds=60)
    emulator.add_fault("hang", {"path": "batch/metadata"}, seconds=60)
    patience = {"mirror_timeout": timedelta(seconds=0.5)}
    await Worker(azure_settings.model_copy(update=patience), engine, store).drain()
    await check_complete(emulator, run)


async def test_a_poisoned_run_is_set_aside_with_azures_reason(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    poison = await source.run("poison")
    told = {"Error": {"Code": "UserError", "Message": "not with that name"}, "Correlation": {"request": "abc"}}
    emulator.add_fault("status", {"path": "runs/create"}, status=400, body=told, times=2)  # with tags, and without
    await azure_worker.drain()
    healthy = await a_run(source)
    await azure_worker.drain()
    mirror = await poison.mirror()
    assert mirror.state == "quarantined"
    assert "not with that name" in mirror.last_error
    assert "request id abc" in mirror.last_error
    await check_complete(emulator, healthy)


async def test_a_run_that_vanished_is_set_aside(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    run = await a_run(source)
    await azure_worker.drain()
    emulator.reset()
    await run.log(tags={"more": "1"})
    await azure_worker.drain()
    mirror = await run.mirror()
    assert (mirror.state, "not in the workspace any more" in mirror.last_error) == ("quarantined", True)


async def test_tokens_are_renewed_for_as_long_as_it_takes(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    emulator.change_settings(token_lifetime=3)
    worker = Worker(azure_settings, engine, store)
    running = asyncio.create_task(worker.run())
    run = await source.run()
    loop = asyncio.get_running_loop()
    started, step = loop.time(), 0
    while loop.time() - started < 10:
        await run.log(metrics=points("loss", 20, first=step))
        step += 20
        await asyncio.sleep(0.1)  # the passing of time is what is tested
    async with asyncio.timeout(20):
        while (await run.mirror()).state != "current":
            await asyncio.sleep(0.05)
    await worker.stop()
    await running
    assert points_of(remote_run(emulator, run.run_id.hex), "loss") == expected("loss", step)
    tokens = [r for r in emulator.requests() if r["path"].endswith("/oauth2/v2.0/token")]
    assert 3 <= len(tokens) <= 12
    assert emulator.requests(refused=True) == []


async def test_a_workspace_that_is_away_is_told_and_caught_up_with(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, engine: AsyncEngine
) -> None:
    fault = emulator.add_fault("status", {"host": "*.azureml.ms"}, status=503, times=-1)
    running = asyncio.create_task(azure_worker.run())
    run = await a_run(source)
    async with asyncio.timeout(20):
        while True:
            async with engine.connect() as connection:
                told = await status.mirror_status(connection)
            if told.state == status.OUTAGE:
                break
            await asyncio.sleep(0.05)
    assert "503" in (told.last_error or "")
    assert told.runs_behind == 1
    with emulator.control() as control:
        control.delete(f"/faults/{fault}").raise_for_status()
    async with asyncio.timeout(20):
        while (await run.mirror()).state != "current":
            await asyncio.sleep(0.05)
    await azure_worker.stop()
    await running
    async with engine.connect() as connection:
        assert (await status.mirror_status(connection)).state == status.OK
    await check_complete(emulator, run)


async def test_a_wrong_secret_is_told_without_the_secret(
    source: Source,
    emulator: EmulatorProcess,
    azure_worker: Worker,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong-and-secret")
    await source.run()
    with pytest.raises(TimeoutError):
        await azure_worker.drain(timeout_s=3)
    async with engine.connect() as connection:
        told = await status.mirror_status(connection)
    assert told.state == status.OUTAGE
    assert "AADSTS" in (told.last_error or "")
    assert "wrong-and-secret" not in (told.last_error or "")


async def test_linking_proves_access_and_a_running_worker_follows(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    run = await a_run(source)
    unlinked = azure_settings.model_copy(update={"azureml_workspace": None})
    worker = Worker(unlinked, engine, store)
    running = asyncio.create_task(worker.run())
    report = await link.link(engine, unlinked, emulator.workspace_id)
    assert (report.relinked, report.runs_behind) == (False, 1)
    async with asyncio.timeout(20):
        while (await run.mirror()).state != "current":
            await asyncio.sleep(0.05)
    await worker.stop()
    await running
    await check_complete(emulator, run)


@pytest.mark.parametrize("hidden_is_deleted", [False, True])
async def test_an_archived_run_is_hidden_until_it_is_restored(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store,
    hidden_is_deleted: bool,
) -> None:  # fmt: skip
    """Whether or not an archived run is a deleted one to MLflow's part of the service."""
    emulator.change_settings(hidden_is_deleted=hidden_is_deleted)
    worker = Worker(azure_settings.model_copy(update={"mirror_on_delete": "archive"}), engine, store)
    run = await a_run(source, 5)
    await worker.drain()
    await run.move(LifecycleStage.DELETED)
    await worker.drain()
    assert remote_run(emulator, run.run_id.hex)["hidden"] is True
    await run.move(LifecycleStage.ACTIVE)
    await run.log(metrics=points("late", 5))
    await worker.drain()
    remote = remote_run(emulator, run.run_id.hex)
    assert (remote["hidden"], remote["lifecycle_stage"]) == (False, "active")
    assert points_of(remote, "late") == expected("late", 5)
    await check_complete(emulator, run, 5)
    assert emulator.requests(unknown=True) == []


async def test_two_workspaces_take_their_runs_while_one_of_them_fails(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    unlinked = azure_settings.model_copy(update={"azureml_workspace": None})
    [second] = emulator.other_workspace_ids
    await link.link(engine, unlinked, emulator.workspace_id, link.Wish("first"))
    report = await link.link(engine, unlinked, second, link.Wish("second", ("team/*",)))
    assert (report.relinked, report.is_default) == (False, False)
    here = await a_run(source)
    there = await a_run_of(source, await source.experiment("team/x"))
    fault = emulator.add_fault("status", {"path": "workspaces/workspace/"}, status=503, times=-1)
    worker = Worker(unlinked, engine, store)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        while (await there.mirror()).state != "current":
            await asyncio.sleep(0.05)
    assert emulator.state()["runs"] == []
    with emulator.control() as control:
        control.delete(f"/faults/{fault}").raise_for_status()
    async with asyncio.timeout(60):
        while (await here.mirror()).state != "current":
            await asyncio.sleep(0.05)
    await worker.stop()
    await running
    await check_complete(emulator, here)
    [copy] = emulator.state("second")["runs"]
    assert files_of(copy) == {"notes/a.txt": (5, md5(b"hello"))}
    assert copy["tags"]["runmirror.run_id"] == there.run_id.hex
    assert len(emulator.state()["runs"]) == 1
    assert "/workspaces/second" in (await there.mirror()).portal_url


async def test_a_workspace_that_is_not_there_is_not_linked(
    emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine
) -> None:
    with pytest.raises(Exception, match="cannot be read"):
        await link.link(engine, azure_settings, emulator.workspace_id + "2")
    async with engine.connect() as connection:
        assert await link.read_link(connection) is None


async def test_a_tracking_uri_alone_is_enough(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    run = await a_run(source)
    uri = emulator.ready["tracking_uri"]
    by_uri = azure_settings.model_copy(update={"azureml_workspace": None, "azureml_tracking_uri": uri})
    await Worker(by_uri, engine, store).drain()
    await check_complete(emulator, run)
    assert not [r for r in emulator.requests() if r["host"] == "management.azure.com"]

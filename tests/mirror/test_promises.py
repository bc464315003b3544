"""What the mirror promises (README): each promise has a test of its name here, or in `tests/chaos`.

These state a promise in its shortest form; the corners have tests of their own beside this file.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.entities import Batch, RunStatus
from runmirror.mirror import claims, destinations, queue, status
from runmirror.mirror.keeper import Keeper, clock_s
from runmirror.mirror.queue import Lease, LeaseLost
from runmirror.mirror.target import TargetRejected, TargetUnavailable
from runmirror.mirror.worker import Worker
from runmirror.runs import service
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.chaos.crash_points import KINDS, MARK
from tests.chaos.nursery import Nursery
from tests.mirror.azure import files_of, points_of, remote_run
from tests.mirror.conftest import WORKSPACE_ID, MakeWorker
from tests.mirror.factories import Source, points
from tests.mirror.memory_target import Failure, MemoryTarget
from tests.server import clean_environment, free_port

API = "/api/2.0/mlflow"


async def until(condition: Callable[[], Awaitable[bool]], deadline_s: float = 60) -> None:
    async with asyncio.timeout(deadline_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_write_and_its_place_in_the_queue_are_committed_together_or_not_at_all(
    engine: AsyncEngine, database_url: str, tmp_path: Path
) -> None:
    """kill -9 before and after every commit of a creation and two writes: what is there is due, and nothing else is."""
    astray = text(
        "SELECT count(*) FROM runs r LEFT JOIN mirrors m USING (run_id) "
        "WHERE m.run_id IS NULL OR (m.state = 'current') <> (m.watermark = r.seq)"
    )
    rows = text("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM params)")
    environment = clean_environment({"RUNMIRROR_DATABASE_URL": database_url, "RUNMIRROR_DATA_DIR": str(tmp_path)})
    log, before = tmp_path / "server.log", 0
    async with Nursery() as nursery:
        for kind in KINDS[:2]:
            for number in (1, 2, 3):
                port = free_port()
                child = await nursery.start(port, environment, log, die=(kind, number))
                acknowledged = await _write_until_it_dies(f"http://127.0.0.1:{port}", engine)
                await child.ended.wait()
                assert child.status == signal.SIGKILL, log.read_text()
                async with engine.connect() as connection:
                    assert await connection.scalar(astray) == 0, (kind, number)
                    now = await connection.scalar(rows) or 0
                # What was committed without an answer is there as well.
                assert now - before - acknowledged in ({0} if kind == "before_commit" else {0, 1})
                before = now
    deaths = [line.split()[4] for line in log.read_text().splitlines() if line.startswith(MARK)]
    assert len(deaths) == 6
    assert any(death.startswith("hot_queries") for death in deaths)


async def _write_until_it_dies(url: str, engine: AsyncEngine) -> int:
    """How many writes were acknowledged."""
    # What has been mirrored, and is written once more, must be due again.
    mirrored = text("UPDATE mirrors m SET state = 'current', watermark = seq FROM runs r WHERE r.run_id = m.run_id")
    acknowledged = 0
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:

        async def answers() -> bool:
            try:
                return (await client.get("/livez")).status_code == 200
            except httpx.TransportError:
                return False

        async def write() -> None:
            nonlocal acknowledged
            created = await client.post(f"{API}/runs/create", json={"experiment_id": "0"})
            acknowledged += 1
            run_id = created.json()["run"]["info"]["run_id"]
            for number in range(1000):
                if number < 2:
                    async with engine.begin() as connection:
                        await connection.execute(mirrored)
                param = {"run_id": run_id, "key": f"p{number}", "value": "1"}
                (await client.post(f"{API}/runs/log-parameter", json=param)).raise_for_status()
                acknowledged += 1

        await until(answers)
        with pytest.raises(httpx.TransportError):
            await write()
    return acknowledged


async def test_every_write_takes_effect_once_however_often_it_is_sent(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    """The answer to the creation is lost; afterwards the whole queue is replayed from its beginning."""
    run = await source.run("r", team="x")
    await run.log(metrics=points("m", 300), params={"p": "1"})
    await run.log_inputs(2)
    await run.upload("a.txt", b"hello")
    await run.finish()
    lost = emulator.add_fault("reset_after", {"path": "runs/create"})
    await Worker(azure_settings, engine, store).drain()
    assert [fault["hits"] for fault in emulator.faults() if fault["id"] == lost] == [1]
    before = emulator.state()
    assert len(before["runs"]) == 1
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE mirrors SET state = 'due', due_at = now(), watermark = 0, info_watermark = 0, "
                 "sent_upto = seq, remote_run_id = NULL, remote_experiment_id = NULL "
                 "FROM runs WHERE runs.run_id = mirrors.run_id")
        )  # fmt: skip
        await connection.execute(text("DELETE FROM mirrored_experiments"))
    await Worker(azure_settings, engine, store).drain()
    assert (await run.mirror()).state == "current"
    assert emulator.state() == before


async def test_a_run_arrives_in_the_order_of_its_writes_and_its_end_comes_last(
    source: Source, target: MemoryTarget, make_worker: MakeWorker, engine: AsyncEngine
) -> None:
    """Of two open transactions the one that began first commits last: nothing is skipped, the order is theirs."""
    run = await source.run()
    other = await source.run("beside it")
    await make_worker(target).drain()
    async with engine.connect() as slow:
        holding = await slow.begin()
        await service.log_batch(slow, run.run_id.hex, Batch(metrics=tuple(points("m", 3))))
        second = asyncio.create_task(run.log(metrics=points("m", 3, first=3)))
        await other.log(metrics=points("m", 1))
        await make_worker(target).drain()
        assert target.of(other.run_id.hex).metrics == points("m", 1)
        assert target.of(run.run_id.hex).metrics == [], "nothing of it is committed"
        await holding.commit()
    await second
    await run.finish()
    for step in range(25):
        await run.log(metrics=points(f"m{step}", 100))
    target.calls.clear()
    await make_worker(target, mirror_page_rows=2000).drain()
    remote = target.of(run.run_id.hex)
    assert remote.metrics[:6] == points("m", 6)
    assert [metric.key for metric in remote.metrics[6:]] == [f"m{step}" for step in range(25) for _ in range(100)]
    assert (target.calls.count("update_run"), target.calls[-1]) == (1, "update_run")
    assert remote.status is RunStatus.FINISHED


async def test_a_restart_goes_on_where_the_workspace_confirmed_the_last_page(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    """The second page fails half way, and a file was registered but not uploaded: neither is begun anew."""
    run = await source.run()
    for first in range(0, 3000, 500):
        await run.log(metrics=points("m", 500, first=first))
    await run.upload("a.bin", b"hello")
    settings = azure_settings.model_copy(update={"mirror_page_rows": 2000, "mirror_poll": timedelta(seconds=0.1)})
    # Ten requests for the first page; of the second the third is refused for as long as it takes.
    emulator.add_fault("status", {"path": "runs/log-batch"}, status=503, skip=12, times=-1)
    worker = Worker(settings, engine, store)
    running = asyncio.create_task(worker.run())

    async def failed() -> bool:
        return (await run.mirror()).last_error is not None

    await until(failed)
    await worker.stop()
    await running
    confirmed = (await run.mirror()).watermark
    assert 0 < confirmed < (await run.mirror()).seq
    before = len(points_of(remote_run(emulator, run.run_id.hex), "m"))
    assert 2000 <= before < 3000
    emulator.clear_faults()
    emulator.add_fault("reset_before", {"host": "*.blob.*", "method": "PUT"})
    asked = len(emulator.requests())
    await Worker(settings, engine, store).drain()
    remote = remote_run(emulator, run.run_id.hex)
    assert [step for step, _, _ in points_of(remote, "m")] == list(range(3000))
    assert files_of(remote)["a.bin"][0] == 5
    again = [r for r in emulator.requests()[asked:] if r["path"].endswith("runs/log-batch")]
    assert len(again) <= -(-(3000 - before) // 200) + 1, "what was confirmed is not sent again"


async def test_a_workspace_that_is_down_is_not_noticed_by_clients_and_its_backlog_is_one_row_a_run(
    source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine
) -> None:
    runs = [await source.run(f"run {n}") for n in range(3)]
    down = Failure("probe", TargetUnavailable("down"), times=-1)
    target.failures.append(down)
    running = asyncio.create_task(worker.run())
    for step in range(60):
        await runs[step % 3].log(metrics=points("m", 1, first=step))

    async def tried_and_failed() -> bool:
        async with engine.connect() as connection:
            return (await status.mirror_status(connection)).state == status.OUTAGE

    await until(tried_and_failed)
    async with engine.connect() as connection:
        told = await status.mirror_status(connection)
        rows = await connection.scalar(text("SELECT count(*) FROM mirrors"))
    assert (rows, told.runs_behind) == (3, 3)
    assert told.lag_s is not None
    assert told.lag_s > 0
    assert target.runs == {}
    down.times = 0

    async def caught_up() -> bool:
        return {(await run.mirror()).state for run in runs} == {"current"}

    await until(caught_up)
    await worker.stop()
    await running
    assert sorted(m.step for run in runs for m in target.of(run.run_id.hex).metrics) == list(range(60))


async def test_a_throttling_workspace_is_asked_as_slowly_as_it_wants_and_every_experiment_has_its_turn(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    """Retry-After in seconds and as a date is waited out, and costs no attempt; one run is due behind 30 others."""
    slow = await source.run("slow")
    for place, wait in (("runs/create", "1"), ("runs/update", "date+2")):
        emulator.add_fault("status", {"path": place}, status=429, headers={"Retry-After": wait})
    await slow.finish()
    await Worker(azure_settings, engine, store).drain()
    asked = [r for r in emulator.requests() if "/mlflow/v2.0/" in r["path"]]
    throttled = [at for at, request in enumerate(asked) if request["status"] == 429]
    assert len(throttled) == 2
    for at in throttled:
        assert asked[at + 1]["at"] - asked[at]["at"] >= 0.95, asked[at]["path"]
    assert ((await slow.mirror()).state, (await slow.mirror()).attempt) == ("current", 0)

    experiment_id = await source.experiment("noisy")
    noisy = [await source.run(f"noisy {n}", experiment_id=experiment_id) for n in range(30)]
    quiet = await source.run("quiet", experiment_id=await source.experiment("quiet"))
    await Worker(azure_settings.model_copy(update={"mirror_concurrency": 2}), engine, store).drain()
    born = [run["tags"]["runmirror.run_id"] for run in emulator.state()["runs"]]
    assert len(born) == 32
    assert born.index(quiet.run_id.hex) < 12, "it has waited for the noisy ones"
    assert {(await run.mirror()).state for run in noisy} == {"current"}


async def test_a_run_that_is_refused_for_good_is_set_aside_with_the_reason_and_the_others_flow(
    source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine
) -> None:
    poison, healthy = await source.run("poison"), await source.run("healthy")
    await poison.log(metrics=points("m", 3))
    refusal = Failure("log_batch", TargetRejected("not this run"), times=-1, run_id=poison.run_id.hex)
    target.failures.append(refusal)
    await worker.drain()
    mirror = await poison.mirror()
    assert (mirror.state, mirror.last_error) == ("quarantined", "not this run")
    assert (await poison.tags())["runmirror.status"] == "quarantined"
    assert (await healthy.mirror()).state == "current"
    await poison.log(metrics=points("m", 2, first=3))
    await worker.drain()
    assert (await poison.mirror()).state == "quarantined", "it is not tried again by itself"
    refusal.times = 0
    async with engine.begin() as connection:  # as a replay does
        await connection.execute(text("UPDATE mirrors SET state = 'due', attempt = 0, due_at = now()"))
    await worker.drain()
    assert ((await poison.mirror()).state, target.of(poison.run_id.hex).metrics) == ("current", points("m", 5))


async def test_a_credential_that_is_refused_pauses_the_mirror_until_it_is_accepted_again(
    source: Source,
    emulator: EmulatorProcess,
    azure_worker: Worker,
    engine: AsyncEngine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    runs = [await source.run(f"run {n}") for n in range(3)]
    for run in runs:
        await run.log(metrics=points("m", 5))
    emulator.add_fault("status", {"path": "/mlflow/v2.0/"}, status=401, skip=6, times=-1)
    running = asyncio.create_task(azure_worker.run())

    async def paused() -> bool:
        async with engine.connect() as connection:
            told = await status.mirror_status(connection)
        return told.state == status.OUTAGE and "401" in (told.last_error or "")

    await until(paused)
    emulator.clear_faults()

    async def caught_up() -> bool:
        return {(await run.mirror()).state for run in runs} == {"current"}

    await until(caught_up)
    await azure_worker.stop()
    await running
    for run in runs:
        assert (await run.mirror()).attempt == 0
        assert points_of(remote_run(emulator, run.run_id.hex), "m") == [
            (m.step, m.timestamp_ms, m.value) for m in points("m", 5)
        ]
    assert emulator.client_secret not in caplog.text
    assert "eyJ" not in caplog.text, "a token in the log"


@pytest.mark.parametrize("skew_s", [-3600, 3600])
async def test_of_two_workers_one_has_the_run_whatever_their_clocks_say(
    source: Source, target: MemoryTarget, settings: Settings, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch,
    skew_s: int,
) -> None:  # fmt: skip
    run = await source.run()

    async def claim() -> list[Lease]:
        async with engine.begin() as connection:
            return await claims.claim(
                connection, workspace_id=WORKSPACE_ID, most=9, ttl=timedelta(seconds=30), debounce=timedelta(0),
                settle=timedelta(0),
            )  # fmt: skip

    async with engine.begin() as connection:
        await destinations.route(connection, settle=timedelta(0))
    [stalled] = await claim()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + skew_s)
    assert await claim() == [], "the other one's clock does not end a lease"
    async with engine.begin() as connection:  # only the database's clock does
        await connection.execute(text("UPDATE mirrors SET lease_expires_at = now() - interval '1 second'"))
    [leased] = await claim()
    assert leased.token != stalled.token
    with pytest.raises(LeaseLost):
        async with engine.begin() as connection:
            await queue.advance(connection, stalled, watermark=1, ttl=timedelta(seconds=30))
    async with engine.begin() as connection:
        await queue.finish(connection, leased, watermark=(await run.mirror()).seq, info_watermark=0)
    # One that was stalled for longer than its lease sends nothing, and does not have to be told.
    stale = Keeper(engine, stalled, settings, asked_at=clock_s() - settings.mirror_lease.total_seconds())
    with pytest.raises(LeaseLost):
        stale.check()

"""Runs that say they are running though nobody writes to them are ended, and the workspace hears of it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.entities import RunStatus
from runmirror.runs.stale import TAG, end_stale_runs
from tests.mirror.conftest import MakeWorker
from tests.mirror.factories import Source, points
from tests.mirror.memory_target import MemoryTarget

AFTER = timedelta(hours=24)


async def later(engine: AsyncEngine, time: timedelta) -> None:
    """As if so long had passed since the last look."""
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE idle_runs SET since = since - CAST(:time AS interval)"), {"time": time})


async def rows(engine: AsyncEngine) -> dict[str, Row[Any]]:
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT name, status, end_time_ms, seq FROM runs"))
        return {row.name: row for row in found}


async def test_a_run_without_a_write_for_long_is_ended_and_says_why_there_too(
    source: Source, target: MemoryTarget, make_worker: MakeWorker, engine: AsyncEngine
) -> None:
    stale, alive, done = await source.run("stale"), await source.run("alive"), await source.run("done")
    parent = await source.run("parent")
    child = await source.run("child", **{"mlflow.parentRunId": parent.run_id.hex})
    await done.finish()
    assert await end_stale_runs(engine, after=AFTER, status="KILLED") == 0, "none was seen to be idle yet"
    await later(engine, timedelta(hours=25))
    seen = datetime.now(UTC) - timedelta(hours=25)
    await alive.log(metrics=points("loss", 1))
    await child.log(metrics=points("loss", 1))  # so its parent only waits
    assert await end_stale_runs(engine, after=AFTER, status="KILLED") == 1
    found = await rows(engine)
    assert {name: row.status for name, row in found.items()} == {
        "stale": "KILLED", "alive": "RUNNING", "done": "FINISHED", "parent": "RUNNING", "child": "RUNNING",
    }  # fmt: skip
    assert abs(found["stale"].end_time_ms / 1000 - seen.timestamp()) < 60, "it ended when it was last seen alive"
    await make_worker(target).drain()
    remote = target.of(stale.run_id.hex)
    assert remote.status == RunStatus.KILLED
    assert remote.tags[TAG].startswith("no write since ")
    assert TAG not in target.of(alive.run_id.hex).tags
    async with engine.connect() as connection:
        entry = (await connection.execute(text("SELECT action, subject FROM audit_log"))).one()
    assert tuple(entry) == ("run.end_stale", stale.run_id.hex)
    await stale.update(RunStatus.RUNNING)  # who comes back after all goes on
    await child.finish()
    await later(engine, timedelta(hours=25))
    await alive.log(metrics=points("loss", 1))
    assert await end_stale_runs(engine, after=AFTER, status="FAILED") == 1
    found = await rows(engine)
    assert (found["parent"].status, found["stale"].status) == ("FAILED", "RUNNING")


async def test_many_stale_runs_are_ended_once_by_a_worker_that_is_told_to(
    source: Source, target: MemoryTarget, make_worker: MakeWorker, engine: AsyncEngine
) -> None:
    async def statuses() -> set[str]:
        return {row.status for row in (await rows(engine)).values()}

    for number in range(60):  # more than two batches
        await source.run(f"run {number}")
    worker = make_worker(target, stale_run_after=timedelta(seconds=1), stale_run_status="FAILED")
    running = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(20):
            while await statuses() != {"FAILED"}:
                await asyncio.sleep(0.05)
    finally:
        await worker.stop()
        await running
    assert {row.seq for row in (await rows(engine)).values()} == {2}
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM audit_log")) == 3

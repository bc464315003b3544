"""The past is mirrored behind live runs and at its own pace. The clock of that pace is a row, which the tests move."""

import asyncio

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror import claims, link_queries, queue
from runmirror.mirror.link import Link, write_link
from runmirror.mirror.queue import Lease
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.mirror.conftest import WORKSPACE_ID, MakeWorker
from tests.mirror.factories import START_MS, Source
from tests.mirror.memory_target import MemoryTarget
from tests.mirror.test_queue import NOW, TTL
from tests.mirror.workspaces import Workspaces

BACKLOG = 300

_BACKLOG = text("""
    WITH made AS (
        INSERT INTO runs (run_id, experiment_id, name, status, start_time_ms, artifact_uri)
        SELECT CAST(lpad(to_hex(n), 32, '0') AS uuid), 0, 'past ' || n, 'FINISHED', n, 'mlflow-artifacts:/0'
        FROM generate_series(1, :number) AS n RETURNING run_id, start_time_ms)
    INSERT INTO mirrors (run_id, due_at)
    SELECT run_id, now() - interval '1 day' + start_time_ms * interval '1 second' FROM made
""")


@pytest.fixture
async def backlog(engine: AsyncEngine) -> None:
    """Three hundred runs, and after them a workspace."""
    async with engine.begin() as connection:
        await connection.execute(_BACKLOG, {"number": BACKLOG})
        await write_link(connection, Link(WORKSPACE_ID))
    await Workspaces(engine).route()


async def claim(
    engine: AsyncEngine, *, most: int = 1000, rate: float = 10, workspace_id: str = WORKSPACE_ID
) -> list[Lease]:
    await Workspaces(engine).route()
    async with engine.begin() as connection:
        live = await claims.claim(connection, workspace_id=workspace_id, most=most, ttl=TTL, debounce=NOW, settle=NOW)
        left = most - len(live)
        return live + await claims.claim_past(
            connection, workspace_id=workspace_id, most=left, ttl=TTL, backfill_rate=rate
        )


async def pass_time(engine: AsyncEngine, seconds: float) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE mirror_links SET backfill_at = backfill_at - make_interval(secs => :seconds)"),
            {"seconds": seconds},
        )


def numbers(leases: list[Lease]) -> list[int]:
    return sorted(lease.run_id.int for lease in leases)


@pytest.mark.usefixtures("backlog")
async def test_a_live_run_is_mirrored_next_however_many_of_the_past_wait(source: Source, engine: AsyncEngine) -> None:
    assert numbers(await claim(engine, most=1)) == [1]
    live = await source.run("live")
    [lease] = await claim(engine, most=1)
    assert (lease.run_id, lease.backfill) == (live.run_id, False)
    assert numbers(await claim(engine, most=1)) == [2]


@pytest.mark.usefixtures("backlog")
async def test_the_past_goes_oldest_first_and_no_faster_than_its_pace(engine: AsyncEngine) -> None:
    assert numbers(await claim(engine)) == list(range(1, 11)), "a second's worth at once"
    assert await claim(engine) == []
    await pass_time(engine, 0.25)
    first = await claim(engine)
    assert numbers(first)[:2] == [11, 12]
    at = len(first) + 10
    for seconds, most in ((3600, 12), (0.1, 3)):
        await pass_time(engine, seconds)
        found = numbers(await claim(engine))
        assert found == list(range(at + 1, at + 1 + len(found)))
        assert 0 < len(found) <= most, "nothing is saved up for later; what the test itself takes is little"
        at += len(found)


@pytest.mark.usefixtures("backlog")
async def test_workers_share_one_pace(engine: AsyncEngine) -> None:
    claimed = [lease.run_id for _ in range(5) for lease in await claim(engine, rate=4)]
    assert len(claimed) == len(set(claimed)) <= 5


@pytest.mark.usefixtures("backlog")
@pytest.mark.parametrize("rate", [0.3, 0.5, 1, 3, 7, 1000])
async def test_every_pace_begins_at_once_and_goes_on(engine: AsyncEngine, rate: float) -> None:
    found = await claim(engine, rate=rate)
    assert len(found) == min(max(int(rate), 1), BACKLOG)
    if rate < 1:
        assert await claim(engine, rate=rate) == []
        async with engine.connect() as connection:
            wait = await claims.seconds_to_next(connection, debounce=NOW, settle=NOW, backfill_rate=rate)
        assert 0 < (wait or 0) <= 1 / rate
        await pass_time(engine, 1 / rate)
        assert len(await claim(engine, rate=rate)) == 1


@pytest.mark.usefixtures("backlog")
async def test_at_pace_zero_the_past_rests_and_live_runs_flow(
    source: Source, engine: AsyncEngine, make_worker: MakeWorker
) -> None:
    live = await source.run("live")
    target = MemoryTarget()
    await make_worker(target, mirror_backfill_rate=0).drain()
    assert [remote.name for remote in target.runs.values()] == ["live"]
    assert (await live.mirror()).state == "current"


@pytest.mark.usefixtures("backlog")
async def test_all_of_the_past_arrives(engine: AsyncEngine, make_worker: MakeWorker) -> None:
    target = MemoryTarget()
    await make_worker(target, mirror_backfill_rate=10_000, mirror_concurrency=1).drain(timeout_s=120)
    assert [remote.name for remote in target.runs.values()] == [f"past {n}" for n in range(1, BACKLOG + 1)]
    async with engine.connect() as connection:
        left = await connection.scalar(text("SELECT count(*) FROM mirrors WHERE backfill OR state <> 'current'"))
    assert left == 0


@pytest.mark.usefixtures("backlog")
async def test_the_past_leaves_a_place_free(
    source: Source, engine: AsyncEngine, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While each run of the past takes for ever, a live one goes through."""
    target = MemoryTarget()
    forever = asyncio.Event()
    create_run = target.create_run

    async def slow(experiment_id: str, run: object) -> object:
        if run.name.startswith("past"):  # type: ignore[attr-defined]
            await forever.wait()
        return await create_run(experiment_id, run)  # type: ignore[arg-type]

    target.create_run = slow  # type: ignore[assignment, method-assign]
    worker = make_worker(target, mirror_backfill_rate=1000, mirror_concurrency=3)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while True:
            async with engine.connect() as connection:
                if await connection.scalar(text("SELECT count(*) FROM mirrors WHERE state = 'leased'")) == 2:
                    break
            await asyncio.sleep(0.02)
        looks = 0
        claim_runs = claims.claim

        async def counted(*arguments: object, **named: object) -> list[Lease]:
            nonlocal looks
            looks += 1
            return await claim_runs(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(claims, "claim", counted)
        for number in range(5):
            live = await source.run(f"live {number}")
            while (await live.mirror()).state != "current":
                await asyncio.sleep(0.02)
    assert looks < 60, "who waits for a place does not ask all the time"
    forever.set()
    await worker.stop()
    await running


async def test_a_write_makes_a_run_of_the_past_a_live_one(source: Source, engine: AsyncEngine) -> None:
    runs = [await source.run(f"run {n}") for n in range(3)]
    async with engine.begin() as connection:
        await write_link(connection, Link(WORKSPACE_ID))
    await Workspaces(engine).route()
    assert [(await run.mirror()).backfill for run in runs] == [True] * 3
    await runs[2].log(params={"p": "1"})
    assert [lease.run_id for lease in await claim(engine, most=1)] == [runs[2].run_id]
    assert (await runs[2].mirror()).backfill is False


async def test_a_run_of_the_past_is_searched_for_only_if_somebody_held_it(source: Source, engine: AsyncEngine) -> None:
    await source.run()
    async with engine.begin() as connection:
        await write_link(connection, Link(WORKSPACE_ID))
    [first] = await claim(engine, rate=1000)
    async with engine.begin() as connection:
        await queue.release(connection, first, wait=NOW)
    [second] = await claim(engine, rate=1000)
    found = [(lease.run_id, lease.backfill, lease.may_exist) for lease in (first, second)]
    assert found == [(first.run_id, True, False), (first.run_id, True, True)]


async def test_a_pause_after_a_failure_is_not_cut_short_by_a_write(source: Source, engine: AsyncEngine) -> None:
    run = await source.run()
    async with engine.begin() as connection:
        await write_link(connection, Link(WORKSPACE_ID))
    [lease] = await claim(engine)
    async with engine.begin() as connection:
        await queue.release(connection, lease, wait=TTL)
    await run.log(params={"p": "1"})
    assert await claim(engine) == []


async def test_the_parent_of_a_live_run_does_not_wait_with_the_past(
    source: Source, engine: AsyncEngine, make_worker: MakeWorker
) -> None:
    parent = await source.run("parent")
    async with engine.begin() as connection:
        await write_link(connection, Link(WORKSPACE_ID))
    await Workspaces(engine).route()
    child = await source.run("child", **{"mlflow.parentRunId": parent.run_id.hex})
    target = MemoryTarget()
    await make_worker(target, mirror_backfill_rate=0).drain()
    assert [remote.name for remote in target.runs.values()] == ["parent", "child"]
    assert target.of(child.run_id.hex).tags["mlflow.parentRunId"] == target.of(parent.run_id.hex).run_id


async def test_each_workspace_has_a_pace_of_its_own(source: Source, engine: AsyncEngine) -> None:
    workspaces = Workspaces(engine)
    experiment_id = await source.experiment("b")
    for n in range(4):
        await source.run(f"a{n}")
        await source.run(f"b{n}", experiment_id=experiment_id)
    await workspaces.link("a")
    await workspaces.link("b", "b")
    for name in "ab":
        workspace_id = WORKSPACE_ID.rpartition("/")[0] + f"/{name}"
        assert len(await claim(engine, rate=2, workspace_id=workspace_id)) == 2


@pytest.mark.usefixtures("backlog")
async def test_the_status_tells_how_much_of_the_past_is_left_and_for_how_long(
    client: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    [told] = (await client.get("/api/runmirror/v1/mirror")).json()["workspaces"]
    assert (told["backfill_runs"], told["backfill_seconds"]) == (BACKLOG, BACKLOG / settings.mirror_backfill_rate)


async def test_runs_that_wait_are_put_behind_on_request(
    source: Source, target: MemoryTarget, engine: AsyncEngine, worker: Worker
) -> None:
    current = await source.run("current")
    await worker.drain()
    experiment_id = await source.experiment("other")
    waiting = [await source.run("first"), await source.run("second", experiment_id=experiment_id)]
    async with engine.begin() as connection:
        assert await link_queries.put_behind(connection, experiment="nothing", since_ms=None) == 0
        assert await link_queries.put_behind(connection, experiment=None, since_ms=START_MS + 1) == 0
        assert await link_queries.put_behind(connection, experiment="other", since_ms=START_MS) == 1
    assert [(await run.mirror()).backfill for run in (current, *waiting)] == [False, False, True]
    async with engine.begin() as connection:
        assert await link_queries.put_behind(connection, experiment=None, since_ms=None) == 1
    await worker.drain()
    assert {(await run.mirror()).state for run in waiting} == {"current"}

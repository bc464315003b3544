"""`runmirror.mirror` = `off`: nothing is sent from then on, and everything once it is gone."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror import queue, status
from runmirror.mirror.own_tags import MIRROR_TAG, STATUS_TAG, WORKSPACE_TAG
from runmirror.mirror.queue import LeaseLost, Plan
from runmirror.mirror.target import TargetRejected
from runmirror.mirror.worker import Worker
from tests.mirror.conftest import MakeWorker
from tests.mirror.factories import Source, SourceRun, points
from tests.mirror.memory_target import Failure, MemoryTarget
from tests.mirror.test_queue import NOW, TTL, claim, finish
from tests.mirror.workspaces import Workspaces, arm_id

OFF = {MIRROR_TAG: "off"}


async def check_off(run: SourceRun) -> None:
    mirror = await run.mirror()
    assert (mirror.state, mirror.behind_since) == ("off", None)
    assert (await run.tags())[STATUS_TAG] == "off"


async def test_a_run_that_is_off_from_its_creation_is_never_heard_of(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    experiment_id = await source.experiment("secret")
    run = await source.run(experiment_id=experiment_id, **OFF)
    await run.log(metrics=points("m", 5))
    await run.finish()
    await worker.drain()
    await check_off(run)
    assert set(target.calls) <= {"probe"}
    assert target.experiments == {}


@pytest.mark.parametrize("value", ["off", " OFF ", "false", "no", "0"])
async def test_off_has_some_other_words(source: Source, target: MemoryTarget, worker: Worker, value: str) -> None:
    run = await source.run(**{MIRROR_TAG: value})
    await worker.drain()
    await check_off(run)


async def test_a_run_may_be_switched_off_before_it_was_ever_mirrored(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    run = await source.run()
    await run.log(tags=OFF)
    await worker.drain()
    await check_off(run)
    assert target.runs == {}


@pytest.mark.parametrize("how", ["delete", "on"])
async def test_a_run_that_is_back_on_arrives_whole_and_once(
    source: Source, target: MemoryTarget, worker: Worker, how: str
) -> None:
    run = await source.run()
    await run.log(metrics=points("m", 10))
    await worker.drain()
    await run.log(metrics=points("m", 10, first=10), tags=OFF)
    await worker.drain()
    await run.log(metrics=points("m", 10, first=20), params={"p": "1"})
    await worker.drain()
    await check_off(run)
    assert target.of(run.run_id.hex).metrics == points("m", 10)
    await (run.delete_tag(MIRROR_TAG) if how == "delete" else run.log(tags={MIRROR_TAG: "on"}))
    await worker.drain()
    remote = target.of(run.run_id.hex)
    assert (remote.metrics, remote.params) == (points("m", 30), {"p": "1"})
    assert ((await run.mirror()).state, (await run.tags())[STATUS_TAG]) == ("current", "mirrored")


async def test_an_experiment_is_switched_off_and_on_and_a_runs_own_word_counts_more(
    source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine
) -> None:
    experiment_id = await source.experiment("quiet", **OFF)
    early = await source.run(experiment_id=experiment_id)
    loud = await source.run(experiment_id=experiment_id, **{MIRROR_TAG: "on"})
    await worker.drain()
    await check_off(early)
    assert (await loud.mirror()).state == "current"
    await source.tag_experiment(experiment_id, MIRROR_TAG, None)
    await worker.drain()
    assert (await early.mirror()).state == "current"
    await source.tag_experiment(experiment_id, MIRROR_TAG, "off")
    await early.log(params={"late": "1"})
    await loud.log(params={"late": "1"})
    await worker.drain()
    await check_off(early)
    assert (target.of(early.run_id.hex).params, target.of(loud.run_id.hex).params) == ({}, {"late": "1"})
    async with engine.connect() as connection:
        told = await status.mirror_status(connection)
    assert (told.runs_off, told.runs_behind) == (1, 0)
    await source.tag_experiment(experiment_id, MIRROR_TAG, "on")
    await worker.drain()
    assert target.of(early.run_id.hex).params == {"late": "1"}


@pytest.mark.parametrize("whole_experiment", [False, True])
async def test_a_run_that_is_switched_off_in_the_middle_stops_at_the_next_page(
    source: Source, target: MemoryTarget, make_worker: MakeWorker, whole_experiment: bool
) -> None:
    run = await source.run()
    for first in range(0, 6000, 1000):
        await run.log(metrics=points("m", 1000, first=first))
    log_batch = target.log_batch
    switched: list[bool] = []

    async def switch_off_first(*arguments: object) -> None:
        if target.runs and not switched and len(target.of(run.run_id.hex).metrics) >= 1000:
            switched.append(True)
            if whole_experiment:
                await source.tag_experiment("0", MIRROR_TAG, "off")
            else:
                await run.log(tags=OFF)
        await log_batch(*arguments)  # type: ignore[arg-type]

    target.log_batch = switch_off_first  # type: ignore[method-assign]
    worker = make_worker(target, mirror_page_rows=2000)
    await worker.drain()
    assert switched
    await check_off(run)
    assert 1000 < len(target.of(run.run_id.hex).metrics) <= 3000, "no more than the page in hand"
    if whole_experiment:
        await source.tag_experiment("0", MIRROR_TAG, None)
    else:
        await run.delete_tag(MIRROR_TAG)
    await worker.drain()
    assert target.of(run.run_id.hex).metrics == points("m", 6000)


async def test_a_request_under_way_is_given_up_when_its_run_is_switched_off(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    run = await source.run()
    await run.log(metrics=points("m", 900))
    struck, log_batch = asyncio.Event(), target.log_batch

    async def hang(*_: object) -> None:
        struck.set()
        await asyncio.Event().wait()

    target.log_batch = hang  # type: ignore[method-assign]
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        await struck.wait()
        await run.log(tags=OFF)
        while (await run.mirror()).lease_token is not None:
            await asyncio.sleep(0.02)
    await check_off(run)
    target.log_batch = log_batch  # type: ignore[method-assign]
    await run.delete_tag(MIRROR_TAG)
    async with asyncio.timeout(30):
        while (await run.mirror()).state != "current":
            await asyncio.sleep(0.02)
    await worker.stop()
    await running
    assert target.of(run.run_id.hex).metrics == points("m", 900)


async def test_off_and_on_again_leaves_a_lease_with_its_holder(
    source: Source, target: MemoryTarget, engine: AsyncEngine
) -> None:
    """The old holder may still be sending: nobody else gets the run before that lease has ended."""
    run = await source.run()
    [lease] = await claim(engine)
    await run.log(tags=OFF)
    with pytest.raises(LeaseLost):
        await finish(engine, lease, run)
    assert await claim(engine) == []
    await check_off(run)
    await run.log(tags={MIRROR_TAG: "on"})
    assert await claim(engine) == []
    assert (await run.mirror()).state == "leased"
    assert await finish(engine, lease, run)


async def test_what_is_marked_passes_no_fence_before_it_is_decided(
    source: Source, target: MemoryTarget, engine: AsyncEngine
) -> None:
    run = await source.run()
    [lease] = await claim(engine)
    await run.log(tags={MIRROR_TAG: "on"})
    before, tags = await run.mirror(), await run.tags()
    for change in (
        lambda c: queue.renew(c, lease, TTL),
        lambda c: queue.bind(c, lease, Plan(), experiment_id="e", remote_run_id="r", portal_url="https://p"),
        lambda c: queue.note(c, lease, Plan(sent_upto=9)),
        lambda c: queue.note_overflow_told(c, lease, overflow_seq=1),
        lambda c: queue.advance(c, lease, watermark=9, ttl=TTL),
        lambda c: queue.finish(c, lease, watermark=before.seq, info_watermark=1),
        lambda c: queue.postpone(c, lease, wait=NOW, error="late"),
        lambda c: queue.quarantine(c, lease, reason="late"),
    ):
        with pytest.raises(LeaseLost):
            async with engine.begin() as connection:
                await change(connection)
        assert (await run.mirror(), await run.tags()) == (before, tags)
    await Workspaces(engine).route()
    assert await finish(engine, lease, run), "it stays where it is"


async def test_a_run_that_was_off_before_anybody_held_it_is_due_when_it_is_back(
    source: Source, target: MemoryTarget, engine: AsyncEngine
) -> None:
    """Its token says that nobody ever held it, which is no lease that somebody could be waited for."""
    run = await source.run()
    await Workspaces(engine).route()
    await run.log(tags=OFF)
    assert await claim(engine) == []
    await check_off(run)
    await run.log(tags={MIRROR_TAG: "on"})
    [lease] = await claim(engine)
    assert (lease.run_id, lease.may_exist) == (run.run_id, False)


async def test_a_holder_that_lets_go_of_a_run_that_is_off_frees_it(
    source: Source, target: MemoryTarget, engine: AsyncEngine
) -> None:
    run = await source.run()
    [lease] = await claim(engine)
    await run.log(tags=OFF)
    await claim(engine)
    async with engine.begin() as connection:
        await queue.release(connection, lease, wait=NOW)
    await check_off(run)
    await run.delete_tag(MIRROR_TAG)
    [again] = await claim(engine)
    assert again.run_id == run.run_id


async def test_a_run_that_goes_elsewhere_waits_until_its_lease_has_ended(
    source: Source, target: MemoryTarget, engine: AsyncEngine
) -> None:
    workspaces = Workspaces(engine)
    await workspaces.link("other")
    run, late = await source.run(), await source.run()
    [held, _] = await claim(engine, most=2)
    for one in (run, late):
        await one.log(tags={WORKSPACE_TAG: "other"})
    await workspaces.route()
    with pytest.raises(LeaseLost):
        await finish(engine, held, run)
    assert await claim(engine, workspace_id=arm_id("other")) == []
    for one in (run, late):
        await one.delete_tag(WORKSPACE_TAG)
    assert await claim(engine) == [], "back again, the old holder may not know yet"
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE mirrors SET due_at = due_at - interval '2 minutes'"))
    assert {lease.run_id for lease in await claim(engine)} == {run.run_id, late.run_id}


async def test_a_quarantined_run_may_be_switched_off_and_gets_another_chance_when_it_is_back(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    run = await source.run()
    target.failures.append(Failure("log_batch", TargetRejected("no"), times=3))
    await run.log(params={"p": "1"})
    await worker.drain()
    assert (await run.mirror()).state == "quarantined"
    target.failures.clear()
    await run.log(tags=OFF)
    await worker.drain()
    await check_off(run)
    await run.delete_tag(MIRROR_TAG)
    await worker.drain()
    assert target.of(run.run_id.hex).params == {"p": "1"}


async def test_switching_while_a_worker_runs_ends_in_what_was_said_last(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    run = await source.run()
    running = asyncio.create_task(worker.run())
    for turn in range(12):
        await run.log(metrics=points("m", 50, first=50 * turn), tags={MIRROR_TAG: "on" if turn % 2 else "off"})
    async with asyncio.timeout(30):
        while (await run.mirror()).state != "current":
            await asyncio.sleep(0.02)
    await worker.stop()
    await running
    assert sorted(target.of(run.run_id.hex).metrics, key=lambda m: m.step) == points("m", 600)

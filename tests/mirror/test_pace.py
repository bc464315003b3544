"""The pace at which a workspace is asked, and whose turn it is."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror import claims, destinations, pace, turns
from runmirror.mirror.pace import Pace
from runmirror.mirror.target import TargetUnavailable
from runmirror.mirror.turns import Turns
from runmirror.mirror.worker import Worker
from tests.mirror.conftest import WORKSPACE_ID
from tests.mirror.factories import Source
from tests.mirror.memory_target import Failure, MemoryTarget


class Clock:
    """Time passes only by waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(pace, "clock_s", lambda: self.now)
        monkeypatch.setattr(turns, "clock_s", lambda: self.now)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def ask(clock: Clock, made: Pace, number: int, *, every_s: float = 0.0, status: int = 200) -> float:
    """How long that takes."""
    began = clock.now
    for _ in range(number):
        await made.turn()
        made.heard(status)
        clock.now += every_s
    return clock.now - began


async def test_a_workspace_that_never_throttles_is_asked_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert await ask(clock, Pace(), 1000) == 0


async def test_after_a_429_the_pace_is_half_of_what_it_was_and_grows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = Clock(monkeypatch), Pace()
    await ask(clock, made, 200, every_s=0.01)
    await ask(clock, made, 1, status=429)
    assert made.per_second == pytest.approx(50, rel=0.05)
    await ask(clock, made, 5, status=429)
    assert made.per_second == pytest.approx(50, rel=0.05), "asked at the same pace, they are one"
    took = await ask(clock, made, 50)
    assert 0.8 < took < 1.05
    grown = made.per_second
    assert grown is not None
    assert grown > 50
    clock.now += 2
    await ask(clock, made, 100)
    before = made.per_second
    clock.now += 1
    await ask(clock, made, 1, status=429)
    assert made.per_second <= before * 0.6, "every second that throttles halves it"


async def test_the_pace_never_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = Clock(monkeypatch), Pace()
    for _ in range(20):
        await ask(clock, made, 1, status=429)
        clock.now += 5
    assert await ask(clock, made, 10) < 3


async def test_of_each_experiment_the_longest_waiting_run_has_its_turn(
    source: Source, target: MemoryTarget, engine: AsyncEngine
) -> None:
    ids = [await source.experiment(name) for name in "abc"]
    runs = {name: [await source.run(experiment_id=key) for _ in range(3)] for name, key in zip("abc", ids, strict=True)}
    async with engine.begin() as connection:
        await destinations.route(connection, settle=timedelta(0))
        for age, name in enumerate("abc"):
            await connection.execute(
                text("UPDATE mirrors SET due_at = now() - make_interval(mins => :age) WHERE run_id = ANY(:ids)"),
                {"age": 10 + age, "ids": [run.run_id for run in runs[name][1:]]},
            )
        oldest = await claims.oldest_of_each_experiment(connection, workspace_id=WORKSPACE_ID, debounce=timedelta(0))
    assert [next(name for name in "abc" if run_id in {run.run_id for run in runs[name]}) for run_id in oldest] == [
        *"cba"
    ]
    assert not {runs[name][0].run_id for name in "abc"} & set(oldest)


async def test_turns_are_looked_up_only_while_more_is_due_than_is_claimed(
    source: Source, target: MemoryTarget, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    await source.run()
    made = Turns(WORKSPACE_ID)
    async with engine.connect() as connection:
        await destinations.route(connection, settle=timedelta(0))
        assert await made.take(connection, 2, timedelta(0)) == []
        made.claimed(2, 2)
        assert len(await made.take(connection, 2, timedelta(0))) == 1
        assert await made.take(connection, 2, timedelta(0)) == [], "not again at once"
        made.claimed(1, 2)
        assert await made.take(connection, 2, timedelta(0)) == []


async def test_an_outage_is_counted_whatever_the_worker_looks_at_while_it_is_noted(
    source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine
) -> None:
    """The run is given back by then: a look for lost leases took that for a loss, and broke the noting off."""
    run = await source.run()
    target.failures.append(Failure("create_run", TargetUnavailable("503")))
    async with engine.connect() as holder:
        await holder.execute(
            text("INSERT INTO mirror_throughput (minute, worker_id) "
                 "SELECT date_trunc('minute', now() + later), :worker_id "
                 "FROM unnest(ARRAY['0 minutes', '1 minute']::interval[]) AS later"),
            {"worker_id": worker._tools.worker_id},
        )  # fmt: skip
        draining = asyncio.create_task(worker.drain())
        async with asyncio.timeout(30):
            while (await run.mirror()).last_error is None:
                await asyncio.sleep(0.01)
        await worker._step()
        await holder.rollback()
    await draining
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT sum(outages) FROM mirror_throughput")) == 1

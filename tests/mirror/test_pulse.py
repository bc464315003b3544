"""Signs of life, samples of the lag, and totals that never go back."""

import asyncio
import time
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runmirror.mirror import pulse, throughput
from runmirror.mirror.overview import Overview, overview
from runmirror.mirror.worker import Worker
from tests.mirror.factories import Source

DEADLINE_S = 20.0


async def seen(engine: AsyncEngine) -> Overview:
    async with engine.connect() as connection:
        return await overview(connection)


async def test_a_worker_is_seen_while_it_runs_and_takes_its_leave(engine: AsyncEngine, worker: Worker) -> None:
    running = asyncio.create_task(worker.run())
    deadline = time.monotonic() + DEADLINE_S
    while (await seen(engine)).alive != 1:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await worker.stop()
    await running
    assert (await seen(engine)).workers == ()


async def test_a_worker_touches_its_file_while_postgres_is_away_and_a_bad_place_does_not_end_it(tmp_path: Path) -> None:
    nowhere = create_async_engine("postgresql+asyncpg://127.0.0.1:9/none")
    alive = tmp_path / "alive"
    lives = [
        asyncio.create_task(pulse.pulse(nowhere, uuid4(), file)) for file in (alive, tmp_path / "no folder" / "alive")
    ]
    deadline = time.monotonic() + DEADLINE_S
    while not alive.exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert not any(life.done() for life in lives)
    for life in lives:
        life.cancel()
    await asyncio.gather(*lives, return_exceptions=True)
    await nowhere.dispose()


async def test_a_worker_that_fell_silent_is_gone_and_forgotten_after_a_day(engine: AsyncEngine, worker: Worker) -> None:
    async with engine.begin() as connection:
        await pulse.beat(connection, worker.worker_id)
        await connection.execute(text("UPDATE mirror_workers SET seen_at = now() - interval '1 minute'"))
    silent = await seen(engine)
    assert (len(silent.workers), silent.alive) == (1, 0)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE mirror_workers SET seen_at = now() - interval '2 days'"))
        await pulse.forget_old(connection)
    assert (await seen(engine)).workers == ()


async def test_a_minute_keeps_its_worst_lag_and_old_minutes_go(
    engine: AsyncEngine, source: Source, worker: Worker
) -> None:
    await source.run()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE mirrors SET behind_since = now() - interval '100 seconds'"))
        await pulse.beat(connection, worker.worker_id)
        await connection.execute(text("UPDATE mirrors SET state = 'current', behind_since = NULL"))
        await pulse.beat(connection, worker.worker_id)  # the same minute: one transaction has one time
        kept = (await connection.execute(text("SELECT lag_s FROM mirror_lag"))).all()
        assert [tuple(row) for row in kept] == [(100.0,)]
        await connection.execute(text("UPDATE mirror_lag SET minute = minute - interval '2 days'"))
        await pulse.forget_old(connection)
        assert await connection.scalar(text("SELECT count(*) FROM mirror_lag")) == 0


async def test_totals_never_go_back_when_minutes_are_forgotten(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("""
                INSERT INTO mirror_throughput
                SELECT now() - n * interval '10 hours', gen_random_uuid(), 1, 10, 100
                FROM generate_series(0, 9) AS numbers (n)""")
        )
    for _ in range(2):
        async with engine.begin() as connection:
            await throughput.forget_old(connection)
        told = await seen(engine)
        assert (told.runs, told.points, told.bytes) == (10, 100, 1000)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM mirror_throughput")) == 4  # 0, 10, 20 h, and 1970

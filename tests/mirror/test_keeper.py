"""A lease is relied on only as long as it surely outlives the next request."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runmirror.mirror.keeper import Keeper, clock_s
from runmirror.mirror.queue import Lease, LeaseLost
from runmirror.settings import Settings
from tests.mirror.factories import Source
from tests.mirror.memory_target import MemoryTarget
from tests.mirror.test_queue import claim

LEASE = timedelta(seconds=1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"mirror_lease": LEASE, "mirror_timeout": timedelta(seconds=0.6)})


@pytest.fixture
async def lease(source: Source, target: MemoryTarget, engine: AsyncEngine) -> Lease:
    await source.run()
    [leased] = await claim(engine, ttl=LEASE)
    return leased


async def until_lost(keeper: Keeper) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                keeper.check()
            except LeaseLost:
                return
            await asyncio.sleep(0.02)


async def test_a_request_that_could_outlast_the_lease_is_not_sent(
    engine: AsyncEngine, lease: Lease, settings: Settings
) -> None:
    Keeper(engine, lease, settings, asked_at=clock_s() - 0.2).check()
    with pytest.raises(LeaseLost):
        Keeper(engine, lease, settings, asked_at=clock_s() - 0.5).check()


async def test_a_heartbeat_keeps_the_lease_for_longer_than_it_lasts(
    engine: AsyncEngine, lease: Lease, settings: Settings
) -> None:
    async with Keeper(engine, lease, settings, asked_at=clock_s()) as keeper:
        until = clock_s() + 3 * LEASE.total_seconds()
        while clock_s() < until:
            keeper.check()
            await asyncio.sleep(0.05)
    assert await claim(engine) == []


async def test_a_lease_that_passed_to_another_is_noticed(engine: AsyncEngine, lease: Lease, settings: Settings) -> None:
    async with Keeper(engine, lease, settings, asked_at=clock_s() + 3600) as keeper:
        keeper.check()
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE mirrors SET lease_token = :token"), {"token": uuid4()})
        await until_lost(keeper)


async def test_without_postgres_a_lease_ends_by_the_local_clock(lease: Lease, settings: Settings) -> None:
    nowhere = create_async_engine("postgresql+asyncpg://localhost:1/none")
    async with Keeper(nowhere, lease, settings, asked_at=clock_s()) as keeper:
        keeper.check()
        await until_lost(keeper)
    await nowhere.dispose()

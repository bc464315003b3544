"""One run, many hands: only the holder of the lease changes anything, and no write is forgotten."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.entities import Batch, Metric, Param
from runmirror.mirror import claims, destinations, queries, queue
from runmirror.mirror.link import Link, write_link
from runmirror.mirror.queue import CHANNEL, Lease, LeaseLost, Plan
from runmirror.runs import service as runs
from runmirror.runs import writes
from tests.mirror.conftest import WORKSPACE_ID
from tests.mirror.factories import START_MS, Source, SourceRun
from tests.mirror.memory_target import MemoryTarget

NOW = timedelta(0)
TTL = timedelta(minutes=2)
EXPIRED = timedelta(minutes=-1)


async def claim(
    engine: AsyncEngine,
    *,
    most: int = 10,
    debounce: timedelta = NOW,
    ttl: timedelta = TTL,
    settle: timedelta = NOW,
    workspace_id: str = WORKSPACE_ID,
) -> list[Lease]:
    async with engine.begin() as connection:
        await destinations.route(connection, settle=settle)
    async with engine.begin() as connection:
        live = await claims.claim(
            connection, workspace_id=workspace_id, most=most, ttl=ttl, debounce=debounce, settle=settle
        )
        return live + await claims.claim_past(
            connection, workspace_id=workspace_id, most=most - len(live), ttl=ttl, backfill_rate=10
        )


async def finish(engine: AsyncEngine, lease: Lease, run: SourceRun, *, watermark: int | None = None) -> bool:
    seq = (await run.mirror()).seq if watermark is None else watermark
    async with engine.begin() as connection:
        return await queue.finish(connection, lease, watermark=seq, info_watermark=seq)


@pytest.fixture(autouse=True)
def linked(target: MemoryTarget) -> None:
    """A workspace is linked."""


async def test_a_new_run_is_due_and_a_finished_one_is_current(source: Source, engine: AsyncEngine) -> None:
    run = await source.run()
    [lease] = await claim(engine)
    assert (lease.run_id, lease.watermark) == (run.run_id, 0)
    assert await finish(engine, lease, run)
    assert (await run.mirror()).state == "current"
    assert await claim(engine) == []


async def test_a_leased_run_is_not_leased_again_but_an_expired_lease_is(source: Source, engine: AsyncEngine) -> None:
    run = await source.run()
    [first] = await claim(engine, ttl=EXPIRED)
    assert await claim(engine, settle=timedelta(hours=1)) == [], "its last request may still take effect"
    [second] = await claim(engine)
    assert (second.run_id, second.token != first.token) == (run.run_id, True)
    assert await claim(engine) == []


async def test_a_late_worker_changes_nothing(source: Source, engine: AsyncEngine) -> None:
    run = await source.run()
    [late] = await claim(engine, ttl=EXPIRED)
    [_] = await claim(engine)
    before, tags = await run.mirror(), await run.tags()
    for late_change in (
        lambda c: queue.renew(c, late, TTL),
        lambda c: queue.bind(c, late, Plan(), experiment_id="e", remote_run_id="r", portal_url=None),
        lambda c: queue.note(c, late, Plan(sent_upto=9)),
        lambda c: queue.advance(c, late, watermark=9, ttl=TTL),
        lambda c: queue.finish(c, late, watermark=before.seq, info_watermark=1),
        lambda c: queue.release(c, late, wait=NOW, error="late"),
        lambda c: queue.postpone(c, late, wait=NOW, error="late"),
        lambda c: queue.quarantine(c, late, reason="late"),
    ):
        with pytest.raises(LeaseLost):
            async with engine.begin() as connection:
                await late_change(connection)
    assert (await run.mirror(), await run.tags()) == (before, tags)


async def test_two_workers_never_get_the_same_run(source: Source, engine: AsyncEngine) -> None:
    runs = {(await source.run(f"run {n}")).run_id for n in range(20)}
    claims = await asyncio.gather(*(claim(engine, most=4) for _ in range(8)))
    leased = [lease.run_id for leases in claims for lease in leases]
    assert len(leased) == len(set(leased))
    rest = await claim(engine, most=20)
    assert {*leased, *(lease.run_id for lease in rest)} == runs


async def test_a_run_that_somebody_is_claiming_is_passed_over_not_waited_for(
    source: Source, engine: AsyncEngine
) -> None:
    first, second = await source.run("first"), await source.run("second")
    await claim(engine, most=0)
    async with engine.begin() as other:
        [held] = await claims.claim(other, workspace_id=WORKSPACE_ID, most=1, ttl=TTL, debounce=NOW, settle=NOW)
        async with asyncio.timeout(5):
            [mine] = await claim(engine)
    assert (held.run_id, mine.run_id) == (first.run_id, second.run_id)


async def test_the_longest_waiting_run_comes_first_and_young_writes_wait(source: Source, engine: AsyncEngine) -> None:
    runs = [(await source.run(f"run {n}")).run_id for n in range(3)]
    assert await claim(engine, debounce=timedelta(hours=1)) == []
    assert [(await claim(engine, most=1))[0].run_id for _ in range(3)] == runs


async def test_a_worker_of_another_workspace_finds_nothing(source: Source, engine: AsyncEngine) -> None:
    await source.run()
    assert await claim(engine, workspace_id=WORKSPACE_ID + "2") == []
    assert len(await claim(engine, workspace_id=WORKSPACE_ID.upper())) == 1, "ARM ids do not care about case"


async def test_a_write_between_reading_and_finishing_leaves_the_run_due(source: Source, engine: AsyncEngine) -> None:
    run = await source.run()
    [lease] = await claim(engine)
    read = (await run.mirror()).seq
    async with engine.begin() as writer:
        await writes.begin(writer, run.run_id)
        finishing = asyncio.create_task(finish(engine, lease, run, watermark=read))
        await _until_blocked(engine)
        assert not finishing.done()
    assert await finishing is False
    mirror = await run.mirror()
    assert (mirror.state, mirror.watermark, mirror.seq) == ("due", read, read + 1)
    assert mirror.behind_since is not None


async def test_a_write_that_waits_for_finish_marks_the_run_behind_again(source: Source, engine: AsyncEngine) -> None:
    run = await source.run()
    [lease] = await claim(engine)
    async with engine.begin() as finisher:
        assert await queue.finish(finisher, lease, watermark=1, info_watermark=1)
        writing = asyncio.create_task(run.log(params={"p": "1"}))
        await _until_blocked(engine)
    await writing
    mirror = await run.mirror()
    assert (mirror.state, mirror.watermark, mirror.seq) == ("due", 1, 2)
    assert (await run.tags())[queue.STATUS_TAG] == "pending"


async def test_a_finish_that_waits_for_a_write_leaves_the_run_due(source: Source, engine: AsyncEngine) -> None:
    run = await source.run()
    [lease] = await claim(engine)
    async with engine.begin() as writer:
        await runs.log_batch(writer, run.run_id.hex, Batch(params=(Param("p", "1"),)))
        finishing = asyncio.create_task(finish(engine, lease, run, watermark=1))
        await _until_blocked(engine)
    assert not await finishing
    assert (await run.mirror()).state == "due"
    assert (await run.tags())[queue.STATUS_TAG] == "pending"


async def test_only_the_first_lease_knows_that_there_is_no_remote_run(source: Source, engine: AsyncEngine) -> None:
    """Whoever comes later has to look: the one before may have created it, and died."""
    await source.run()
    [first] = await claim(engine, ttl=EXPIRED)
    [after_a_crash] = await claim(engine)
    async with engine.begin() as connection:
        await queue.release(connection, after_a_crash, wait=NOW)
    [after_a_release] = await claim(engine)
    found = [lease.may_exist for lease in (first, after_a_crash, after_a_release)]
    assert found == [False, True, True]
    async with engine.begin() as connection:
        await queue.release(connection, after_a_release, wait=NOW)
        assert await write_link(connection, Link(WORKSPACE_ID + "2"))
        assert await write_link(connection, Link(WORKSPACE_ID))
    [in_a_workspace_it_may_have_been_in] = await claim(engine)
    assert in_a_workspace_it_may_have_been_in.may_exist
    # As a server of an earlier version writes it; as it is found after a failover.
    for token in (None, UUID(int=2**31)):
        other = await source.run()
        async with engine.begin() as connection:
            writing = text("UPDATE mirrors SET lease_token = :token WHERE run_id = :run_id")
            await connection.execute(writing, {"token": token, "run_id": other.run_id})
        assert [lease.may_exist for lease in await claim(engine)] == [True]


async def test_a_late_committing_write_is_not_skipped(source: Source, engine: AsyncEngine) -> None:
    """The seq gap of outboxes: a page read while a write is open never claims to hold that write."""
    run = await source.run()
    await run.log(metrics=[Metric("m", 1.0, START_MS, 1)])
    [lease] = await claim(engine)
    async with engine.begin() as writer:
        open_write = await writes.begin(writer, run.run_id)
        later = asyncio.create_task(run.log(metrics=[Metric("m", 3.0, START_MS, 3)]))
        await _until_blocked(engine)  # the later write waits for its turn, so it cannot commit first
        async with engine.connect() as reader:
            page = await queries.read_page(reader, lease, 2000)
        assert page is not None
        assert page.upto < open_write.seq
    await later
    assert await finish(engine, lease, run, watermark=page.upto) is False


async def test_progress_forgives_failures_and_postponing_counts_them(source: Source, engine: AsyncEngine) -> None:
    run = await source.run()
    for attempt in range(3):
        [lease] = await claim(engine)
        assert lease.attempt == attempt
        async with engine.begin() as connection:
            await queue.postpone(connection, lease, wait=NOW, error="no luck")
    assert (await run.mirror()).last_error == "no luck"
    [lease] = await claim(engine)
    async with engine.begin() as connection:
        lease = await queue.advance(connection, lease, watermark=1, ttl=TTL)
        await queue.release(connection, lease, wait=NOW)
    mirror = await run.mirror()
    assert (mirror.attempt, mirror.watermark, mirror.state) == (0, 1, "due")


async def test_a_quarantined_run_stays_aside_when_it_is_written(source: Source, engine: AsyncEngine) -> None:
    run = await source.run()
    [lease] = await claim(engine)
    async with engine.begin() as connection:
        await queue.quarantine(connection, lease, reason="refused")
    await run.log(params={"p": "1"})
    mirror = await run.mirror()
    assert (mirror.state, mirror.last_error) == ("quarantined", "refused")
    assert await claim(engine) == []


async def test_seconds_to_next_knows_debounce_and_expiry(source: Source, engine: AsyncEngine) -> None:
    async def seconds(debounce_s: float = 0, settle_s: float = 0) -> float | None:
        debounce, settle = timedelta(seconds=debounce_s), timedelta(seconds=settle_s)
        async with engine.connect() as connection:
            return await claims.seconds_to_next(connection, debounce=debounce, settle=settle)

    assert await seconds() is None
    await source.run()
    assert 90 < (await seconds(debounce_s=100) or 0) <= 100
    await claim(engine)
    assert 120 < (await seconds(settle_s=10) or 0) <= 130


async def test_linking_another_workspace_starts_anew_and_fences_off_the_old(
    source: Source, engine: AsyncEngine
) -> None:
    run, other = await source.run(), await source.run()
    [lease, lease_of_other] = await claim(engine)
    async with engine.begin() as connection:
        lease = await queue.bind(
            connection, lease, Plan(), experiment_id="e", remote_run_id="r", portal_url="https://p"
        )
        await queries.save_experiment(
            connection, 0, link_id=lease.link_id, remote_experiment_id="e", remote_name="Default"
        )
    await finish(engine, lease, run)
    async with engine.begin() as connection:
        assert not await write_link(connection, Link(WORKSPACE_ID.upper())), "the same workspace"
        assert await write_link(connection, Link(WORKSPACE_ID + "2"))
    assert await claim(engine, workspace_id=WORKSPACE_ID) == []
    with pytest.raises(LeaseLost):
        await finish(engine, lease_of_other, other)
    mirror = await run.mirror()
    assert (mirror.state, mirror.watermark, mirror.info_watermark, mirror.remote_run_id) == ("due", 0, 0, None)
    assert {k: v for k, v in (await run.tags()).items() if k.startswith("runmirror.")} == {queue.STATUS_TAG: "pending"}
    with pytest.raises(LeaseLost):
        await finish(engine, lease_of_other, other)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM mirrored_experiments")) == 0


async def test_a_write_wakes_listeners_once_per_round(source: Source, engine: AsyncEngine) -> None:
    run = await source.run()
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        heard: list[str] = []
        assert raw.driver_connection is not None
        await raw.driver_connection.add_listener(CHANNEL, lambda *told: heard.append(told[2]))
        await run.log(params={"a": "1"})  # due already
        [lease] = await claim(engine)
        await finish(engine, lease, run)
        for key in "bcd":
            await run.log(params={key: "1"})
        async with asyncio.timeout(5):
            while not heard:
                await connection.execute(text("SELECT 1"))
    assert heard == [CHANNEL]


async def _until_blocked(engine: AsyncEngine) -> None:
    """Until another connection waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE NOT granted AND datname = current_database()"
    )
    async with asyncio.timeout(10), engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        while not await connection.scalar(waiting):
            await asyncio.sleep(0.01)


async def test_taking_runs_reads_no_more_the_more_are_due(source: Source, engine: AsyncEngine) -> None:
    """With hundreds of times as many runs due as it takes."""
    run = await source.run()
    await claim(engine)
    more = """
        WITH made AS (
            INSERT INTO runs (run_id, experiment_id, name, user_id, status, start_time_ms, artifact_uri)
            SELECT gen_random_uuid(), experiment_id, name, user_id, status, start_time_ms, artifact_uri
            FROM runs, generate_series(1, 2000) WHERE run_id = :run_id RETURNING run_id)
        INSERT INTO mirrors (run_id, link_id, backfill, unrouted)
        SELECT made.run_id, link_id, random() < 0.5, NULL FROM made, mirrors WHERE mirrors.run_id = :run_id
    """
    async with engine.begin() as connection:
        await connection.execute(text(more), {"run_id": run.run_id})
        await connection.execute(text("ANALYZE runs, mirrors"))
        values = {
            "workspace_id": WORKSPACE_ID,
            "ttl": TTL,
            "debounce": NOW,
            "settle": NOW,
            "turns": [],
            "most": 4,
            "step": 0.1,
        }
        for statement in (claims._CLAIM, claims._CLAIM_PAST):
            explain = text(f"EXPLAIN {statement % {'most': 4}}")
            plan = await connection.execute(explain, {name: values[name] for name in explain._bindparams})
            told = "\n".join(row[0] for row in plan)
            assert "Seq Scan on mirrors" not in told, told

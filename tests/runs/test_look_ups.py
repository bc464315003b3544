"""What the hot statements look up by a key costs one row, whatever the planner believes of the tables.

It believes the worst of a table that was empty when somebody analysed it: any index will do.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from runmirror.artifacts import queries, small_queries
from runmirror.artifacts.files import Written
from runmirror.artifacts.places import Place, Root
from runmirror.hot.connections import Connections
from runmirror.runs import hot_queries
from runmirror.runs.hot_columns import Point, Write, columns

MANY = 60
FEWEST = 4
FILE = Written(1, "0" * 32)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """As the hot way has them, over tables that were empty when they were analysed."""
    connections = Connections(database_url, most=1, statement_timeout=timedelta(seconds=30))
    async with connections.connection() as connection:
        await connection.execute("VACUUM ANALYZE")
        yield connection
    await connections.close()


async def new_run(connection: asyncpg.Connection) -> UUID:
    run_id = uuid4()
    await hot_queries.create(connection, ([run_id], [0], ["r"], ["u"], [1], [], [], []))
    return run_id


async def log(connection: asyncpg.Connection, run_id: UUID, points: Sequence[Point]) -> None:
    assert await hot_queries.log(connection, columns([Write(run_id, metrics=points)], fewest=FEWEST))


async def rows_read(connection: asyncpg.Connection) -> dict[str, int]:
    """By table, by way of any index and without one; by this transaction, and others before whose count is not told."""
    found = await connection.fetch("SELECT relname, seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables")
    return {row[0]: row[1] for row in found}


async def read_by(connection: asyncpg.Connection, call: Callable[[], Awaitable[object]]) -> dict[str, int]:
    """What one call reads once it was made often."""
    async with connection.transaction():
        before = await rows_read(connection)
        await call()
        return {table: count - before[table] for table, count in (await rows_read(connection)).items()}


def series(key: str, *, first_step: int, at: int) -> list[Point]:
    return [Point(key, float(n), at + n, first_step + n) for n in range(FEWEST)]


async def test_a_metric_among_many_of_its_run_is_found_at_once(connection: asyncpg.Connection) -> None:
    run_id = await new_run(connection)
    for step in range(2):
        for n in range(MANY):
            await log(connection, run_id, [Point(f"metric-{n}", 1.0, 1, step)])
    read = await read_by(connection, lambda: log(connection, run_id, [Point("metric-7", 1.0, 1, 9)]))
    assert 0 < read["latest_metrics"] <= 4, read
    read = await read_by(connection, lambda: log(connection, run_id, [Point("metric-0a", 1.0, 1, 9)]))  # a new one
    assert 0 < read["latest_metrics"] <= 4, read


async def test_a_chunk_is_looked_for_among_those_of_its_metric_and_time(connection: asyncpg.Connection) -> None:
    run_id = await new_run(connection)
    for n in range(MANY):
        await log(connection, run_id, series("loss", first_step=n * FEWEST, at=n * 1000))
        await log(connection, run_id, series("accuracy", first_step=n * FEWEST, at=n * 1000))
    # Steps that were there before, at a time that was not: first none, then one chunk has it.
    again = series("loss", first_step=0, at=MANY * 1000)
    read = await read_by(connection, lambda: log(connection, run_id, again))
    assert read["metric_chunks"] <= 1, read
    read = await read_by(connection, lambda: log(connection, run_id, again))
    assert 0 < read["metric_chunks"] <= 2 * (FEWEST + 1), read
    assert read["metrics"] <= FEWEST, read
    held = await connection.fetchval("SELECT count(*) FROM metric_points WHERE run_id = $1", run_id)
    assert held == (2 * MANY + 1) * FEWEST


async def test_a_file_among_many_of_its_run_is_found_at_once(connection: asyncpg.Connection) -> None:
    run_id = await new_run(connection)
    root = Root(run_id, "", "0/x/artifacts")
    for n in range(MANY):
        assert await small_queries.record_many(connection, [(Place(root, f"many-{n}"), FILE, 0)]) == [True]
        assert await queries.record_at_once(connection, Place(root, f"one-{n}"), FILE, expected=0)
    seq = await queries.seq_at_once(connection, Place(root, "one-7"))
    calls = {
        "its seq": lambda: queries.seq_at_once(connection, Place(root, "one-7")),
        "its owner": lambda: small_queries.owners(connection, [run_id], [None], ["one-7"]),
        "new, with others": lambda: small_queries.record_many(connection, [(Place(root, "many-7a"), FILE, 0)]),
        "new": lambda: queries.record_at_once(connection, Place(root, "one-7a"), FILE, expected=0),
        "again": lambda: queries.record_at_once(connection, Place(root, "one-7"), FILE, expected=seq),
    }
    for name, call in calls.items():
        read = await read_by(connection, call)
        assert read["artifacts"] <= 2, (name, read)
    assert await queries.seq_at_once(connection, Place(root, "one-7")) > seq
    assert await queries.seq_at_once(connection, Place(root, "one-")) == queries.NEVER  # comes right before others

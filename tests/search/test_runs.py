"""The search of runs on Postgres: what conformance with MLflow does not show, such as paging under writes."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.entities import ViewType
from runmirror.errors import InvalidParameter
from runmirror.runs.search import SearchPage, find, understand

Search = Callable[..., Awaitable[SearchPage]]


@pytest.fixture
def search(connection: AsyncConnection) -> Search:
    async def ask(**asked: Any) -> SearchPage:
        defaults = {
            "experiment_ids": ["7"], "filter_string": "", "run_view_type": ViewType.ACTIVE_ONLY, "max_results": 1000,
            "order_by": [], "page_token": None,
        }  # fmt: skip
        return await find(connection, understand(**{**defaults, **asked}))

    return ask


async def add_run(connection: AsyncConnection, start_time_ms: int, **fields: Any) -> uuid.UUID:
    run = {"run_id": uuid.uuid4(), "experiment_id": 7, "name": "a run", "status": "FINISHED"} | fields
    run |= {"start_time_ms": start_time_ms, "artifact_uri": "mlflow-artifacts:/7"}
    names = ", ".join(run)
    values = ", ".join(f":{name}" for name in run)
    await connection.execute(text(f"INSERT INTO runs ({names}) VALUES ({values})"), run)
    return run["run_id"]


async def add_metric(connection: AsyncConnection, run_id: uuid.UUID, value: float) -> None:
    row = {"run_id": run_id, "value": value}
    await connection.execute(text("INSERT INTO latest_metrics VALUES (:run_id, 'loss', 1, 1, 0, 0, :value)"), row)


async def test_new_runs_between_two_pages_make_no_run_appear_twice_or_never(
    connection: AsyncConnection, search: Search
) -> None:
    old = [await add_run(connection, start) for start in (1, 2, 2, 2, 3)]
    first = await search(max_results=2)
    await add_run(connection, 9)
    second = await search(max_results=2, page_token=first.next_page_token)
    await add_run(connection, 10)
    third = await search(max_results=2, page_token=second.next_page_token)
    given = first.run_ids + second.run_ids + third.run_ids
    assert len(given) == 5
    assert set(given) == set(old)
    assert third.next_page_token is None


async def test_a_run_deleted_between_two_pages_takes_no_other_with_it(
    connection: AsyncConnection, search: Search
) -> None:
    runs = [await add_run(connection, start) for start in (5, 4, 3, 2, 1)]
    first = await search(max_results=2)
    await connection.execute(
        text("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_id = :run_id"), {"run_id": runs[1]}
    )
    second = await search(max_results=3, page_token=first.next_page_token)
    assert first.run_ids + second.run_ids == runs


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_pages_pass_nan_and_missing_values_in_every_order(
    connection: AsyncConnection, search: Search, direction: str
) -> None:
    for start, value in enumerate([1.0, float("nan"), None, -1.0, float("nan"), None, 0.0, 1.0]):
        run_id = await add_run(connection, start)
        if value is not None:
            await add_metric(connection, run_id, value)
    order_by = [f"metrics.loss {direction}"]
    whole = (await search(order_by=order_by)).run_ids
    pages, token = [], None
    for _ in whole:
        page = await search(order_by=order_by, max_results=1, page_token=token)
        pages += page.run_ids
        token = page.next_page_token
    assert pages == whole
    assert token is None


async def test_a_token_serves_the_query_that_gave_it_however_it_is_spelled(
    connection: AsyncConnection, search: Search
) -> None:
    for start in range(4):
        await add_metric(connection, await add_run(connection, start), 1)
    token = (await search(filter_string="metrics.loss > 0", max_results=1)).next_page_token
    again = await search(filter_string="metric.`loss`  >  0", experiment_ids=["7", "07"], page_token=token)
    assert len(again.run_ids) == 3
    others: list[dict[str, Any]] = [
        {"filter_string": "metrics.loss > 1"}, {"order_by": ["run_id"]}, {"experiment_ids": ["8"]},
        {"run_view_type": ViewType.ALL}, {"filter_string": ""},
    ]  # fmt: skip
    for other in others:
        with pytest.raises(InvalidParameter, match="belongs to another search"):
            await search(**{"filter_string": "metrics.loss > 0", "page_token": token} | other)


@pytest.mark.parametrize("token", ["x", "W10=", "e30=", "bnVsbA==", "WzEsMiwzXQ==", "é", "W" * 9999, "W1tb" * 50_000])
async def test_a_token_that_is_none_is_refused(search: Search, token: str) -> None:
    with pytest.raises(InvalidParameter, match="page token"):
        await search(page_token=token)


async def test_a_deleted_tag_is_neither_found_nor_sorted_by(connection: AsyncConnection, search: Search) -> None:
    bare, deleted, tagged = [await add_run(connection, start) for start in (3, 2, 1)]
    rows = [{"run_id": deleted, "value": None}, {"run_id": tagged, "value": "x"}]
    await connection.execute(text("INSERT INTO tags VALUES (:run_id, 'a', :value, 1)"), rows)
    assert (await search(filter_string="tags.a IS NULL")).run_ids == [bare, deleted]
    assert (await search(filter_string="tags.a IS NOT NULL")).run_ids == [tagged]
    assert (await search(filter_string="tags.a != 'y'")).run_ids == [tagged]
    assert (await search(order_by=["tags.a"])).run_ids == [tagged, bare, deleted]


async def test_many_comparisons_find_what_few_do_and_are_planned_quickly(
    connection: AsyncConnection, search: Search
) -> None:
    """Postgres would take minutes to choose among fifty joins; the statement is given two seconds."""
    low, high = await add_run(connection, 1), await add_run(connection, 2)
    await add_metric(connection, low, 1)
    await add_metric(connection, high, 2)
    await connection.execute(text("SET LOCAL statement_timeout = '2s'"))
    found = await search(filter_string=" AND ".join(["metrics.loss > 1"] + ["tags.x IS NULL"] * 49))
    assert found.run_ids == [high]


async def test_a_search_is_one_statement(engine: AsyncEngine) -> None:
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    async with engine.connect() as connection:
        for order_by in ([], ["metrics.a", "params.b DESC", "tags.c", "end_time"]):
            statements.clear()
            asked = understand(
                experiment_ids=["7", "8"],
                filter_string="metrics.a > 1 AND params.b = 'x' AND dataset.name = 'd' AND run_id IN ('a', 'b')",
                run_view_type=ViewType.ALL,
                max_results=10,
                order_by=order_by,
                page_token=None,
            )
            await find(connection, asked)
            assert len(statements) == 1


async def test_the_default_order_reads_an_index_and_no_more_of_it_than_the_page(
    connection: AsyncConnection, search: Search
) -> None:
    rows = "SELECT gen_random_uuid(), 7, 'r', 'FINISHED', n, 'x' FROM generate_series(1, 20000) n"
    columns = "run_id, experiment_id, name, status, start_time_ms, artifact_uri"
    await connection.execute(text(f"INSERT INTO runs ({columns}) {rows}"))
    await connection.execute(text("ANALYZE runs"))
    first = await search(max_results=100)
    read_before = await _entries_read(connection)
    await search(max_results=100, page_token=first.next_page_token)
    assert 100 < await _entries_read(connection) - read_before < 300


async def _entries_read(connection: AsyncConnection) -> int:
    """Entries of the index of the default order that this transaction has read so far."""
    query = text("SELECT pg_stat_get_xact_tuples_returned('ix_runs_experiment_id_start_time_ms'::regclass)")
    return int((await connection.execute(query)).scalar_one())

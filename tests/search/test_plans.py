"""How Postgres goes about reads when other experiments hold far more: nothing of theirs is read through."""

import uuid
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.entities import ViewType
from runmirror.runs import history, queries
from runmirror.runs.search import find, understand

OTHERS = 30_000
LARGE = {"runs", "latest_metrics", "metrics", "metric_chunks", "params", "tags"}

_FILL = f"""
    CREATE TEMP TABLE made ON COMMIT DROP AS
    SELECT gen_random_uuid() AS run_id, n, CASE WHEN n <= {OTHERS} THEN 8 ELSE 7 END AS experiment_id
    FROM generate_series(1, {OTHERS} + 50) n;
    INSERT INTO runs (run_id, experiment_id, name, status, start_time_ms, artifact_uri)
    SELECT run_id, experiment_id, 'r', 'FINISHED', n, 'x' FROM made;
    INSERT INTO params (run_id, key, value, seq) SELECT run_id, 'lr', n % 3, 1 FROM made;
    INSERT INTO tags (run_id, key, value, seq) SELECT run_id, 'team', n % 3, 1 FROM made;
    INSERT INTO latest_metrics (run_id, key, metric_id, seq, step, timestamp_ms, value)
    SELECT run_id, 'loss', 1, 1, 0, 0, n FROM made;
    INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
    SELECT run_id, 1, 1, k, k, n FROM made, generate_series(1, 3) k;
    INSERT INTO tags (run_id, key, value, seq)
    SELECT run_id, 'mlflow.parentRunId', 'p' || n / 10, 1 FROM made;
    ANALYZE runs; ANALYZE params; ANALYZE tags; ANALYZE latest_metrics; ANALYZE metrics
"""


@pytest.fixture
async def filled(connection: AsyncConnection) -> AsyncConnection:
    for statement in _FILL.split(";\n"):
        for part in statement.split("; "):
            await connection.execute(text(part))
    return connection


async def plans(connection: AsyncConnection, engine: AsyncEngine, call: Any, *, ran: bool) -> list[dict[str, Any]]:
    """The nodes of the plans of all statements of `call`; with what they did, if they are to be `ran` again."""
    seen: list[tuple[str, Any]] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: seen.append((given[2], given[3])))
    await call()
    found: list[dict[str, Any]] = []
    taken = seen.copy()  # what explains them runs too
    for statement, parameters in taken:
        explain = f"EXPLAIN (FORMAT JSON{', ANALYZE, TIMING OFF' if ran else ''}) {statement}"
        answer = await connection.exec_driver_sql(explain, parameters)
        found += _nodes(answer.scalar_one()[0]["Plan"])
    assert found
    return found


async def read_through(connection: AsyncConnection, engine: AsyncEngine, call: Any) -> set[str]:
    """The large tables of which the statements of `call` read every row."""
    nodes = await plans(connection, engine, call, ran=False)
    return {node["Relation Name"] for node in nodes if _is_scan(node)} & LARGE


async def rows_read(connection: AsyncConnection, engine: AsyncEngine, call: Any) -> int:
    """How many rows the statements of `call` read from tables, those that a filter took away among them."""
    nodes = await plans(connection, engine, call, ran=True)
    read = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return round(sum(node["Actual Loops"] * node.get(n, 0) for node in nodes if "Relation Name" in node for n in read))


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for below in plan.get("Plans", ()) for node in _nodes(below))]


def _is_scan(node: dict[str, Any]) -> bool:
    return str(node["Node Type"]).endswith("Seq Scan")


@pytest.mark.parametrize("order_by", [[], ["metrics.loss DESC"], ["params.lr", "tags.team DESC"], ["run_name"]])
@pytest.mark.parametrize("asked", ["", "metrics.loss > 3 and params.lr = '1'", "tags.team != '2' and params.x IS NULL"])
async def test_a_search_reads_through_no_table(
    filled: AsyncConnection, engine: AsyncEngine, asked: str, order_by: list[str]
) -> None:
    async def search() -> None:
        wanted = understand(
            experiment_ids=["7"], filter_string=asked, run_view_type=ViewType.ACTIVE_ONLY, max_results=20,
            order_by=order_by, page_token=None,
        )  # fmt: skip
        page = await find(filled, wanted)
        assert page.run_ids

    assert await read_through(filled, engine, search) == set()


@pytest.mark.parametrize(
    ("asked", "order_by"),
    [
        ("metrics.loss > 3 and params.lr = '1'", ["metrics.loss DESC"]),
        ("metrics.loss < 29000 and params.lr = '1' and tags.team = '1'", ["metrics.loss"]),
        ("params.lr = '1' and tags.team != '2'", []),
        ("", ["metrics.loss DESC", "params.lr"]),
        ("metrics.loss > 29900 and params.lr = '1'", ["run_name"]),
        ("tags.mlflow.parentRunId = 'p7'", ["params.lr"]),
        ("metrics.loss <= 100 and metrics.loss >= 50", ["metrics.other DESC"]),
    ],
)
async def test_a_page_of_a_large_experiment_costs_a_page(
    filled: AsyncConnection, engine: AsyncEngine, asked: str, order_by: list[str]
) -> None:
    async def search() -> None:
        wanted = understand(
            experiment_ids=["8"], filter_string=asked, run_view_type=ViewType.ACTIVE_ONLY, max_results=10,
            order_by=order_by, page_token=None,
        )  # fmt: skip
        page = await find(filled, wanted)
        assert len(page.run_ids) == 10

    assert await rows_read(filled, engine, search) < OTHERS / 5


async def test_pages_of_runs_and_histories_read_through_no_table(filled: AsyncConnection, engine: AsyncEngine) -> None:
    found = await filled.execute(text("SELECT run_id FROM runs WHERE experiment_id = 7"))
    ids = [uuid.UUID(str(row.run_id)) for row in found]

    async def read() -> None:
        assert len(await queries.load_json(filled, ids[:20])) == 20
        points, _ = await history.page(filled, ids[0], "loss", max_results=2, page_token="")
        assert len(points.values) == 2

    assert await read_through(filled, engine, read) == set()

"""Whichever way a search takes, it finds the same runs in the same order."""

import random
import uuid

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import LifecycleStage
from runmirror.runs import search_choice, search_ways
from runmirror.runs.search_ways import Asked
from runmirror.search.languages import RUNS
from runmirror.search.parser import parse_filter, parse_order_by

PAGE = 7
FILTERS = (
    "", "metrics.a > 0", "metrics.a != 1", "metrics.b <= 1", "metrics.a = 1", "params.p = 'x'", "params.p LIKE 'x%'",
    "params.p IS NULL", "tags.t != 'x'", "tags.mlflow.parentRunId = 'x'", "status = 'FINISHED'", "start_time > 1",
)  # fmt: skip
ORDERS: tuple[list[str], ...] = (
    [], ["metrics.a"], ["metrics.a DESC"], ["metrics.b DESC", "metrics.a"], ["metrics.a", "params.p DESC"],
    ["start_time"], ["start_time DESC", "metrics.a DESC"], ["params.p"], ["tags.t DESC", "metrics.a"], ["run_name"],
    ["end_time DESC", "run_id"],
)  # fmt: skip


def runs(chosen: random.Random) -> list[dict[str, object]]:
    """Values that tie, are missing, NaN or infinite; runs that are deleted; a param too long for the index."""
    numbers = [None, 0.0, 1.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf")]
    texts = [None, "x", "x", "xy", "x" * 300]
    return [
        {
            "run_id": uuid.UUID(int=chosen.getrandbits(128)), "experiment": chosen.choice([7, 8, 9]),
            "name": chosen.choice("xy"), "start": chosen.randrange(3), "end": chosen.choice([None, 1, 2]),
            "stage": chosen.choice(["active", "active", "deleted"]), "status": chosen.choice(["FINISHED", "RUNNING"]),
            "a": chosen.choice(numbers), "b": chosen.choice(numbers), "p": chosen.choice(texts),
            "t": chosen.choice(texts), "parent": chosen.choice(texts),
        }
        for _ in range(120)
    ]  # fmt: skip


async def add(connection: AsyncConnection, rows: list[dict[str, object]]) -> None:
    await connection.execute(
        text("""
            INSERT INTO runs (run_id, experiment_id, name, status, start_time_ms, end_time_ms, lifecycle_stage,
                              artifact_uri)
            VALUES (:run_id, :experiment, :name, :status, :start, :end, :stage, '')
        """),
        rows,
    )
    metric = "INSERT INTO latest_metrics (run_id, key, metric_id, seq, step, timestamp_ms, value) VALUES (:run_id, "
    for number, key in enumerate("ab"):
        some = [row for row in rows if row[key] is not None]
        await connection.execute(text(f"{metric} '{key}', {number}, 1, 0, 0, :{key})"), some)
    for table, name, key in (("params", "p", "p"), ("tags", "t", "t"), ("tags", "parent", "mlflow.parentRunId")):
        some = [row for row in rows if row[name] is not None]
        insert = f"INSERT INTO {table} (run_id, key, value, seq) VALUES (:run_id, '{key}', :{name}, 1)"
        await connection.execute(text(insert), some)


def asked(chosen: random.Random) -> Asked:
    comparisons = " and ".join(chosen.sample(FILTERS[1:], chosen.randrange(3)))
    keys = parse_order_by(chosen.choice(ORDERS), RUNS)
    stage = chosen.choice([LifecycleStage.ACTIVE, LifecycleStage.ACTIVE, LifecycleStage.DELETED, None])
    experiments = chosen.choice([(7,), (7,), (7, 8)])
    return Asked(experiments, stage, parse_filter(comparisons, RUNS), keys, None, 1000)


@pytest.mark.parametrize("few", [0, 10, 1000])
async def test_every_way_finds_the_same_runs_page_by_page(
    connection: AsyncConnection, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    chosen = random.Random(seed)
    monkeypatch.setattr(search_choice, "FEW", few)
    monkeypatch.setattr(search_choice, "_COUNTED_S", 0)
    search_choice._remembered.cache_clear()
    await add(connection, runs(chosen))
    for _ in range(40):
        whole = asked(chosen)
        expected = [tuple(row) for row in await connection.execute(search_ways.of_all(whole))]
        found: list[tuple[object, ...]] = []
        last = None
        while True:
            page = Asked(whole.experiments, whole.stage, whole.comparisons, whole.keys, last, PAGE)
            rows = await search_choice.fetch(connection, page, remember=chosen.random() < 0.7)
            found += [tuple(row) for row in rows]
            if len(rows) < PAGE:
                break
            last = tuple(rows[-1][2:])
        assert repr(found) == repr(expected), whole  # NaN differs from itself

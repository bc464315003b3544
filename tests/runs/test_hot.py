"""The hot way of writes: what it accepts, it does as the ordinary way; everything else it leaves to that."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.errors import Busy
from runmirror.hot import together as together_of_hot
from runmirror.hot.together import Together

API = "/api/2.0/mlflow"
HOT = {"Content-Type": "application/json"}
ORDINARY = {"Content-Type": "application/json; charset=utf-8"}  # the hot way wants it without a charset


async def new_run(client: httpx.AsyncClient, headers: dict[str, str] = HOT) -> str:
    answer = await client.post(f"{API}/runs/create", json={"experiment_id": "0", "start_time": 1}, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["run"]["info"]["run_id"])


async def post(client: httpx.AsyncClient, path: str, body: Any, headers: dict[str, str] = HOT) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else None
    answer = await client.post(API + path, content=content, json=None if content is not None else body, headers=headers)
    return answer.status_code, answer.json()


async def stored(engine: AsyncEngine, run_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """Everything Postgres holds of a run, but its id, names and times of writing."""
    found = {}
    async with engine.connect() as connection:
        for what, query in {
            "run": "SELECT seq, info_seq, status, lifecycle_stage FROM runs WHERE run_id = :run_id",
            "metrics": "SELECT metric_id, seq, step, timestamp_ms, value::text FROM metric_points"
            " WHERE run_id = :run_id ORDER BY 1, 3, 4, 5",
            "latest": "SELECT key, metric_id, seq, step, timestamp_ms, value::text FROM latest_metrics"
            " WHERE run_id = :run_id ORDER BY 1",
            "params": "SELECT key, value, seq FROM params WHERE run_id = :run_id ORDER BY 1",
            "tags": "SELECT key, value, seq FROM tags WHERE run_id = :run_id AND key <> 'mlflow.runName' ORDER BY 1",
            "mirror": "SELECT state, waiting, backfill, unrouted, due_at > now(), behind_since IS NULL, lease_token"
            " FROM mirrors WHERE run_id = :run_id",
        }.items():
            rows = await connection.execute(text(query), {"run_id": UUID(run_id)})
            found[what] = [tuple(row) for row in rows]
    return found


def point(key: str, value: Any, timestamp: int, step: int = 0) -> dict[str, Any]:
    return {"key": key, "value": value, "timestamp": timestamp, "step": step}


WRITES: list[tuple[str, dict[str, Any]]] = [
    ("/runs/log-metric", point("loss", 0.5, 10, 1)),
    ("/runs/log-metric", point("loss", 0.4, 10, 1)),  # lower at the same place: not the latest
    ("/runs/log-metric", point("loss", 0.5, 10, 1)),  # an exact repeat
    ("/runs/log-metric", {"key": "loss", "value": 7, "timestamp": 3}),
    ("/runs/log-metric", point("loss", -0.0, 11, 1)),
    ("/runs/log-metric", point("loss", 0.0, 11, 1)),  # the same value to Postgres
    ("/runs/log-metric", point("loss", 0.25, 11, 1)),  # higher at the same place: the latest
    ("/runs/log-metric", point("loss", "NaN", 11, 1)),
    ("/runs/log-metric", point("loss", -1.0, 12, 1)),  # later at the same step
    ("/runs/log-metric", point("nan", "NaN", 1, 1)),
    ("/runs/log-metric", point("nan", -1.0, 1, 1)),  # NaN counts as 0
    ("/runs/log-metric", point("nan", 1.0, 1, 1)),
    ("/runs/log-batch", {  # one point each: before the latest, later, the same again, of new metrics
        "metrics": [point("z", 1.0, 1), point("loss", 9.0, 1, -1), point("big", -1e300, 5, 5),
                    point("nan", 1.0, 1, 1), point("a", "Infinity", 1)],
    }),
    ("/runs/log-metric", point("big", 1e300, 2**63 - 1, -(2**63))),
    ("/runs/log-parameter", {"key": "lr", "value": "0.1"}),
    ("/runs/log-parameter", {"key": "lr", "value": "0.1"}),
    ("/runs/log-parameter", {"key": "empty"}),
    ("/runs/set-tag", {"key": "team", "value": "a"}),
    ("/runs/set-tag", {"key": "team", "value": "ü"}),
    ("/runs/log-batch", {
        "metrics": [point("new", 1.0, 5, 2), point("loss", 0.1, 12, 9), point("new", 3.0, 5, 2),
                    point("new", 2.0, 9, 1)],
        "params": [{"key": "depth", "value": "3"}, {"key": "lr", "value": "0.1"}],
        "tags": [{"key": "team", "value": "b"}, {"key": "stage", "value": ""}],
    }),
    ("/runs/log-batch", {}),
    ("/runs/log-batch", {"metrics": [point(f"m{n % 7}", n / 3, n, n) for n in range(300)]}),
    ("/runs/log-batch", {"metrics": [point(f"m{n % 7}", n / 3, n, n) for n in range(299, 0, -1)]}),  # repeats
    ("/runs/log-batch", {"metrics": [point(f"m{n % 9}", n / 3, n, n) for n in range(200, 400)]}),  # some repeats
]  # fmt: skip


async def test_the_hot_way_stores_what_the_ordinary_way_stores(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    hot, ordinary = await new_run(client), await new_run(client, ORDINARY)
    for path, body in WRITES:
        assert await post(client, path, {"run_id": hot, **body}) == (200, {})
        assert await post(client, path, {"run_id": ordinary, **body}, ORDINARY) == (200, {})
        assert await stored(engine, hot) == await stored(engine, ordinary), (path, body)


async def test_each_point_is_stored_once_whichever_way_and_with_whichever_others_it_comes(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    run_id = await new_run(client)
    expected: set[tuple[str, int, int, float]] = set()
    for _ in range(60):
        first, rewound = dice.randrange(0, 400, 5), dice.random() < 0.2
        count = dice.choice([1, 5, 20, 40])
        times = dice.choice([first * 10, 0, 3000])  # as steps go, all at once, or as if resumed
        written = [
            point(key, (step % 7) / 7 * dice.choice([1, 1, 1, -1]), times + dice.choice([0, step]), step)
            for step in range(first, first + count) for key in ("loss", "acc")[: dice.randint(1, 2)]
        ]  # fmt: skip
        if rewound:
            written += dice.choices(written, k=count // 2)
        expected |= {(p["key"], p["step"], p["timestamp"], p["value"]) for p in written}
        ways = [HOT] if dice.random() < 0.7 else [HOT, ORDINARY, HOT] if dice.random() < 0.5 else [ORDINARY]
        for way in ways:
            answer = await post(client, "/runs/log-batch", {"run_id": run_id, "metrics": written}, way)
            assert answer == (200, {})
    held = await stored(engine, run_id)
    keys = {metric_id: key for key, metric_id, *_ in held["latest"]}
    points = [(keys[metric_id], step, time, float(value)) for metric_id, _, step, time, value in held["metrics"]]
    assert sorted(points) == sorted(expected)
    newest = {key: max(p[1:] for p in points if p[0] == key) for key in keys.values()}
    assert {key: (step, time, float(value)) for key, _, _, step, time, value in held["latest"]} == newest
    for key in newest:
        wanted = sorted(p[1:] for p in expected if p[0] == key)
        for size in (7, 50, 25_000):
            told, token = list[tuple[int, int, float]](), ""
            while not told or token:
                asked = {"run_id": run_id, "metric_key": key, "max_results": size, "page_token": token}
                answer = (await client.get(f"{API}/metrics/get-history", params=asked)).json()
                assert len(answer["metrics"]) <= size
                told += [(p["timestamp"], p["step"], p["value"]) for p in answer["metrics"]]
                token = answer.get("next_page_token", "")
            assert told == sorted((time, step, value) for step, time, value in wanted)
    async with engine.connect() as connection:
        chunks = await connection.scalar(text("SELECT count(*) FROM metric_chunks"))
    assert chunks > 5


@pytest.mark.parametrize(
    "body",
    [
        b'{"run_id":"%s","key":"loss","value":"NaN","timestamp":1}',
        b'{"run_id":"%s","key":"loss","value":"Infinity","timestamp":1}',
        b'{"run_id":"%s","key":"loss","value":NaN,"timestamp":1}',
        b'{"run_id":"%s","key":"loss","value":1e999,"timestamp":1}',
        b'{"run_id":"%s","key":"loss","value":true,"timestamp":1}',
        b'{"run_id":"%s","key":"loss","value":"0.5","timestamp":"7","step":"8"}',
        b'{"run_id":"%s","key":"loss","value":1,"timestamp":1.0}',
        b'{"run_id":"%s","key":"loss","value":1,"timestamp":1.5}',
        b'{"run_id":"%s","key":"loss","value":1,"timestamp":-1}',
        b'{"run_id":"%s","key":"loss","value":1,"timestamp":9223372036854775808}',
        b'{"run_id":"%s","key":"loss","value":1,"timestamp":1,"step":null}',
        b'{"run_id":"%s","key":"loss","value":null,"timestamp":1}',
        b'{"run_id":"%s","key":"loss","value":1}',
        b'{"run_id":"%s","key":"a/../b","value":1,"timestamp":1}',
        b'{"run_id":"%s","key":"","value":1,"timestamp":1}',
        b'{"run_id":"%s","key":"a\\u0000","value":1,"timestamp":1}',
        b'{"run_id":"%s","key":"a\\ud800","value":1,"timestamp":1}',
        b'{"run_id":"%s","key":"a\xff","value":1,"timestamp":1}',
        b'{"run_id":"%s","key":"loss","value":1,"timestamp":1,"model_id":"m-unknown"}',
        b'{"run_id":"%s","key":"loss","value":1,"timestamp":1,"dataset_name":"d"}',
        b'{"run_uuid":"%s","key":"loss","value":1,"timestamp":1}',
        b'{"run_id":"","run_uuid":"%s","key":"loss","value":1,"timestamp":1}',
        b'{"run_id":"%s","key":"x","key":"loss","value":1,"timestamp":1,"other":[{}]}',
        b'{"run_id":"%s","key":"loss","value":1,"timestamp":1} trailing',
        b'\xef\xbb\xbf{"run_id":"%s","key":"loss","value":1,"timestamp":1}',
        b'{"run_id":"00000000000000000000000000000000","key":"%.3s","value":1,"timestamp":1}',
        b'{"run_id":"%s","key":"loss","value":1,"timestamp":1,"other":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'["%s"]',
        b"%.0s",
    ],
)
async def test_whatever_a_request_looks_like_both_ways_answer_and_store_the_same(
    client: httpx.AsyncClient, engine: AsyncEngine, body: bytes
) -> None:
    hot, ordinary = await new_run(client), await new_run(client)
    ours = await post(client, "/runs/log-metric", body % hot.encode())
    theirs = await post(client, "/runs/log-metric", body % ordinary.encode(), ORDINARY)
    assert (ours[0], str(ours[1]).replace(hot, "")) == (theirs[0], str(theirs[1]).replace(ordinary, ""))
    assert await stored(engine, hot) == await stored(engine, ordinary)


async def test_runs_are_created_alike(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    body = {
        "experiment_id": "0", "start_time": 5, "user_id": "u", "run_name": "named",
        "tags": [{"key": "z", "value": "1"}, {"key": "a"}, {"key": "z", "value": "2"}, {"key": "Ü", "value": '"\\'}],
    }  # fmt: skip
    answers = [(await post(client, "/runs/create", body, headers))[1]["run"] for headers in (HOT, ORDINARY)]
    ids = [answer["info"].pop("run_id") for answer in answers]
    for answer, run_id in zip(answers, ids, strict=True):
        assert answer["info"].pop("run_uuid") == run_id
        assert answer["info"].pop("artifact_uri") == f"mlflow-artifacts:/0/{run_id}/artifacts"
    assert answers[0] == answers[1]
    assert await stored(engine, ids[0]) == await stored(engine, ids[1])
    refused_bodies: list[dict[str, Any]] = [
        {"experiment_id": "77"},
        {"experiment_id": "x"},
        {**body, "run_name": "other", "tags": [{"key": "mlflow.runName", "value": "another"}]},
        {"experiment_id": "0", "tags": [{"key": "k" * 251}]},
    ]
    for refused in refused_bodies:
        assert await post(client, "/runs/create", refused) == await post(client, "/runs/create", refused, ORDINARY)


async def test_a_new_run_may_be_created_in_the_workspace_without_a_search_either_way(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    hot, ordinary = await new_run(client), await new_run(client, ORDINARY)
    [mirror] = (await stored(engine, hot))["mirror"]
    assert [mirror] == (await stored(engine, ordinary))["mirror"]
    assert (mirror[:3], mirror[3], mirror[6].int) == (("due", False, False), "live", 1), "the token of nobody"


@pytest.mark.parametrize("headers", [HOT, ORDINARY], ids=["hot", "ordinary"])
@pytest.mark.parametrize(
    ("state", "waiting", "backfill", "after", "is_later", "status"),
    [
        ("current", False, False, "due", True, "pending"),
        ("due", False, False, "due", True, "mirrored"),  # after a failure: the pause is not cut short
        ("due", True, False, "due", False, "pending"),
        ("due", False, True, "due", True, "pending"),
        ("due", True, True, "due", False, "pending"),
        ("leased", False, False, "leased", True, "mirrored"),
        ("leased", False, True, "leased", True, "mirrored"),
        ("quarantined", False, False, "quarantined", True, "mirrored"),
        ("quarantined", False, True, "quarantined", True, "mirrored"),
        ("off", False, False, "off", True, "mirrored"),
    ],
)
async def test_the_mirror_hears_of_every_write(
    client: httpx.AsyncClient, engine: AsyncEngine, headers: dict[str, str], *, state: str, waiting: bool,
    backfill: bool, after: str, is_later: bool, status: str,
) -> None:  # fmt: skip
    writes: list[tuple[str, dict[str, Any]]] = [
        ("/runs/log-metric", point("loss", 1, 1)),
        ("/runs/log-parameter", {"key": "lr", "value": "1"}),
        ("/runs/set-tag", {"key": "team", "value": "a"}),
        ("/runs/log-batch", {}),
    ]
    runs = [await new_run(client) for _ in writes]
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE mirrors SET state = :state, waiting = :waiting, backfill = :backfill, unrouted = NULL,"
                 " behind_since = NULL, due_at = now() + interval '1 hour'"),
            {"state": state, "waiting": waiting, "backfill": backfill},
        )  # fmt: skip
        await connection.execute(text("INSERT INTO tags SELECT run_id, 'runmirror.status', 'mirrored', 0 FROM mirrors"))
    for run_id, (path, body) in zip(runs, writes, strict=True):
        assert await post(client, path, {"run_id": run_id, **body}, headers) == (200, {})
        kept = await stored(engine, run_id)
        [mirror] = kept["mirror"]
        assert mirror[:6] == (after, waiting and after != "due", False, None, is_later, state != "current"), path
        assert ("runmirror.status", status, 0) in kept["tags"], path


@pytest.mark.parametrize("key", ["runmirror.workspace", "runmirror.mirror"])
async def test_a_tag_that_says_where_a_run_goes_has_that_decided_anew(
    client: httpx.AsyncClient, engine: AsyncEngine, key: str
) -> None:
    tag = {"key": key, "value": "off"}
    other = {"key": "team", "value": "off"}
    created = await post(client, "/runs/create", {"experiment_id": "0", "tags": [tag]})
    run_id = created[1]["run"]["info"]["run_id"]
    assert (await stored(engine, run_id))["mirror"][0][3] == "live"
    writes: list[tuple[str, dict[str, Any], str | None]] = [
        ("/runs/set-tag", other, None),
        ("/runs/set-tag", tag, "live"),
        ("/runs/log-batch", {"tags": [other], "params": [{"key": key, "value": "1"}]}, None),
        ("/runs/log-batch", {"tags": [other, tag]}, "live"),
        ("/runs/delete-tag", {"key": "team"}, None),
        ("/runs/delete-tag", {"key": key}, "live"),
    ]
    for path, body, unrouted in writes:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE mirrors SET unrouted = NULL"))
        assert await post(client, path, {"run_id": run_id, **body}) == (200, {})
        assert (await stored(engine, run_id))["mirror"][0][3] == unrouted, (path, body)


async def test_a_run_that_the_mirror_finishes_while_a_write_waits_for_it_is_marked_behind(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """Or its last points would never reach the workspace: the write must see the state after its wait."""
    run_id = await new_run(client)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE mirrors SET state = 'leased'"))
    async with engine.begin() as mirror:
        await mirror.execute(text("SELECT seq FROM runs FOR NO KEY UPDATE"))
        write = asyncio.create_task(post(client, "/runs/log-metric", {"run_id": run_id, **point("loss", 1, 1)}))
        async with engine.connect() as watching:
            while not await watching.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                assert not write.done()
        await mirror.execute(text("UPDATE mirrors SET state = 'current', behind_since = NULL"))
    assert await write == (200, {})
    [mirror] = (await stored(engine, run_id))["mirror"]
    assert (mirror[0], mirror[5]) == ("due", False)


async def test_of_writes_that_arrive_together_each_gets_its_own_answer(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    runs = [await new_run(client) for _ in range(4)]
    deleted = await new_run(client)
    await post(client, "/runs/delete", {"run_id": deleted})
    await post(client, "/runs/log-parameter", {"run_id": runs[0], "key": "p", "value": "1"})
    answers = await asyncio.gather(
        *(post(client, "/runs/log-metric", {"run_id": run, **point("loss", n, n)}) for run in runs for n in range(9)),
        post(client, "/runs/log-metric", {"run_id": deleted, **point("loss", 1, 1)}),
        post(client, "/runs/log-metric", {"run_id": "0" * 32, **point("loss", 1, 1)}),
        post(client, "/runs/log-parameter", {"run_id": runs[0], "key": "p", "value": "2"}),
        post(client, "/runs/log-parameter", {"run_id": runs[1], "key": "q", "value": "1"}),
        post(client, "/runs/log-parameter", {"run_id": runs[1], "key": "q", "value": "2"}),
        post(client, "/runs/set-tag", {"run_id": runs[1], "key": "t", "value": "1"}),
        post(client, "/runs/set-tag", {"run_id": runs[1], "key": "t", "value": "2"}),
    )
    assert [status for status, _ in answers[:36]] == [200] * 36
    assert [status for status, _ in answers[36:39]] == [400, 404, 400]
    assert "must be in the 'active' state" in answers[36][1]["message"]
    assert sorted(status for status, _ in answers[39:41]) == [200, 400]
    assert [status for status, _ in answers[41:]] == [200, 200]
    for run in runs:
        kept = await stored(engine, run)
        assert [(row[3], row[4]) for row in kept["metrics"]] == [(n, str(n)) for n in range(9)]
        assert kept["run"][0][0] <= 13  # as many steps as writes, or fewer


async def test_what_failed_together_is_sent_again_by_halves() -> None:
    sent: list[list[int]] = []

    async def send(items: Sequence[int]) -> Sequence[int]:
        sent.append(list(items))
        await asyncio.sleep(0)
        if 3 in items:
            raise ValueError("three")
        return [item * 2 for item in items]

    together = Together[int, int](send, repeatable=(ValueError,), lanes=1, most=10, most_waiting=100)
    answers = await asyncio.gather(*(together.write(n, key=n) for n in range(5)), return_exceptions=True)
    assert [*answers[:3], answers[4]] == [0, 2, 4, 8]
    assert isinstance(answers[3], ValueError)
    assert sent == [[0, 1, 2, 3, 4], [0, 1], [2, 3, 4], [2], [3, 4], [3], [4]]
    await together.close()


async def test_writes_of_one_run_keep_their_order_and_no_lane_waits_for_another() -> None:
    under_way: set[str] = set()
    order: list[tuple[str, int]] = []

    async def send(items: Sequence[tuple[str, int]]) -> Sequence[None]:
        keys = {key for key, _ in items}
        assert not keys & under_way
        under_way.update(keys)
        await asyncio.sleep(0.001)
        under_way.difference_update(keys)
        order.extend(items)
        return [None] * len(items)

    together = Together[tuple[str, int], None](send, repeatable=(), lanes=3, most=4, most_waiting=1000)
    items = [(f"run-{n % 5}", n) for n in range(200)]
    await asyncio.gather(*(together.write(item, key=item[0]) for item in items))
    for key in {key for key, _ in items}:
        assert [item for item in order if item[0] == key] == [item for item in items if item[0] == key]
    late = [await together.write(("run-0", n), key="run-0") for n in range(50)]  # one at a time: none is forgotten
    assert late == [None] * 50


async def test_only_what_is_worth_a_lane_has_another_one_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together_of_hot, "_LONG_S", 60.0)
    sent: list[list[int]] = []
    release = asyncio.Event()

    async def send(items: Sequence[int]) -> Sequence[int]:
        sent.append(list(items))
        await release.wait()
        return items

    together = Together[int, int](send, repeatable=(), lanes=2, most=100, most_waiting=100, worth=10)
    writes = []
    for number, weight in enumerate((1, 2, 3, 5, 1)):
        writes.append(asyncio.create_task(together.write(number, key=number, weight=weight)))
        for _ in range(5):
            await asyncio.sleep(0)
        assert sent == ([[0]] if number < 3 else [[0], [1, 2, 3]])  # 2 + 3 + 5 are worth it, the last 1 is not
    release.set()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*writes) == list(range(5))
    assert sent == [[0], [1, 2, 3], [4]]
    await together.close()


async def test_a_lane_that_is_held_up_holds_up_no_other_write() -> None:
    release = asyncio.Event()

    async def send(items: Sequence[int]) -> Sequence[int]:
        if 0 in items:
            await release.wait()
        return items

    together = Together[int, int](send, repeatable=(), lanes=2, most=100, most_waiting=100, worth=10)
    held_up = asyncio.create_task(together.write(0, key=0))
    for _ in range(5):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert [await together.write(n, key=n) for n in range(1, 4)] == [1, 2, 3]
        assert not held_up.done()
        release.set()
        assert await held_up == 0
    await together.close()


async def test_too_many_waiting_writes_are_told_to_come_again() -> None:
    release = asyncio.Event()

    async def send(items: Sequence[int]) -> Sequence[int]:
        await release.wait()
        return items

    together = Together[int, int](send, repeatable=(), lanes=1, most=1, most_waiting=3)
    first = [asyncio.create_task(together.write(n, key=n)) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await together.write(9, key=9)
    release.set()
    assert await asyncio.gather(*first) == [0, 1, 2]
    release.clear()
    heavy = Together[int, int](send, repeatable=(), lanes=1, most=1, most_waiting=9, most_weight=3000)
    first = [asyncio.create_task(heavy.write(n, key=n, weight=1000)) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await heavy.write(9, key=9, weight=1000)
    first += [asyncio.create_task(heavy.write(2, key=2)), asyncio.create_task(heavy.write(3, key=3, weight=400))]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await heavy.write(9, key=9, weight=300)
    release.set()
    assert await asyncio.gather(*first) == [0, 1, 2, 3]
    assert await heavy.write(9, key=9) == 9


async def test_a_run_that_somebody_holds_on_to_does_not_hold_up_the_others(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    held = [await new_run(client) for _ in range(3)]
    free = await new_run(client)
    async with engine.begin() as holder:
        locked = "SELECT seq FROM runs WHERE run_id = ANY(CAST(:ids AS uuid[])) FOR NO KEY UPDATE"
        await holder.execute(text(locked), {"ids": held})
        waiting = [
            asyncio.create_task(post(client, "/runs/log-metric", {"run_id": run, **point("loss", 1, 1)}))
            for run in held
        ]
        assert await post(client, "/runs/log-metric", {"run_id": free, **point("loss", 1, 1)}) == (200, {})
        assert not any(task.done() for task in waiting)
    assert await asyncio.gather(*waiting) == [(200, {})] * 3

"""The hot way of searches answers what the ordinary way answers, and leaves to that what is not plainly in order."""

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from sqlalchemy import event

from runmirror.app import create_app
from runmirror.runs import search_choice
from runmirror.settings import Settings

PATH = "/api/2.0/mlflow/runs/search"
HOT = {"Content-Type": "application/json"}
ORDINARY = {"Content-Type": "application/json; charset=utf-8"}  # the hot way wants it without a charset

PLAIN: list[dict[str, Any]] = [
    {"experiment_ids": ["0"]},
    {"experiment_ids": ["0", "1", "1", "99"], "max_results": 3},
    {"experiment_ids": ["0"], "filter": "metrics.m > 1 and params.p = 'x'", "order_by": ["metrics.m DESC"]},
    {"experiment_ids": ["0"], "filter": "params.p = 'ü'", "order_by": ["params.q", "start_time ASC"]},
    {"experiment_ids": ["0"], "filter": "metrics.m > 99"},
    {"experiment_ids": ["0", "1"], "run_view_type": "ALL", "order_by": ["metrics.m"], "max_results": 4},
    {"experiment_ids": ["0"], "run_view_type": "DELETED_ONLY"},
    {"experiment_ids": []},
    {},
]
LEFT: list[bytes] = [
    b'{"experiment_ids":["0"],"unheard_of":[{"a":null}]}',
    b'{"experiment_ids":["0"],"unheard_of":"\xff"}',
    b'{"experiment_ids":["0"],"unheard_of":' + b"1" * 5000 + b"}",
    b'{"experiment_ids":["0"],"unheard_of":' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"experiment_ids":["0f8fad5b-d9cb-469f-a165-70867728950e"]}',
    b'{"experiment_ids":["0"],"max_results":"2"}',
    b'{"experiment_ids":["0"],"max_results":true}',
    b'{"experiment_ids":["0"],"max_results":null,"filter":null}',
    b'{"experiment_ids":["0"],"max_results":0}',
    b'{"experiment_ids":["0"],"max_results":50001}',
    b'{"experiment_ids":["0"],"max_results":9223372036854775808}',
    b'{"experiment_ids":["0"],"run_view_type":3}',
    b'{"experiment_ids":["0"],"run_view_type":"SOME"}',
    b'{"experiment_ids":"0"}',
    b'{"experiment_ids":["x"]}',
    b'{"experiment_ids":["0"],"filter":"metrics.m >"}',
    b'{"experiment_ids":["0"],"filter":"params.p = \'a\\u0000\'"}',
    b'{"experiment_ids":["0"],"filter":"params.p = \'\\ud800\'"}',
    b'{"experiment_ids":["0"],"order_by":["metrics.m","metrics.m"]}',
    b'{"experiment_ids":["0"],"page_token":"bm9uZQ=="}',
    b'{"experiment_ids":["0"],"other":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"experiment_ids":["0"]} trailing',
    b'["0"]',
    b"",
]


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    assert settings.database_url is not None
    made = create_app(settings, settings.database_url)
    async with LifespanManager(made):
        yield made


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as made:
        yield made


async def fill(client: httpx.AsyncClient) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    await client.post("/api/2.0/mlflow/experiments/create", json={"name": "second"})
    for number in range(24):
        made = {"experiment_id": dice.choice("01"), "start_time": dice.randrange(3)}
        run_id = (await client.post("/api/2.0/mlflow/runs/create", json=made)).json()["run"]["info"]["run_id"]
        metrics = [{"key": "m", "value": dice.choice([0, 1.5, 2, -1, "NaN"]), "timestamp": 1}] * dice.randrange(2)
        params = [{"key": key, "value": dice.choice(["x", "ü", "z"])} for key in "pq" if dice.random() < 0.7]
        logged = {"run_id": run_id, "metrics": metrics, "params": params}
        assert (await client.post("/api/2.0/mlflow/runs/log-batch", json=logged)).status_code == 200
        if number % 5 == 4:
            await client.post("/api/2.0/mlflow/runs/delete", json={"run_id": run_id})


async def search(client: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, str]:
    answer = await client.post(PATH, content=body, headers=headers)
    return answer.status_code, answer.content, answer.headers["Content-Type"]


async def test_both_ways_give_the_same_bytes_page_by_page(client: httpx.AsyncClient, app: FastAPI) -> None:
    await fill(client)
    hot = app.state.hot[PATH].handler
    pages = 0
    for asked in PLAIN:
        body = dict(asked)
        while True:
            sent = json.dumps(body).encode()
            answer = await search(client, sent, HOT)
            assert answer[0] == 200
            assert answer == await search(client, sent, ORDINARY), body
            assert await hot(sent) == answer[1], "it was answered by the ordinary way"
            pages += 1
            if not (token := json.loads(answer[1]).get("next_page_token")):
                break
            body["page_token"] = token
    assert pages > len(PLAIN) + 3


@pytest.mark.parametrize("body", LEFT)
async def test_what_is_not_plainly_in_order_is_left_to_the_ordinary_way(
    client: httpx.AsyncClient, app: FastAPI, body: bytes
) -> None:
    assert await app.state.hot[PATH].handler(body) is None
    assert await search(client, body, HOT) == await search(client, body, ORDINARY)


async def test_of_two_types_of_content_neither_is_taken_for_json(client: httpx.AsyncClient) -> None:
    types = [("Content-Type", "text/plain"), ("Content-Type", "application/json")]
    assert [(await client.post(PATH, content=b"{}", headers=given)).status_code for given in (types, types[::-1])] == [
        400, 200,
    ]  # fmt: skip


async def test_who_asks_again_soon_has_nothing_counted_twice(
    client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(client)
    asked: list[str] = []
    event.listen(app.state.engine.sync_engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    sent = json.dumps({"experiment_ids": ["0"], "filter": "metrics.m > 1", "order_by": ["params.q"]}).encode()

    async def counts() -> int:
        asked.clear()
        assert (await search(client, sent, HOT))[0] == 200
        return sum("count(*)" in statement for statement in asked)

    search_choice._remembered.cache_clear()
    monkeypatch.setattr(search_choice, "_COUNTED_S", 0)
    assert [await counts() for _ in range(3)] == [1, 1, 1]
    monkeypatch.setattr(search_choice, "_COUNTED_S", 3600)
    assert [await counts() for _ in range(3)] == [1, 0, 0]

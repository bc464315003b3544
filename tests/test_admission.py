"""Too many at once: what is refused, what never is, and that nothing is lost or stays taken."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx
import pytest
from asgi_lifespan import LifespanManager
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.admission import Gate
from runmirror.app import create_app
from runmirror.errors import Busy
from runmirror.settings import Settings

API = "/api/2.0/mlflow"
ORDINARY = {"Content-Type": "application/json; charset=utf-8"}  # the hot way wants it without a charset


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_writes_past_the_queue_are_told_to_come_again_while_reads_probes_and_hot_writes_go_on(
    settings: Settings, engine: AsyncEngine
) -> None:
    assert settings.database_url is not None
    small = settings.model_copy(update={"db_pool_size": 2, "db_queue_size": 1})  # one connection for each
    app = create_app(small, settings.database_url)
    async with LifespanManager(app) as manager, engine.connect() as holder:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def new_run() -> str:
                created = await client.post(f"{API}/runs/create", json={"experiment_id": "0"})
                return str(created.json()["run"]["info"]["run_id"])

            async def set_tag(run_id: str, key: str) -> httpx.Response:
                body = {"run_id": run_id, "key": key, "value": "v"}
                return await client.post(f"{API}/runs/set-tag", json=body, headers=ORDINARY)

            held, other = await new_run(), await new_run()
            await holder.execute(text("SELECT 1 FROM runs WHERE run_id = :run_id FOR UPDATE"), {"run_id": held})
            first = asyncio.create_task(set_tag(held, "first"))
            await until(lambda: app.state.gate.writes.having == 1)
            second = asyncio.create_task(set_tag(other, "second"))
            await until(lambda: len(app.state.gate.writes.waiting) == 1)

            refused = [
                await set_tag(other, "third"),
                await client.post(f"{API}/experiments/create", content=b"not even read"),
                await client.delete("/api/3.0/mlflow/traces/tr-1/tags", params={"key": "k"}),  # refused later
            ]
            for answer in refused:
                assert (answer.status_code, answer.json()["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")
                assert int(answer.headers["Retry-After"]) > 0
            found = await client.post(f"{API}/runs/search", json={"experiment_ids": ["0"]})
            assert len(found.json()["runs"]) == 2
            asked = "query Q($input: MlflowListArtifactsInput!) {mlflowListArtifacts(input: $input) {rootUri}}"
            listed = await client.post("/graphql", json={"query": asked, "variables": {"input": {"runId": other}}})
            assert listed.json()["data"]["mlflowListArtifacts"]["rootUri"], "one connection is enough for it"
            for probe in ("/livez", "/readyz", "/metrics", "/health"):
                assert (await client.get(probe)).status_code == 200, probe
            point = {"run_id": other, "key": "loss", "value": 1.0, "timestamp": 1}
            assert (await client.post(f"{API}/runs/log-metric", json=point)).status_code == 200

            await holder.rollback()
            assert [answer.status_code for answer in await asyncio.gather(first, second)] == [200, 200]
            assert (await set_tag(other, "third")).status_code == 200
            keys = {}
            for run_id in (held, other):
                run = (await client.get(f"{API}/runs/get", params={"run_id": run_id})).json()["run"]
                keys[run_id] = {tag["key"] for tag in run["data"]["tags"]} - {"mlflow.runName"}
            assert keys == {held: {"first"}, other: {"second", "third"}}, "what was answered 200, and nothing else"
            assert (app.state.gate.writes.having, app.state.gate.reads.having) == (0, 0)


async def test_neither_kind_takes_the_connections_of_the_other() -> None:
    gate = Gate(connections=10, most_waiting=3, patience=timedelta(seconds=20))
    async with AsyncExitStack() as reads:
        for _ in range(8):
            await reads.enter_async_context(gate.turn(gate.reads))
        asked = [asyncio.create_task(_take(gate)) for _ in range(3)]
        await until(lambda: len(gate.reads.waiting) == 3)
        with pytest.raises(Busy):
            await _take(gate)
        async with gate.turn(gate.writes), gate.turn(gate.writes):
            assert (gate.reads.having, gate.writes.having) == (8, 2)
        asked[0].cancel()
        await asyncio.wait(asked[:1])
    await asyncio.gather(*asked[1:])
    assert (gate.reads.having, len(gate.reads.waiting)) == (0, 0)


async def test_who_waits_too_long_for_a_connection_is_told_to_come_again() -> None:
    gate = Gate(connections=1, most_waiting=3, patience=timedelta(seconds=0.01))
    async with gate.turn(gate.writes):
        with pytest.raises(Busy):
            await _take(gate)
    await _take(gate)


async def _take(gate: Gate) -> None:
    async with gate.turn(gate.reads):
        pass

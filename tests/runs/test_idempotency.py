"""One key, one run: however often it is sent, by whichever way, and by how many at once."""

import asyncio
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

HOT = {"Content-Type": "application/json"}
ORDINARY = {"Content-Type": "application/json; charset=utf-8"}  # the hot way wants it without a charset


async def create(client: httpx.AsyncClient, key: str, experiment_id: str = "0", **more: Any) -> httpx.Response:
    headers = more.pop("headers", HOT)
    tags = [{"key": "runmirror.idempotency_key", "value": key}]
    body = {"experiment_id": experiment_id, "tags": tags, **more}
    request = client.build_request("POST", "/", json=body)
    return await client.post("/api/2.0/mlflow/runs/create", content=request.content, headers=headers)


def run_id(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["run"]["info"]["run_id"]
    return found


async def test_one_key_is_one_run_also_for_many_at_once(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    ways = [HOT, ORDINARY] * 8
    answers = await asyncio.gather(
        *(create(client, "job-17", run_name=f"n{n}", headers=way) for n, way in enumerate(ways))
    )
    [first] = {run_id(answer) for answer in answers}
    assert len({answer.json()["run"]["info"]["run_name"] for answer in answers}) == 1
    assert run_id(await create(client, "job-17")) == first
    assert run_id(await create(client, "job-18")) != first
    other = await client.post("/api/2.0/mlflow/experiments/create", json={"name": "other"})
    assert run_id(await create(client, "job-17", other.json()["experiment_id"])) != first
    unnamed = [run_id(await create(client, "")) for _ in range(2)]
    assert unnamed[0] != unnamed[1]
    async with engine.connect() as connection:
        counts = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM mirrors), (SELECT count(*) FROM run_keys)"
        assert (await connection.execute(text(counts))).one() == (5, 5, 3)


async def test_the_run_of_a_key_is_given_as_it_is_by_now(client: httpx.AsyncClient) -> None:
    made = run_id(await create(client, "k"))
    await client.post("/api/2.0/mlflow/runs/update", json={"run_id": made, "status": "FINISHED", "end_time": 5})
    await client.post(
        "/api/2.0/mlflow/runs/set-tag", json={"run_id": made, "key": "runmirror.idempotency_key", "value": "x"}
    )
    again = await create(client, "k")
    assert (run_id(again), again.json()["run"]["info"]["status"]) == (made, "FINISHED")
    assert run_id(await create(client, "x")) != made
    await client.post("/api/2.0/mlflow/runs/delete", json={"run_id": made})
    assert run_id(await create(client, "k")) == made


async def test_a_creation_that_fails_leaves_its_key_free(client: httpx.AsyncClient) -> None:
    refused = await create(client, "k", run_name="a\0b")
    assert refused.status_code == 400
    assert (await create(client, "x" * 251)).status_code == 400
    assert (await create(client, "k", "999")).status_code == 404
    assert run_id(await create(client, "k"))

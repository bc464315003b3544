"""Evaluation datasets over HTTP, on a real Postgres: what the comparison with MLflow's server cannot see."""

import asyncio
import json
from typing import Any

import httpx
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.evaluation_datasets import service

API = "/api/3.0/mlflow/datasets"


async def create(client: httpx.AsyncClient, **fields: Any) -> str:
    answer = await client.post(f"{API}/create", json={"name": "questions", **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["dataset"]["dataset_id"])


async def upsert(client: httpx.AsyncClient, dataset_id: str, records: list[dict[str, Any]]) -> httpx.Response:
    return await client.post(f"{API}/{dataset_id}/records", json={"records": json.dumps(records)})


async def records_of(client: httpx.AsyncClient, dataset_id: str) -> list[dict[str, Any]]:
    answer = await client.get(f"{API}/{dataset_id}/records")
    return list(json.loads(answer.json()["records"]))


async def test_one_record_or_a_thousand_take_as_many_statements(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    dataset_id = await create(client)
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    counts = set()
    for size in (1, 1000, 1000):  # the last time each is there already
        records = [{"inputs": {"q": number}, "expectations": {"e": number}} for number in range(size)]
        statements.clear()
        async with engine.begin() as connection:
            await service.upsert_records(connection, dataset_id, json.dumps(records))
        counts.add(len(statements))
    assert counts == {4}


async def test_writers_of_one_dataset_lose_nothing(client: httpx.AsyncClient) -> None:
    dataset_id = await create(client)
    answers = await asyncio.gather(
        *(
            upsert(
                client, dataset_id, [{"inputs": {"q": q}, "expectations": {f"by {writer}": True}} for q in range(20)]
            )
            for writer in range(8)
        )
    )
    assert sorted(answer.json()["inserted_count"] for answer in answers) == [0] * 7 + [20]
    for record in await records_of(client, dataset_id):
        assert record["expectations"] == {f"by {writer}": True for writer in range(8)}
    shown = (await client.get(f"{API}/{dataset_id}")).json()["dataset"]
    assert json.loads(shown["profile"]) == {"num_records": 20}


async def test_adding_and_deleting_at_once_ends_with_the_right_number(client: httpx.AsyncClient) -> None:
    dataset_id = await create(client)
    await upsert(client, dataset_id, [{"inputs": {"q": q}} for q in range(20)])
    ids = [record["dataset_record_id"] for record in await records_of(client, dataset_id)]
    deletions = [
        client.request("DELETE", f"{API}/{dataset_id}/records", json={"dataset_record_ids": ids[first : first + 5]})
        for first in (0, 5, 10)
    ]
    additions = [upsert(client, dataset_id, [{"inputs": {"q": q}} for q in range(10 * n, 10 * n + 30)]) for n in (1, 2)]
    answers = await asyncio.gather(*deletions, *additions)
    assert {answer.status_code for answer in answers} == {200}
    left = len(await records_of(client, dataset_id))
    shown = (await client.get(f"{API}/{dataset_id}")).json()["dataset"]
    assert json.loads(shown["profile"]) == {"num_records": left}


async def test_a_bad_record_among_good_ones_leaves_everything_as_it_was(client: httpx.AsyncClient) -> None:
    dataset_id = await create(client)
    await upsert(client, dataset_id, [{"inputs": {"q": 1}}])
    before = (await client.get(f"{API}/{dataset_id}")).json()
    refused = await upsert(client, dataset_id, [{"inputs": {"q": 2}}, {"inputs": {"q": 3}, "tags": "x"}])
    assert refused.status_code == 400
    assert "records[1].tags" in refused.json()["message"]
    assert len(await records_of(client, dataset_id)) == 1
    assert (await client.get(f"{API}/{dataset_id}")).json() == before


async def test_the_json_of_a_record_comes_back_as_it_was(client: httpx.AsyncClient) -> None:
    dataset_id = await create(client)
    inputs = {"z": 2**80, "a": "\0\ud800 é", "m": [1.0, -0.0, 1e-300]}
    assert (await upsert(client, dataset_id, [{"inputs": inputs}])).status_code == 200
    [record] = await records_of(client, dataset_id)
    assert json.dumps(record["inputs"]) == json.dumps(inputs)


async def test_a_dataset_leaves_nothing_behind(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    dataset_id = await create(client, experiment_ids=["0"], tags='{"a": "b"}')
    await upsert(client, dataset_id, [{"inputs": {"q": 1}}])
    await client.delete(f"{API}/{dataset_id}")
    async with engine.connect() as connection:
        for table in ("", "_tags", "_experiments", "_records"):
            name = f"evaluation_dataset{table or 's'}"
            assert await connection.scalar(text(f"SELECT count(*) FROM {name}")) == 0


async def test_a_page_token_belongs_to_its_dataset(client: httpx.AsyncClient) -> None:
    one, other = await create(client), await create(client)
    await upsert(client, one, [{"inputs": {"q": 1}}, {"inputs": {"q": 2}}])
    token = (await client.get(f"{API}/{one}/records", params={"max_results": 1})).json()["next_page_token"]
    refused = await client.get(f"{API}/{other}/records", params={"page_token": token})
    assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")

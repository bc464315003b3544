"""Inputs and outputs of runs on a real Postgres: what the comparison with MLflow's server cannot see."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.entities import Dataset, DatasetInput, Tag
from runmirror.runs import inputs_queries, inputs_service

API = "/api/2.0/mlflow"
MODEL = "m-0123456789abcdef0123456789abcdef"


async def new_run(client: httpx.AsyncClient) -> str:
    answer = await client.post(f"{API}/runs/create", json={"experiment_id": "0", "start_time": 1})
    return str(answer.json()["run"]["info"]["run_id"])


def given(*names: str) -> list[DatasetInput]:
    return [DatasetInput(Dataset(name, "x", "local", "s"), (Tag("context", "train"),)) for name in names]


async def test_each_row_carries_the_seq_of_the_write_that_made_it(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    run_id = await new_run(client)
    async with engine.begin() as connection:
        await inputs_service.log_inputs(connection, run_id, given("a"), [MODEL])
    async with engine.begin() as connection:
        await inputs_service.log_inputs(connection, run_id, given("a", "b"), [MODEL])
        await inputs_service.log_outputs(connection, run_id, [(MODEL, 7)])
    async with engine.connect() as connection:
        seqs = text("""
            SELECT d.name, i.seq FROM dataset_inputs i JOIN datasets d USING (dataset_id)
            UNION ALL SELECT 'model in', seq FROM model_inputs UNION ALL SELECT 'model out', seq FROM model_outputs
        """)
        found = {row.name: row.seq for row in await connection.execute(seqs)}
    assert found == {"a": 2, "b": 3, "model in": 2, "model out": 4}


async def test_inputs_are_work_for_the_mirror(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    run_id = await new_run(client)
    for endpoint in ("log-inputs", "outputs"):
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE mirrors SET state = 'current', behind_since = NULL"))
        body = {"run_id": run_id, "models": [{"model_id": MODEL}]}
        assert (await client.post(f"{API}/runs/{endpoint}", json=body)).status_code == 200
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT state FROM mirrors")) == "due", endpoint


async def test_runs_that_log_the_same_datasets_at_once_share_them(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    runs = [await new_run(client) for _ in range(6)]
    names = [f"d{n}" for n in range(40)]

    async def log(run_id: str, order: list[str]) -> None:
        async with engine.begin() as connection:
            await inputs_service.log_inputs(connection, run_id, given(*order), [])

    orders = [names if n % 2 else names[::-1] for n in range(len(runs))]
    await asyncio.gather(*map(log, runs, orders))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM datasets")) == 40
        assert await connection.scalar(text("SELECT count(*) FROM dataset_inputs")) == 6 * 40


async def test_one_input_or_hundreds_take_as_many_statements(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    statements: list[str] = []

    def record(*arguments: Any) -> None:
        statements.append(arguments[2])

    async def write_and_read(number: int) -> int:
        runs = [UUID(await new_run(client)) for _ in range(number)]
        models = [f"m-{n}" for n in range(number)]
        statements.clear()
        async with engine.begin() as connection:
            datasets = given(*(f"d{n}" for n in range(number)))
            await inputs_service.log_inputs(connection, runs[0].hex, datasets, models)
            await inputs_service.log_outputs(connection, runs[0].hex, [(model, 0) for model in models])
            loaded = await inputs_queries.load_inputs_outputs(connection, runs)
        inputs, outputs = loaded[runs[0]]
        assert len(inputs["dataset_inputs"]) == len(inputs["model_inputs"]) == len(outputs["model_outputs"]) == number
        assert all(loaded[run_id] == ({}, {}) for run_id in runs[1:])
        return len(statements)

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    assert await write_and_read(1) == await write_and_read(30)


async def test_a_refused_output_writes_none_of_the_others(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client)
    await client.post(f"{API}/runs/outputs", json={"run_id": run_id, "models": [{"model_id": "m-1", "step": 1}]})
    both = [{"model_id": "m-2", "step": 1}, {"model_id": "m-1", "step": 2}]
    answer = await client.post(f"{API}/runs/outputs", json={"run_id": run_id, "models": both})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")
    read = await client.get(f"{API}/runs/get", params={"run_id": run_id})
    assert read.json()["run"]["outputs"] == {"model_outputs": [{"model_id": "m-1", "step": 1}]}


async def test_text_that_cannot_be_stored_is_refused(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client)
    dataset = {"name": "d", "digest": "x", "source_type": "local", "source": "s"}
    for bad in ({"dataset": dataset | {"name": "a\0"}}, {"dataset": dataset, "tags": [{"key": "a\0", "value": "b"}]}):
        answer = await client.post(f"{API}/runs/log-inputs", json={"run_id": run_id, "datasets": [bad]})
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    read = await client.get(f"{API}/runs/get", params={"run_id": run_id})
    assert read.json()["run"]["inputs"] == {}

"""Logged models over HTTP, on a real Postgres: what the comparison with MLflow's server cannot see."""

import asyncio
import math
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.entities import Metric, Param, Tag
from runmirror.errors import BadRequest
from runmirror.logged_models import queries, service
from runmirror.logged_models.metrics import record_model_metrics

API = "/api/2.0/mlflow"


async def call(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> dict[str, Any]:
    answer = await client.request(method, API + path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def new_run(client: httpx.AsyncClient) -> str:
    created = await call(client, "POST", "/runs/create", {"experiment_id": "0", "start_time": 1})
    return str(created["run"]["info"]["run_id"])


async def new_model(client: httpx.AsyncClient, **fields: Any) -> str:
    created = await call(client, "POST", "/logged-models", {"experiment_id": "0", "name": "model", **fields})
    return str(created["model"]["info"]["model_id"])


async def seq(engine: AsyncEngine, run_id: str) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text("SELECT seq FROM runs WHERE run_id = :run_id"), {"run_id": run_id}))


async def mirrored(engine: AsyncEngine) -> None:
    """As if the workspace had everything."""
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE mirrors SET state = 'current', behind_since = NULL"))


async def is_behind(engine: AsyncEngine, run_id: str) -> bool:
    async with engine.connect() as connection:
        state = await connection.scalar(text("SELECT state FROM mirrors WHERE run_id = :run_id"), {"run_id": run_id})
    return bool(state == "due")


async def test_every_write_of_a_logged_model_is_a_change_of_the_run_that_made_it(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    run_id = await new_run(client)
    await mirrored(engine)
    before = await seq(engine, run_id)
    model_id = await new_model(client, source_run_id=run_id)
    assert await is_behind(engine, run_id)
    for write in [
        ("PATCH", f"/logged-models/{model_id}", {"model_id": model_id, "status": "LOGGED_MODEL_READY"}),
        ("PATCH", f"/logged-models/{model_id}/tags", {"tags": [{"key": "a", "value": "1"}]}),
        ("DELETE", f"/logged-models/{model_id}/tags/a", None),
        ("POST", f"/logged-models/{model_id}/params", {"model_id": model_id, "params": [{"key": "a", "value": "1"}]}),
        ("DELETE", f"/logged-models/{model_id}", None),
    ]:
        await mirrored(engine)
        await call(client, *write)
        assert await is_behind(engine, run_id), write
    assert await seq(engine, run_id) == before + 6


async def test_a_logged_model_of_a_deleted_run_can_still_be_finished(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client)
    model_id = await new_model(client, source_run_id=run_id)
    await call(client, "POST", "/runs/delete", {"run_id": run_id})
    finished = await call(client, "PATCH", f"/logged-models/{model_id}", {"model_id": model_id, "status": 2})
    assert finished["model"]["info"]["status"] == "LOGGED_MODEL_READY"


async def test_a_logged_model_of_no_run_or_of_another_servers_run_can_be_written(client: httpx.AsyncClient) -> None:
    for source in ("", "0123456789abcdef0123456789abcdef"):
        model_id = await new_model(client, source_run_id=source)
        await call(client, "PATCH", f"/logged-models/{model_id}", {"model_id": model_id, "status": 2})
        read = await call(client, "GET", f"/logged-models/{model_id}")
        assert read["model"]["info"]["source_run_id"] == source


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "n" * 501},
        {"model_type": "t" * 501},
        {"params": [{"key": "k" * 256, "value": "v"}]},
        {"tags": [{"key": "k" * 256, "value": "v"}]},
        {"tags": [{"key": "", "value": "v"}]},
        {"tags": [{"key": "nul\0", "value": "v"}]},
        {"source_run_id": "../x"},
    ],
)
async def test_what_cannot_be_stored_is_refused_and_nothing_is_written(
    client: httpx.AsyncClient, engine: AsyncEngine, fields: dict[str, Any]
) -> None:
    answer = await client.post(f"{API}/logged-models", json={"experiment_id": "0", "name": "model", **fields})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM logged_models")) == 0


async def test_a_changed_param_writes_none_of_the_others(client: httpx.AsyncClient) -> None:
    model_id = await new_model(client, params=[{"key": "a", "value": "1"}])
    body = {"model_id": model_id, "params": [{"key": "b", "value": "2"}, {"key": "a", "value": "9"}]}
    answer = await client.post(f"{API}/logged-models/{model_id}/params", json=body)
    assert answer.status_code == 400
    read = await call(client, "GET", f"/logged-models/{model_id}")
    assert read["model"]["data"]["params"] == [{"key": "a", "value": "1"}]


async def test_of_two_writers_of_one_param_one_is_refused(client: httpx.AsyncClient) -> None:
    model_id = await new_model(client)
    bodies = [{"model_id": model_id, "params": [{"key": "a", "value": str(n)}]} for n in range(2)]
    answers = await asyncio.gather(
        *(client.post(f"{API}/logged-models/{model_id}/params", json=body) for body in bodies)
    )
    assert sorted(answer.status_code for answer in answers) == [200, 400]


async def test_nan_and_infinity_are_kept_as_numbers_of_the_model(client: httpx.AsyncClient) -> None:
    run_id, model_id = await new_run(client), await new_model(client)
    for step, value in enumerate(["NaN", "-Infinity"]):
        point = {"run_id": run_id, "key": "k", "value": value, "timestamp": 1, "step": step, "model_id": model_id}
        await call(client, "POST", "/runs/log-metric", point)
    read = await call(client, "GET", f"/logged-models/{model_id}")
    not_a_number, lowest = [float(metric["value"]) for metric in read["model"]["data"]["metrics"]]
    assert math.isnan(not_a_number)
    assert lowest == -1.7976931348623157e308


async def test_an_exact_repeat_of_a_point_is_absorbed_and_a_contradiction_is_refused(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    run_id, model_id = UUID(await new_run(client)), await new_model(client)
    point = Metric("k", math.nan, 1, 0, model_id, "d", "x")
    async with engine.begin() as connection:
        for _ in range(2):
            await record_model_metrics(connection, run_id, [point, point, Metric("other", 1.0, 1)])
    for other in (Metric("k", 1.0, 1, 0, model_id, "d", "x"), Metric("k", math.nan, 1, 0, model_id, "e", "x")):
        async with engine.begin() as connection:
            with pytest.raises(BadRequest):
                await record_model_metrics(connection, run_id, [other])
    async with engine.begin() as connection:
        with pytest.raises(BadRequest):
            await record_model_metrics(connection, run_id, [Metric("x", n, 1, 0, model_id) for n in (1.0, 2.0)])
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM logged_model_metrics")) == 1


async def test_one_param_tag_and_metric_or_hundreds_take_as_many_statements(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    run_id = await new_run(client)
    statements: list[str] = []

    def record(*arguments: Any) -> None:
        statements.append(arguments[2])

    async def writes(number: int) -> int:
        statements.clear()
        params = [Param(f"p{n}", "1") for n in range(number)]
        tags = [Tag(f"t{n}", "1") for n in range(number)]
        async with engine.begin() as connection:
            model_id = await service.create(
                connection, experiment_id="0", name="m", model_type="", source_run_id=run_id, params=params, tags=tags
            )
            await service.log_params(connection, model_id, [Param(f"q{n}", "1") for n in range(number)])
            await service.set_tags(connection, model_id, tags)
            metrics = [Metric(f"k{n}", 1.0, 1, 0, model_id) for n in range(number)]
            await record_model_metrics(connection, UUID(run_id), metrics)
            assert len((await queries.load(connection, [model_id]))[0].metrics) == number
        return len(statements)

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    assert await writes(1) == await writes(300)


async def test_pages_of_a_search_neither_skip_nor_repeat_while_models_are_added(client: httpx.AsyncClient) -> None:
    made = [await new_model(client, name=f"m{n}") for n in range(5)]
    request: dict[str, Any] = {"experiment_ids": ["0"], "max_results": 2}
    found: list[str] = []
    while True:
        page = await call(client, "POST", "/logged-models/search", request)
        found += [model["info"]["model_id"] for model in page["models"]]
        if "next_page_token" not in page:
            break
        await new_model(client, name="late")
        request["page_token"] = page["next_page_token"]
    assert sorted(found) == sorted(made)
    changed = await client.post(f"{API}/logged-models/search", json=request | {"filter": "name = 'm1'"})
    assert changed.json()["error_code"] == "INVALID_PARAMETER_VALUE"


async def test_nan_comes_after_every_number_whichever_way_models_are_ordered(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client)
    for name, value in (("small", 1.0), ("none", None), ("nan", "NaN"), ("large", 2.0)):
        model_id = await new_model(client, name=name)
        if value is not None:
            point = {"key": "loss", "value": value, "timestamp": 1, "model_id": model_id}
            await call(client, "POST", "/runs/log-metric", {"run_id": run_id, **point})
    for ascending, wanted in ((True, ["small", "large"]), (False, ["large", "small"])):
        request: dict[str, Any] = {
            "experiment_ids": ["0"],
            "order_by": [{"field_name": "metrics.loss", "ascending": ascending}],
            "max_results": 1,
        }
        found = []
        while True:
            answer = await call(client, "POST", "/logged-models/search", request)
            found += [model["info"]["name"] for model in answer["models"]]
            if "next_page_token" not in answer:
                break
            request["page_token"] = answer["next_page_token"]
        assert found == [*wanted, "nan", "none"]
    above = {"experiment_ids": ["0"], "filter": "metrics.loss > 0", "order_by": [{"field_name": "name"}]}
    assert [m["info"]["name"] for m in (await call(client, "POST", "/logged-models/search", above))["models"]] == [
        "large",
        "small",
    ]

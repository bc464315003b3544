"""Runs over HTTP, on a real Postgres."""

import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager

from runmirror.app import create_app
from runmirror.settings import Settings

API = "/api/2.0/mlflow"


async def call(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(API + path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def new_run(client: httpx.AsyncClient, **fields: Any) -> str:
    created = await call(client, "/runs/create", {"experiment_id": "0", "start_time": 1, **fields})
    return str(created["run"]["info"]["run_id"])


async def get(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    answer = await client.get(f"{API}/runs/get", params={"run_id": run_id})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["run"])


async def refused(client: httpx.AsyncClient, path: str, body: Any) -> tuple[int, str]:
    answer = await client.post(API + path, json=body)
    return answer.status_code, answer.json()["error_code"]


async def test_a_run_reads_back_what_a_batch_wrote(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client, run_name="first", tags=[{"key": "team", "value": "x"}])
    metrics = [{"key": "loss", "value": 1 / (1 + step), "timestamp": 10 + step, "step": step} for step in range(5)]
    batch = {"run_id": run_id, "metrics": metrics, "params": [{"key": "lr", "value": "0.1"}],
             "tags": [{"key": "team", "value": "y"}]}  # fmt: skip
    assert await call(client, "/runs/log-batch", batch) == {}
    run = await get(client, run_id)
    assert run["info"]["run_name"] == "first"
    assert run["data"]["metrics"] == [{"key": "loss", "value": 0.2, "timestamp": 14, "step": 4}]
    assert run["data"]["params"] == [{"key": "lr", "value": "0.1"}]
    assert {"key": "team", "value": "y"} in run["data"]["tags"]


async def test_a_param_may_be_written_again_but_not_changed(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client)
    for _ in range(2):
        await call(client, "/runs/log-parameter", {"run_id": run_id, "key": "a", "value": "1"})
    body = {"run_id": run_id, "key": "a", "value": "2"}
    assert await refused(client, "/runs/log-parameter", body) == (400, "INVALID_PARAMETER_VALUE")
    assert (await get(client, run_id))["data"]["params"] == [{"key": "a", "value": "1"}]


async def test_a_batch_with_one_changed_param_writes_nothing(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client)
    await call(client, "/runs/log-parameter", {"run_id": run_id, "key": "a", "value": "1"})
    batch = {"run_id": run_id, "params": [{"key": "b", "value": "1"}, {"key": "a", "value": "2"}],
             "metrics": [{"key": "m", "value": 1, "timestamp": 1}]}  # fmt: skip
    assert await refused(client, "/runs/log-batch", batch) == (400, "INVALID_PARAMETER_VALUE")
    run = await get(client, run_id)
    assert [param["key"] for param in run["data"]["params"]] == ["a"]
    assert "metrics" not in run["data"]


@pytest.mark.parametrize(
    ("points", "latest"),
    [
        ([(1, 10, 5.0), (0, 99, 9.0)], 5.0),
        ([(1, 10, 5.0), (1, 11, 4.0)], 4.0),
        ([(1, 10, 5.0), (1, 10, 6.0)], 6.0),
        ([(1, 10, -1.0), (1, 10, math.nan)], math.nan),  # NaN counts as 0
        ([(1, 10, 1.0), (1, 10, math.nan)], 1.0),
    ],
)
async def test_the_latest_metric_is_the_greatest_step_then_time_then_value(
    client: httpx.AsyncClient, points: list[tuple[int, int, float]], latest: float
) -> None:
    for ordered in (points, points[::-1]):
        run_id = await new_run(client)
        for step, timestamp, value in ordered:
            written = "NaN" if math.isnan(value) else value
            body = {"run_id": run_id, "key": "m", "value": written, "timestamp": timestamp, "step": step}
            await call(client, "/runs/log-metric", body)
        value = float((await get(client, run_id))["data"]["metrics"][0]["value"])
        assert value == latest or (math.isnan(value) and math.isnan(latest))


async def test_an_exact_repeat_of_a_point_is_absorbed_and_history_pages_are_complete(
    client: httpx.AsyncClient,
) -> None:
    run_id = await new_run(client)
    points = [
        {"key": "m", "value": v, "timestamp": t, "step": s}
        for t in (1, 2)
        for s in (0, 1)
        for v in (0.5, "NaN", "-Infinity")
    ]
    for _ in range(2):
        await call(client, "/runs/log-batch", {"run_id": run_id, "metrics": points})
    seen, token = [], None
    while True:
        query = {"run_id": run_id, "metric_key": "m", "max_results": 5} | ({"page_token": token} if token else {})
        answer = (await client.get(f"{API}/metrics/get-history", params=query)).json()
        seen += answer["metrics"]
        token = answer.get("next_page_token")
        if token is None:
            break
    assert len(seen) == len(points)
    assert [(p["timestamp"], p["step"]) for p in seen] == sorted((p["timestamp"], p["step"]) for p in seen)
    assert {str(p["value"]) for p in seen} == {"0.5", "NaN", "-1.7976931348623157e+308"}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/runs/log-metric", {"run_id": "RUN", "key": "m", "timestamp": 1}, 400, "INVALID_PARAMETER_VALUE"),
        (
            "/runs/log-metric",
            {"run_id": "RUN", "key": "m", "value": "x", "timestamp": 1},
            400,
            "INVALID_PARAMETER_VALUE",
        ),
        (
            "/runs/log-metric",
            {"run_id": "RUN", "key": "../m", "value": 1, "timestamp": 1},
            400,
            "INVALID_PARAMETER_VALUE",
        ),
        (
            "/runs/log-metric",
            {"run_id": "RUN", "key": "m", "value": 1, "timestamp": -1},
            400,
            "INVALID_PARAMETER_VALUE",
        ),
        (
            "/runs/log-metric",
            {"run_id": "RUN", "key": "m", "value": 1, "timestamp": 2**63},
            400,
            "INVALID_PARAMETER_VALUE",
        ),
        (
            "/runs/log-metric",
            {"run_id": "0" * 32, "key": "m", "value": 1, "timestamp": 1},
            404,
            "RESOURCE_DOES_NOT_EXIST",
        ),
        ("/runs/log-parameter", {"run_id": "RUN", "key": "k" * 251, "value": "1"}, 400, "INVALID_PARAMETER_VALUE"),
        ("/runs/set-tag", {"run_id": "RUN", "key": "k", "value": "nul \0"}, 400, "INVALID_PARAMETER_VALUE"),
        ("/runs/set-tag", {"run_id": "RUN", "key": "k", "value": 5}, 400, "INVALID_PARAMETER_VALUE"),
        ("/runs/delete-tag", {"run_id": "RUN", "key": "absent"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("/runs/set-tag", {"run_id": "a" * 32 + "\n", "key": "k"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("/runs/log-batch", {"run_id": "../../x", "params": []}, 400, "INVALID_PARAMETER_VALUE"),
        ("/runs/create", {"experiment_id": "77"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("/runs/create", {"experiment_id": "x"}, 400, "INVALID_PARAMETER_VALUE"),
        ("/runs/update", {"run_id": "RUN", "status": "SLEEPING"}, 400, "INVALID_PARAMETER_VALUE"),
    ],
)
async def test_bad_input_is_refused_with_mlflows_code(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    run_id = await new_run(client)
    body = {key: run_id if value == "RUN" else value for key, value in body.items()}
    assert await refused(client, path, body) == (status, code)


async def test_text_that_is_not_unicode_and_json_that_is_not_json_are_bad_input(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client)
    headers = {"Content-Type": "application/json"}
    for content in (f'{{"run_id": "{run_id}", "key": "k", "value": "\\ud800"}}', '{"run_id": ', "[]", "5", "", "\\"):
        answer = await client.post(f"{API}/runs/set-tag", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), content


async def test_a_deleted_run_takes_no_writes_until_it_is_restored(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client)
    await call(client, "/runs/delete", {"run_id": run_id})
    body = {"run_id": run_id, "key": "a", "value": "1"}
    assert await refused(client, "/runs/set-tag", body) == (400, "INVALID_PARAMETER_VALUE")
    await call(client, "/runs/restore", {"run_id": run_id})
    await call(client, "/runs/set-tag", body)
    assert (await get(client, run_id))["info"]["lifecycle_stage"] == "active"


async def test_a_tag_named_run_name_renames_the_run(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client)
    await call(client, "/runs/set-tag", {"run_id": run_id, "key": "mlflow.runName", "value": "renamed"})
    assert (await get(client, run_id))["info"]["run_name"] == "renamed"
    await call(client, "/runs/update", {"run_id": run_id, "run_name": "again", "status": "FINISHED", "end_time": 7})
    run = await get(client, run_id)
    assert (run["info"]["run_name"], run["info"]["status"], run["info"]["end_time"]) == ("again", "FINISHED", 7)
    assert {"key": "mlflow.runName", "value": "again"} in run["data"]["tags"]


async def test_a_json_body_that_is_too_long_is_refused_announced_or_not(settings: Settings) -> None:
    assert settings.database_url is not None
    app = create_app(settings.model_copy(update={"max_body_bytes": 2000}), settings.database_url)
    body = b'{"run_id": "' + b"x" * 3000 + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 500):
            yield body[start : start + 500]

    async with LifespanManager(app) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for content in (body, chunks()):
                headers = {"Content-Type": "application/json"}
                answer = await client.post(f"{API}/runs/set-tag", content=content, headers=headers)
                assert (answer.status_code, answer.json()["error_code"]) == (413, "INVALID_PARAMETER_VALUE")
            path = "/api/2.0/mlflow-artifacts/artifacts/0/file.bin"
            assert (await client.put(path, content=b"x" * 5000)).status_code == 200

"""Experiments over HTTP, on a real Postgres."""

from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

API = "/api/2.0/mlflow"


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> httpx.Response:
    return await client.post(API + path, json=body)


async def new_experiment(client: httpx.AsyncClient, name: str, **fields: Any) -> str:
    answer = await post(client, "/experiments/create", {"name": name, **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["experiment_id"])


async def get(client: httpx.AsyncClient, experiment_id: str) -> dict[str, Any]:
    answer = await client.get(f"{API}/experiments/get", params={"experiment_id": experiment_id})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["experiment"])


async def test_the_default_experiment_has_the_id_zero(client: httpx.AsyncClient) -> None:
    experiment = await get(client, "0")
    assert (experiment["name"], experiment["artifact_location"]) == ("Default", "mlflow-artifacts:/0")


async def test_both_twins_of_a_path_answer(client: httpx.AsyncClient) -> None:
    for prefix in ("/api", "/ajax-api"):
        query = {"experiment_name": "Default"}
        answer = await client.get(f"{prefix}/2.0/mlflow/experiments/get-by-name", params=query)
        assert answer.json()["experiment"]["experiment_id"] == "0"


async def test_a_name_is_taken_even_by_a_deleted_experiment(client: httpx.AsyncClient) -> None:
    experiment_id = await new_experiment(client, "a", tags=[{"key": "team", "value": "x"}])
    assert (await get(client, experiment_id))["tags"] == [{"key": "team", "value": "x"}]
    await post(client, "/experiments/delete", {"experiment_id": experiment_id})
    for path, body in (
        ("/experiments/create", {"name": "a"}),
        ("/experiments/update", {"experiment_id": await new_experiment(client, "b"), "new_name": "a"}),
    ):
        answer = await post(client, path, body)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "RESOURCE_ALREADY_EXISTS")


async def test_deleting_an_experiment_deletes_its_runs_and_tells_the_mirror(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    experiment_id = await new_experiment(client, "a")
    runs = [
        (await post(client, "/runs/create", {"experiment_id": experiment_id})).json()["run"]["info"]["run_id"]
        for _ in range(3)
    ]
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE mirrors SET state = 'current', behind_since = NULL"))
    await post(client, "/experiments/delete", {"experiment_id": experiment_id})
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT lifecycle_stage, seq, info_seq, m.state FROM runs JOIN mirrors m USING (run_id)")
        )
        assert [tuple(row) for row in rows] == [("deleted", 2, 2, "due")] * 3
    await post(client, "/experiments/restore", {"experiment_id": experiment_id})
    answer = await client.get(f"{API}/runs/get", params={"run_id": runs[0]})
    assert answer.json()["run"]["info"]["lifecycle_stage"] == "active"


async def test_a_run_of_a_deleted_experiment_cannot_be_created(client: httpx.AsyncClient) -> None:
    experiment_id = await new_experiment(client, "a")
    await post(client, "/experiments/delete", {"experiment_id": experiment_id})
    answer = await post(client, "/runs/create", {"experiment_id": experiment_id})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc", "/etc/passwd", "s3://bucket/x", "http:///?/../../etc/", "mlflow-artifacts:/../x",
        "mlflow-artifacts:/a/../../b", "mlflow-artifacts://host/a", "mlflow-artifacts:/a?b", "mlflow-artifacts:/a#b",
        "mlflow-artifacts:/%2e%2e/a", "mlflow-artifacts:/a\\b", "mlflow-artifacts:/", "runs:/x", "dbfs:/x",
    ],
)  # fmt: skip
async def test_artifacts_live_in_our_own_store_or_nowhere(client: httpx.AsyncClient, location: str) -> None:
    """MLflow accepts locations elsewhere and then contacts them from the server (CVE-2024-3848 and its kin)."""
    answer = await post(client, "/experiments/create", {"name": "a", "artifact_location": location})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert (await client.get(f"{API}/experiments/get-by-name", params={"experiment_name": "a"})).status_code == 404


async def test_a_location_inside_our_store_is_kept(client: httpx.AsyncClient) -> None:
    experiment_id = await new_experiment(client, "a", artifact_location="mlflow-artifacts:/team/a")
    answer = await post(client, "/runs/create", {"experiment_id": experiment_id})
    info = answer.json()["run"]["info"]
    assert info["artifact_uri"] == f"mlflow-artifacts:/team/a/{info['run_id']}/artifacts"


async def test_tags_of_an_experiment_are_set_overwritten_and_deleted(client: httpx.AsyncClient) -> None:
    experiment_id = await new_experiment(client, "a")
    for value in ("1", "2"):
        body = {"experiment_id": experiment_id, "key": "k", "value": value}
        await post(client, "/experiments/set-experiment-tag", body)
    assert (await get(client, experiment_id))["tags"] == [{"key": "k", "value": "2"}]
    body = {"experiment_id": experiment_id, "key": "k"}
    assert (await post(client, "/experiments/delete-experiment-tag", body)).status_code == 200
    assert (await post(client, "/experiments/delete-experiment-tag", body)).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("create", {}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"name": ""}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"name": 5}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"name": "n" * 501}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"name": "a", "tags": [{"key": "k" * 251, "value": "v"}]}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"name": "a", "tags": {"k": "v"}}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"name": "nul\0"}, 400, "INVALID_PARAMETER_VALUE"),
        ("delete", {"experiment_id": "99"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("delete", {"experiment_id": "../0"}, 400, "INVALID_PARAMETER_VALUE"),
        ("delete", {"experiment_id": "9" * 30}, 400, "INVALID_PARAMETER_VALUE"),
        ("restore", {"experiment_id": "0"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("update", {"experiment_id": "0"}, 400, "INVALID_PARAMETER_VALUE"),
    ],
)
async def test_bad_input_is_refused_with_mlflows_code(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await post(client, f"/experiments/{path}", body)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text

"""The probes tell the truth."""

import httpx


async def test_health_and_version_answer_as_mlflow_does(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).text == "OK"
    assert (await client.get("/version")).text == "3.17.2"


async def test_ready_means_database_migrations_and_artifacts(client: httpx.AsyncClient) -> None:
    answer = await client.get("/readyz")
    assert answer.status_code == 200, answer.text
    assert answer.json()["checks"] == {"database": "ok", "migrations": "ok", "artifacts": "ok"}


async def test_an_unknown_path_is_told_in_mlflows_shape(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/2.0/mlflow/nothing")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")

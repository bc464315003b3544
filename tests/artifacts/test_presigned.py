"""Signed URLs: a client fetches a file from Azure Blob itself, or puts one there, and the mirror hears of it."""

import os
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from runmirror.artifacts import pending
from runmirror.artifacts.service import Artifacts
from runmirror.artifacts.store import Store
from tests.artifacts.conftest import Run
from tests.artifacts.recorded import Row, md5, rows, seq
from tests.artifacts.test_multipart import azure, in_a_folder, on_azure
from tests.artifacts.test_routes import SERVICE, put

__all__ = ["azure"]

PRESIGNED = SERVICE.replace("artifacts/artifacts", "artifacts/presigned")
DOWNLOAD = "/api/2.0/mlflow/artifacts/presigned-download-url"
UPLOAD = "/api/2.0/mlflow/artifacts/presigned-upload-url"


@pytest.fixture
def artifacts(app: FastAPI, store: Store) -> Artifacts:
    """As the worker has it."""
    return Artifacts(store, reading=app.state.engine.connect, writing=app.state.engine.begin)


async def upload_url(client: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    answer = await client.post(UPLOAD, json=asked)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def send(azure: httpx.AsyncClient, signed: dict[str, Any], data: bytes) -> None:
    answer = await azure.put(signed["presigned_url"], content=data, headers=signed["headers"])
    assert answer.status_code == 201, answer.text


async def look(artifacts: Artifacts, *, after: str = "10 s") -> int:
    """Let the worker look for uploads as it would `after` some time."""
    async with artifacts.writing() as connection:
        await connection.execute(
            text("""
                UPDATE pending_uploads SET issued_at = issued_at - CAST(:after AS text)::interval,
                    check_at = check_at - CAST(:after AS text)::interval,
                    last_check_at = last_check_at - CAST(:after AS text)::interval
            """),
            {"after": after},
        )
    return await pending.check(artifacts)


async def watched(artifacts: Artifacts) -> int:
    async with artifacts.reading() as connection:
        return await connection.scalar(text("SELECT count(*) FROM pending_uploads")) or 0


@on_azure
async def test_a_file_is_fetched_by_its_url(client: httpx.AsyncClient, azure: httpx.AsyncClient, run: Run) -> None:
    data = os.urandom(100_000)
    await put(client, f"{run.root}/d/é.txt", data)
    one = (await client.get(f"{PRESIGNED}/{run.root}/d/é.txt")).json()
    two = (await client.post(DOWNLOAD, json={"run_id": run.run_id, "path": "d/é.txt"})).json()
    assert one == {"url": one["url"], "headers": {}, "file_size": len(data)}
    assert two == {"presigned_url": two["presigned_url"], "file_size": len(data)}
    for url in (one["url"], two["presigned_url"]):
        answer = await azure.get(url)
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["content-disposition"] == "attachment; filename=e.txt; filename*=UTF-8''%C3%A9.txt"
        assert answer.headers["content-type"] == "text/plain"
        part = await azure.get(url, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, data[10:20])
        assert (await azure.put(url, content=b"1", headers={"x-ms-blob-type": "BlockBlob"})).status_code == 403
        assert (await azure.delete(url)).status_code == 403
        other = urlsplit(url)
        assert (await azure.get(other._replace(path=other.path[:-1]).geturl())).status_code == 403
        assert (await azure.get(url.replace("attachment", "inline"))).status_code == 403, "the disposition is signed"


@on_azure
async def test_an_upload_by_url_is_one_change_of_its_run(
    client: httpx.AsyncClient, app: FastAPI, azure: httpx.AsyncClient, artifacts: Artifacts, run: Run
) -> None:
    signed = await upload_url(client, run_id=run.run_id, path="d/f")
    query = {name: values[0] for name, values in parse_qs(urlsplit(signed["presigned_url"]).query).items()}
    assert (query["sr"], query["sp"]) == ("b", "w")
    assert (await azure.get(signed["presigned_url"])).status_code == 403
    assert await look(artifacts) == 1
    before = await seq(app, run)
    assert await rows(app, run) == [], "nothing is there yet"
    await send(azure, signed, b"one")
    assert (await client.get(f"{SERVICE}/{run.root}/d/f")).content == b"one"
    assert await look(artifacts, after="20 s") == 1
    assert await rows(app, run) == [Row("d/f", 3, md5(b"one"), False, before + 1)]
    assert await look(artifacts, after="1 min") == 1
    assert await seq(app, run) == before + 1, "what is known already is no change"
    await send(azure, signed, b"two")
    assert await look(artifacts, after="10 min") == 1
    assert await rows(app, run) == [Row("d/f", 3, md5(b"two"), False, before + 2)]


@on_azure
async def test_an_upload_is_looked_for_until_a_day_after_its_url_ended(
    client: httpx.AsyncClient, app: FastAPI, azure: httpx.AsyncClient, artifacts: Artifacts, run: Run
) -> None:
    signed = await upload_url(client, run_id=run.run_id, path="f", expiration=60)
    assert await look(artifacts, after="0 s") == 0, "too early"
    assert await look(artifacts) == 1
    assert await look(artifacts, after="2 s") == 0, "the pauses grow"
    assert await look(artifacts, after="12 hours") == 1
    await send(azure, signed, b"late")
    assert await look(artifacts, after="1 day") == 1
    assert [row.path for row in await rows(app, run)] == ["f"]
    assert await watched(artifacts) == 0
    assert await look(artifacts, after="1 day") == 0


@on_azure
async def test_another_url_for_the_same_file_prolongs_the_watch(
    client: httpx.AsyncClient, artifacts: Artifacts, run: Run
) -> None:
    await upload_url(client, run_id=run.run_id, path="f", expiration=7 * 24 * 3600)
    await upload_url(client, run_id=run.run_id, path="f", expiration=1)
    assert await look(artifacts, after="7 days") == 1
    assert await watched(artifacts) == 1
    assert await look(artifacts, after="1 day") == 1
    assert await watched(artifacts) == 0


@on_azure
async def test_a_store_that_is_away_loses_no_upload(
    client: httpx.AsyncClient, app: FastAPI, azure: httpx.AsyncClient, artifacts: Artifacts, run: Run
) -> None:
    signed = await upload_url(client, run_id=run.run_id, path="f", expiration=60)
    await send(azure, signed, b"1")
    store = app.state.artifacts
    here, store.container = store.container, store.service.get_container_client("gone")
    assert await look(artifacts, after="2 days") == 1
    store.container = here
    assert await rows(app, run) == []
    assert await look(artifacts, after="2 min") == 1
    assert ([row.path for row in await rows(app, run)], await watched(artifacts)) == (["f"], 0)


@on_azure
async def test_files_of_logged_models_are_uploaded_by_url_too(
    client: httpx.AsyncClient, app: FastAPI, azure: httpx.AsyncClient, artifacts: Artifacts, run: Run
) -> None:
    for source, after in ((run.run_id, "1 min"), ("", "1 hour")):  # the second look is at the first file again
        body = {"experiment_id": "0", "name": "m", **({"source_run_id": source} if source else {})}
        model = (await client.post("/api/2.0/mlflow/logged-models", json=body)).json()["model"]["info"]
        await send(azure, await upload_url(client, model_id=model["model_id"], path="MLmodel"), b"1")
        root = model["artifact_uri"].removeprefix("mlflow-artifacts:/")
        assert (await client.get(f"{SERVICE}/{root}/MLmodel")).content == b"1"
        assert await look(artifacts, after=after) == 1
        assert await watched(artifacts) == 1, "the file of a model that no run made is recorded nowhere"
    assert [(row.path, row.md5) for row in await rows(app, run)] == [("MLmodel", md5(b"1"))]


@on_azure
async def test_a_file_deleted_after_its_upload_is_not_there(
    client: httpx.AsyncClient, app: FastAPI, azure: httpx.AsyncClient, artifacts: Artifacts, run: Run
) -> None:
    signed = await upload_url(client, run_id=run.run_id, path="d/f")
    await send(azure, signed, b"1")
    assert (await client.delete(f"{SERVICE}/{run.root}/d")).status_code == 200
    assert await look(artifacts) == 1
    assert all(row.deleted for row in await rows(app, run))
    await send(azure, signed, b"2")
    assert await look(artifacts, after="1 min") == 1
    assert [(row.md5, row.deleted) for row in await rows(app, run)] == [(md5(b"2"), False)]


BAD: list[tuple[str, Any, int]] = [
    (UPLOAD, {"path": "f"}, 400),
    (UPLOAD, {"run_id": "{run}", "model_id": "m-1", "path": "f"}, 400),
    (UPLOAD, {"run_id": "{run}"}, 400),
    (UPLOAD, {"run_id": "{run}", "path": ""}, 400),
    (UPLOAD, {"run_id": "{run}", "path": "d/"}, 400),
    (UPLOAD, {"run_id": "{run}", "path": 7}, 400),
    (UPLOAD, {"run_id": "{run}", "path": "f", "expiration": 0}, 400),
    (UPLOAD, {"run_id": "{run}", "path": "f", "expiration": 604801}, 400),
    (UPLOAD, {"run_id": "{run}", "path": "f", "expiration": "soon"}, 400),
    (UPLOAD, {"run_id": "f" * 32, "path": "f"}, 404),
    (UPLOAD, {"run_id": "../x", "path": "f"}, 404),
    (UPLOAD, {"model_id": "m-" + "0" * 32, "path": "f"}, 404),
    (UPLOAD, {"model_id": "../x", "path": "f"}, 404),
    (DOWNLOAD, {"path": "f"}, 400),
    (DOWNLOAD, {"run_id": "{run}"}, 400),
    (DOWNLOAD, {"run_id": "{run}", "path": "f", "expiration": 0}, 400),
    (DOWNLOAD, {"run_id": "{run}", "path": "f", "expiration": 604801}, 400),
    (DOWNLOAD, {"run_id": "f" * 32, "path": "f"}, 404),
    (DOWNLOAD, [], 400),
]


async def test_bad_requests_are_refused_in_mlflows_words(
    client: httpx.AsyncClient, artifacts: Artifacts, run: Run
) -> None:
    codes = {400: "INVALID_PARAMETER_VALUE", 404: "RESOURCE_DOES_NOT_EXIST"}
    for address, body, status in BAD:
        asked = {**body, "run_id": run.run_id} if isinstance(body, dict) and body.get("run_id") == "{run}" else body
        answer = await client.post(address, json=asked)
        assert (answer.status_code, answer.json()["error_code"]) == (status, codes[status]), (body, answer.text)
    assert await watched(artifacts) == 0


@on_azure
async def test_there_is_no_url_of_what_is_no_file(client: httpx.AsyncClient, run: Run) -> None:
    await put(client, f"{run.root}/d/f", b"1")
    for path, status in (("nothing", 404), ("d", 400)):
        for answer in (
            await client.get(f"{PRESIGNED}/{run.root}/{path}"),
            await client.post(DOWNLOAD, json={"run_id": run.run_id, "path": path}),
        ):
            assert answer.status_code == status, answer.text


@in_a_folder
async def test_a_folder_signs_nothing(client: httpx.AsyncClient, artifacts: Artifacts, run: Run) -> None:
    await put(client, f"{run.root}/f", b"1")
    answer = await client.get(f"{PRESIGNED}/{run.root}/f")
    assert (answer.status_code, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED")
    for address in (UPLOAD, DOWNLOAD):
        answer = await client.post(address, json={"run_id": run.run_id, "path": "f"})
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert await watched(artifacts) == 0

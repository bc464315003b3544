"""The artifact endpoints over HTTP, over both stores."""

import hashlib
import os

import httpx
import pytest
from fastapi import FastAPI

from runmirror.artifacts.store import Store
from tests.artifacts.conftest import Run

SERVICE = "/api/2.0/mlflow-artifacts/artifacts"


async def put(client: httpx.AsyncClient, path: str, data: bytes) -> None:
    answer = await client.put(f"{SERVICE}/{path}", content=data)
    assert (answer.status_code, answer.content) == (200, b""), answer.text


async def test_a_file_goes_up_and_comes_down(client: httpx.AsyncClient, run: Run) -> None:
    data = os.urandom(3_000_000)
    await put(client, f"{run.root}/d/model.bin", data)
    for address in (f"{SERVICE}/{run.root}/d/model.bin", f"/get-artifact?run_id={run.run_id}&path=d/model.bin"):
        answer = await client.get(address)
        assert answer.status_code == 200
        assert answer.content == data
        assert answer.headers["content-length"] == str(len(data))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == "attachment; filename=model.bin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox"
        head = await client.head(address, headers={"X-Request-Id": answer.headers["x-request-id"]})
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers == answer.headers


async def test_the_pages_of_mlflow_have_their_twins(client: httpx.AsyncClient, run: Run) -> None:
    twin = f"{SERVICE}/{run.root}/f".replace("/api/", "/ajax-api/")
    assert (await client.put(twin, content=b"1")).status_code == 200
    assert (await client.get(twin)).content == b"1"
    listed = await client.get("/ajax-api/2.0/mlflow/artifacts/list", params={"run_uuid": run.run_id})
    assert listed.json()["files"] == [{"path": "f", "is_dir": False, "file_size": 1}]
    assert (await client.delete(twin)).json() == {}
    assert (await client.get(twin)).status_code == 404


@pytest.mark.parametrize(
    ("name", "type_", "disposition"),
    [
        ("a.html", "text/html", "attachment; filename=a.html"),
        ("MLmodel", "text/plain", "attachment; filename=MLmodel"),
        ("conf.yaml", "text/plain", "attachment; filename=conf.yaml"),
        ("a b.png", "image/png", 'attachment; filename="a b.png"'),
        ('q".bin', "application/octet-stream", 'attachment; filename="q\\".bin"'),
        ("é.txt", "text/plain", "attachment; filename=e.txt; filename*=UTF-8''%C3%A9.txt"),
        ("日本", "application/octet-stream", "attachment; filename=download; filename*=UTF-8''%E6%97%A5%E6%9C%AC"),
        ("what?#;%.txt", "text/plain", 'attachment; filename="what?#;%.txt"'),
    ],
)
async def test_any_name_is_served_as_a_download(
    client: httpx.AsyncClient, run: Run, name: str, type_: str, disposition: str
) -> None:
    address = f"{SERVICE}/{run.root}/" + "".join(f"%{byte:02X}" for byte in name.encode())
    assert (await client.put(address, content=b"<script>")).status_code == 200
    answer = await client.get(address)
    assert answer.headers["content-type"].partition(";")[0] == type_
    assert answer.headers["content-disposition"] == disposition
    listed = await client.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run.run_id})
    assert [file["path"] for file in listed.json()["files"]] == [name]


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=0-3", 206, "bytes 0-3/11", b"hell"),
        ("bytes=6-", 206, "bytes 6-10/11", b"world"),
        ("bytes=-5", 206, "bytes 6-10/11", b"world"),
        ("bytes=-500", 206, "bytes 0-10/11", b"hello world"),
        ("bytes=10-500", 206, "bytes 10-10/11", b"d"),
        ("bytes=11-", 416, "bytes */11", b""),
        ("bytes=-0", 416, "bytes */11", b""),
        ("bytes=5-2", 200, None, b"hello world"),
        ("bytes=0-1,3-4", 200, None, b"hello world"),
        ("bytes=a-b", 200, None, b"hello world"),
        ("bytes=-", 200, None, b"hello world"),
        ("lines=0-1", 200, None, b"hello world"),
        ("bytes=" + "9" * 40 + "-", 200, None, b"hello world"),
    ],
)
async def test_one_range_is_served_and_the_rest_is_passed_over(
    client: httpx.AsyncClient, run: Run, *, asked: str, status: int, content_range: str | None, body: bytes
) -> None:
    await put(client, f"{run.root}/f", b"hello world")
    answer = await client.get(f"{SERVICE}/{run.root}/f", headers={"Range": asked})
    assert (answer.status_code, answer.headers.get("content-range"), answer.content) == (status, content_range, body)
    assert answer.headers["content-length"] == str(len(body))


async def test_an_empty_file_has_no_ranges(client: httpx.AsyncClient, run: Run) -> None:
    await put(client, f"{run.root}/f", b"")
    address = f"{SERVICE}/{run.root}/f"
    assert (await client.get(address)).content == b""
    for asked in ("bytes=0-0", "bytes=-1"):
        answer = await client.get(address, headers={"Range": asked})
        assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */0")


async def test_a_range_of_another_version_is_not_mixed_in(client: httpx.AsyncClient, run: Run) -> None:
    await put(client, f"{run.root}/f", b"old bytes")
    address = f"{SERVICE}/{run.root}/f"
    etag = (await client.get(address)).headers["etag"]
    same = await client.get(address, headers={"Range": "bytes=0-2", "If-Range": etag})
    assert (same.status_code, same.content) == (206, b"old")
    cached = await client.get(address, headers={"If-None-Match": f'"x", W/{etag}'})
    assert (cached.status_code, cached.content, cached.headers["etag"]) == (304, b"", etag)
    for asked, status in ((etag, 304), (f'"x", W/{etag}', 304), ("*", 304), ('"x"', 200)):
        head = await client.head(address, headers={"If-None-Match": asked, "Range": "bytes=0-2"})
        assert (head.status_code, head.content, head.headers["etag"]) == (status, b"", etag)
    await put(client, f"{run.root}/f", b"new bytes!")
    changed = await client.get(address, headers={"Range": "bytes=0-2", "If-Range": etag})
    assert (changed.status_code, changed.content) == (200, b"new bytes!")
    assert (await client.get(address, headers={"If-None-Match": etag})).status_code == 200


async def test_listing_speaks_of_names_or_of_paths_in_the_run(client: httpx.AsyncClient, run: Run) -> None:
    await put(client, f"{run.root}/d/f", b"123")
    files = [{"path": "f", "is_dir": False, "file_size": 3}]
    for folder in (f"{run.root}/d", f"{run.root}/d/"):
        assert (await client.get(SERVICE, params={"path": folder})).json() == {"files": files}
    root = {"root_uri": f"mlflow-artifacts:/{run.root}"}
    for asked, expected in (
        ({}, root | {"files": [{"path": "d", "is_dir": True}]}),
        ({"path": ""}, root | {"files": [{"path": "d", "is_dir": True}]}),
        ({"path": "d"}, root | {"files": [{"path": "d/f", "is_dir": False, "file_size": 3}]}),
        ({"path": "d/f"}, root),
        ({"path": "nothing"}, root),
        ({"path": "d", "page_token": "x"}, root | {"files": [{"path": "d/f", "is_dir": False, "file_size": 3}]}),
    ):
        answer = await client.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run.run_id} | asked)
        assert answer.json() == expected
    assert (await client.get(SERVICE, params={"path": "nothing"})).json() == {}


@pytest.mark.parametrize(
    ("method", "address", "status", "code"),
    [
        ("GET", SERVICE + "/{root}/nothing", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("GET", SERVICE + "/{root}/d", 400, "INVALID_PARAMETER_VALUE"),
        ("GET", SERVICE + "/{root}/d/", 400, "INVALID_PARAMETER_VALUE"),
        ("GET", SERVICE + "/", 400, "INVALID_PARAMETER_VALUE"),
        ("PUT", SERVICE + "/", 400, "INVALID_PARAMETER_VALUE"),
        ("PUT", SERVICE + "/{root}/d/", 400, "INVALID_PARAMETER_VALUE"),
        ("PUT", SERVICE + "/{root}", 400, "INVALID_PARAMETER_VALUE"),
        ("PUT", SERVICE + "/0", 400, "INVALID_PARAMETER_VALUE"),
        ("PUT", SERVICE + "/0/models", 400, "INVALID_PARAMETER_VALUE"),
        ("PUT", SERVICE + "/0/{run}", 400, "INVALID_PARAMETER_VALUE"),
        ("PUT", SERVICE + "/.uploads/x", 400, "INVALID_PARAMETER_VALUE"),
        ("PUT", SERVICE, 404, "ENDPOINT_NOT_FOUND"),
        ("DELETE", SERVICE, 404, "ENDPOINT_NOT_FOUND"),
        ("DELETE", SERVICE + "/", 400, "INVALID_PARAMETER_VALUE"),
        ("DELETE", SERVICE + "/0", 400, "INVALID_PARAMETER_VALUE"),
        ("DELETE", SERVICE + "/.uploads", 400, "INVALID_PARAMETER_VALUE"),
        ("GET", "/get-artifact?run_id={run}", 400, "INVALID_PARAMETER_VALUE"),
        ("GET", "/get-artifact?run_id={run}&path=", 400, "INVALID_PARAMETER_VALUE"),
        ("GET", "/get-artifact?run_id={run}&path=d", 400, "INVALID_PARAMETER_VALUE"),
        ("GET", "/get-artifact?run_id={run}&path=nothing", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("GET", "/get-artifact?path=d/f", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("GET", "/get-artifact?run_id=../{run}&path=d/f", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("GET", "/get-artifact?run_id=" + "f" * 32 + "&path=d/f", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("GET", "/api/2.0/mlflow/artifacts/list", 400, "INVALID_PARAMETER_VALUE"),
        ("GET", "/api/2.0/mlflow/artifacts/list?run_id=nope", 404, "RESOURCE_DOES_NOT_EXIST"),
    ],
)
async def test_bad_requests_are_told_in_mlflows_words_and_change_nothing(
    client: httpx.AsyncClient, store: Store, run: Run, *, method: str, address: str, status: int, code: str
) -> None:
    await put(client, f"{run.root}/d/f", b"kept")
    answer = await client.request(method, address.format(root=run.root, run=run.run_id))
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
    assert (await client.get(f"{SERVICE}/{run.root}/d/f")).content == b"kept"
    assert [entry.path for entry in await store.list("")] == ["0"]
    assert [entry.name for entry in await store.list("0")] == [run.run_id]


async def test_a_run_elsewhere_is_not_served(client: httpx.AsyncClient, app: FastAPI, run: Run) -> None:
    async with app.state.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE runs SET artifact_uri = 'file:///etc'")
    for address in ("/get-artifact?path=passwd", "/api/2.0/mlflow/artifacts/list?path=passwd"):
        answer = await client.get(f"{address}&run_id={run.run_id}")
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


async def test_an_upload_has_no_limit_of_a_json_body(client: httpx.AsyncClient, run: Run) -> None:
    data = os.urandom(33 * 1024**2)
    await put(client, f"{run.root}/big", data)
    answer = await client.get(f"{SERVICE}/{run.root}/big")
    assert hashlib.md5(answer.content).digest() == hashlib.md5(data).digest()

"""Multipart uploads: a client sends the parts to Azure Blob itself, and we make the file of them and record it."""

import base64
import os
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from runmirror.artifacts.direct import MAX_PARTS
from runmirror.artifacts.store import Store
from tests.artifacts.conftest import Run
from tests.artifacts.recorded import Row, rows, seq
from tests.artifacts.test_routes import SERVICE, put

MULTIPART = "/api/2.0/mlflow-artifacts/mpu"
on_azure = pytest.mark.parametrize("settings", ["blob"], indirect=True)
in_a_folder = pytest.mark.parametrize("settings", ["folder"], indirect=True)


@pytest.fixture
async def azure() -> AsyncIterator[httpx.AsyncClient]:
    """A client that speaks to Azure itself."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as made:
        yield made


async def begin(client: httpx.AsyncClient, folder: str, name: str, parts: int) -> dict[str, Any]:
    answer = await client.post(f"{MULTIPART}/create/{folder}", json={"path": name, "num_parts": parts})
    assert answer.status_code == 200, answer.text
    created: dict[str, Any] = answer.json()
    assert [credential["part_number"] for credential in created["credentials"]] == list(range(1, parts + 1))
    return created


async def send(azure: httpx.AsyncClient, created: dict[str, Any], parts: list[bytes]) -> list[dict[str, Any]]:
    sent = []
    for credential, data in zip(created["credentials"], parts, strict=False):
        answer = await azure.put(credential["url"], content=data)
        assert answer.status_code == 201, answer.text
        sent.append({"part_number": credential["part_number"], "etag": "", "url": credential["url"]})
    return sent


async def end(
    client: httpx.AsyncClient, folder: str, name: str, created: dict[str, Any], parts: list[dict[str, Any]]
) -> httpx.Response:
    body = {"path": name, "upload_id": created["upload_id"], "parts": parts}
    return await client.post(f"{MULTIPART}/complete/{folder}", json=body)


@on_azure
async def test_a_finished_upload_is_one_change_of_its_run(
    client: httpx.AsyncClient, app: FastAPI, azure: httpx.AsyncClient, run: Run
) -> None:
    parts = [os.urandom(300_000), os.urandom(300_000), b"the end"]
    before = await seq(app, run)
    created = await begin(client, f"{run.root}/d", "/somewhere/at home/big é.bin", 3)
    sent = await send(azure, created, parts)
    assert (await client.get(f"{SERVICE}/{run.root}/d/big é.bin")).status_code == 404, "visible before its end"
    assert await rows(app, run) == []
    answer = await end(client, f"{run.root}/d", "/somewhere/at home/big é.bin", created, sent)
    assert (answer.status_code, answer.json()) == (200, {}), answer.text
    whole = b"".join(parts)
    assert (await client.get(f"{SERVICE}/{run.root}/d/big é.bin")).content == whole
    assert await rows(app, run) == [Row("d/big é.bin", len(whole), None, False, before + 1)]
    assert await seq(app, run) == before + 1
    again = await end(client, f"{run.root}/d", "big é.bin", created, sent)
    assert again.status_code == 200, "a client that missed the answer may ask again"
    assert (await client.get(f"{SERVICE}/{run.root}/d/big é.bin")).content == whole


@on_azure
async def test_a_part_is_signed_for_one_file_one_right_and_an_hour(
    client: httpx.AsyncClient, azure: httpx.AsyncClient, run: Run
) -> None:
    created = await begin(client, run.root, "f", 2)
    first, second = (urlsplit(credential["url"]) for credential in created["credentials"])
    signed = {name: values[0] for name, values in parse_qs(first.query).items()}
    assert first.path.endswith(f"/below/here/{run.root}/f")
    assert (signed["sr"], signed["sp"], signed["comp"]) == ("b", "w", "block")
    assert first.query.replace(signed["blockid"], "") != second.query
    blocks = [base64.b64decode(parse_qs(part.query)["blockid"][0]).decode() for part in (first, second)]
    assert [block.rpartition("-")[2] for block in blocks] == ["00001", "00002"]
    url = first._replace(query=first.query.partition("&comp=")[0])
    await put(client, f"{run.root}/f", b"secret")
    assert (await azure.get(url.geturl())).status_code == 403, "it reads"
    assert (await azure.delete(url.geturl())).status_code == 403, "it deletes"
    elsewhere = first._replace(path=first.path + "2").geturl()
    assert (await azure.put(elsewhere, content=b"1")).status_code == 403, "it writes elsewhere"


@on_azure
async def test_wrong_or_missing_parts_are_refused_and_change_nothing(
    client: httpx.AsyncClient, app: FastAPI, azure: httpx.AsyncClient, run: Run
) -> None:
    await put(client, f"{run.root}/f", b"before")
    recorded = await rows(app, run)
    created, other = await begin(client, run.root, "f", 3), await begin(client, run.root, "f", 3)
    sent = await send(azure, created, [b"1", b"2"])  # the third part never comes
    third = {"part_number": 3}
    for parts in (
        [*sent, third], sent, sent[:1], [*sent, sent[0]], [*sent, third, third], [*sent, {"part_number": 4}],
        [{"part_number": 0}, *sent], [{"part_number": -1}], [{}], [{"part_number": "x"}], [], None, "parts", [[]],
    ):  # fmt: skip
        answer = await end(client, run.root, "f", created, parts)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), parts
    empty = await end(client, run.root, "f", {"upload_id": "0" * 26 + "p00000"}, [])
    assert empty.status_code == 400
    shorter = created["upload_id"].replace("p00003", "p00002")
    for upload_id in (shorter, other["upload_id"], "", "../x", "p00003", created["upload_id"] + "0", 7, None):
        answer = await end(client, run.root, "f", {"upload_id": upload_id}, sent)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), upload_id
    elsewhere = await end(client, run.root, "g", created, [*sent, third])
    assert elsewhere.status_code == 400
    assert (await client.get(f"{SERVICE}/{run.root}/f")).content == b"before"
    assert await rows(app, run) == recorded
    sent += [{"part_number": 3}]
    await azure.put(created["credentials"][2]["url"], content=b"3")
    assert (await end(client, run.root, "f", created, sent)).status_code == 200, "until then it could still end well"
    assert (await client.get(f"{SERVICE}/{run.root}/f")).content == b"123"


@on_azure
async def test_an_upload_overtaken_by_another_of_the_same_file_is_refused(
    client: httpx.AsyncClient, app: FastAPI, azure: httpx.AsyncClient, run: Run
) -> None:
    created = await begin(client, run.root, "f", 1)
    sent = await send(azure, created, [b"slow"])
    faster = await begin(client, run.root, "f", 1)
    await end(client, run.root, "f", faster, await send(azure, faster, [b"fast"]))
    recorded = await rows(app, run)
    assert (await end(client, run.root, "f", created, sent)).status_code == 400
    assert (await client.get(f"{SERVICE}/{run.root}/f")).content == b"fast"
    assert await rows(app, run) == recorded


@on_azure
async def test_an_aborted_upload_leaves_nothing(
    client: httpx.AsyncClient, app: FastAPI, azure: httpx.AsyncClient, store: Store, run: Run
) -> None:
    before = await seq(app, run)
    created = await begin(client, run.root, "f", 2)
    await send(azure, created, [b"1"])
    body = {"path": "f", "upload_id": created["upload_id"]}
    answer = await client.post(f"{MULTIPART}/abort/{run.root}", json=body)
    assert (answer.status_code, answer.json()) == (200, {})
    assert await store.list("") == []
    assert (await rows(app, run), await seq(app, run)) == ([], before)


@on_azure
async def test_the_number_of_parts_has_its_bounds(client: httpx.AsyncClient, run: Run) -> None:
    created = await begin(client, run.root, "f", MAX_PARTS)
    assert len({credential["url"] for credential in created["credentials"]}) == MAX_PARTS
    for parts in (0, -1, MAX_PARTS + 1, 2**62, "x", 1.5, True, None):
        answer = await client.post(f"{MULTIPART}/create/{run.root}", json={"path": "f", "num_parts": parts})
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), parts
        falls_back = answer.json()["message"].startswith("Multipart upload is not supported for the current artifact")
        assert falls_back == (parts in {MAX_PARTS + 1, 2**62}), "then the client sends the file through us"


@on_azure
async def test_what_belongs_to_no_run_is_uploaded_all_the_same(
    client: httpx.AsyncClient, azure: httpx.AsyncClient, store: Store
) -> None:
    created = await begin(client, "loose/folder/", "C:\\Users\\me\\f.bin", 1)
    sent = await send(azure, created, [b"1"])
    assert (await end(client, "loose/folder", "C:\\Users\\me\\f.bin", created, sent)).status_code == 200
    assert [entry.path for entry in await store.list("loose/folder")] == ["loose/folder/f.bin"]


@on_azure
async def test_the_folder_of_a_run_is_no_file(client: httpx.AsyncClient, run: Run) -> None:
    for folder, name in (("0", run.run_id), (f"0/{run.run_id}", "artifacts")):
        for step in ("create", "complete"):
            body = {"path": name, "num_parts": 1, "upload_id": "0" * 26 + "p00001", "parts": [{"part_number": 1}]}
            answer = await client.post(f"{MULTIPART}/{step}/{folder}", json=body)
            assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@in_a_folder
async def test_a_folder_says_what_makes_clients_send_the_file_through_us(client: httpx.AsyncClient, run: Run) -> None:
    body = {"path": "f", "num_parts": 1, "upload_id": "x", "parts": [{"part_number": 1}]}
    for step in ("create", "complete", "abort"):
        answer = await client.post(f"{MULTIPART}/{step}/{run.root}", json=body)
        assert (answer.status_code, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED")
        sentence = "Multipart upload is not supported for the current artifact repository"
        assert answer.json()["message"].startswith(sentence)

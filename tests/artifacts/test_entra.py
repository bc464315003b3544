"""The artifact store reached with an identity of Entra instead of the account's key."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from azure.storage.blob.aio import BlobServiceClient

from azureml_emulator.tls import make_certificates
from runmirror.artifacts.blob import BlobStore, service_of_identity
from tests.artifacts.azurite import start_azurite
from tests.artifacts.test_store import chunks, content
from tests.azureml_emulator.process import start_emulator

SOON = timedelta(minutes=5)


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BlobStore]:
    """A store as `BlobStore.at` makes it without a connection string: token from Entra, TLS by our own bundle."""
    tls = make_certificates(tmp_path, ("localhost",))
    options = ("--oauth", "basic", "--cert", str(tls.certificate_file), "--key", str(tls.key_file))
    (tmp_path / "azurite").mkdir()
    (tmp_path / "entra").mkdir()
    with start_azurite(tmp_path / "azurite", *options) as address, start_emulator(tmp_path / "entra") as entra:
        for name, value in entra.env().items():
            if name.startswith(("AZURE_", "HTTPS_")):
                monkeypatch.setenv(name, value)
        monkeypatch.setenv("NO_PROXY", "localhost")
        bundle = _joined(tmp_path / "bundle.pem", tls.ca_file, Path(entra.ca_file))
        service, credential = service_of_identity(address.replace("127.0.0.1", "localhost"), str(bundle))
        made = BlobStore(service, "files", "below", credential)
        await made.container.create_container()
        yield made
        await made.close()


def _joined(bundle: Path, *authorities: Path) -> Path:
    bundle.write_text("".join(authority.read_text() for authority in authorities))
    return bundle


async def test_an_identity_of_entra_reads_writes_and_signs(store: BlobStore, tmp_path: Path) -> None:
    await store.write("d/f", chunks(b"hello"))
    assert await content(store, "d/f") == b"hello"
    assert [entry.path for entry in await store.list("d")] == ["d/f"]
    assert await store.problem() is None
    assert store.direct is not None
    direct = store.direct
    urls = await asyncio.gather(
        *(direct.sign_download("d/f", SOON, disposition="attachment", content_type="text/plain") for _ in range(3))
    )
    signed = [{name: values[0] for name, values in parse_qs(urlsplit(url).query).items()} for url in urls]
    assert {(each["sp"], each["sr"], each["spr"]) for each in signed} == {("r", "b", "https")}
    assert len({each["ske"] for each in signed}) == 1, "one key lent by Azure signs many URLs"
    trust = ssl.create_default_context(cafile=tmp_path / "bundle.pem")
    async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
        answer = await client.get(urls[0])
        assert (answer.status_code, answer.content) == (200, b"hello")
        link = await store.link("d/f", SOON)
        assert link is not None
        assert (await client.get(link.url)).content == b"hello"
        assert (await client.put(link.url, content=b"", headers={"x-ms-blob-type": "BlockBlob"})).status_code == 403
        upload_id, parts = await direct.sign_parts("d/big", 2, SOON)
        for url, data in zip(parts, (b"one", b"two"), strict=True):
            assert (await client.put(url, content=data)).status_code == 201
        assert (await direct.commit_parts("d/big", upload_id, 2)).size_bytes == 6
    assert await content(store, "d/big") == b"onetwo"


async def test_a_store_that_cannot_sign_has_no_links_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    service = BlobServiceClient("https://nobody.blob.core.windows.net", credential="sv=2021-08-06&sig=abc")
    store = BlobStore(service, "files", "below")
    assert [await store.link("d/f", SOON) for _ in range(3)] == [None] * 3
    await store.close()
    (told,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "cannot sign" in told

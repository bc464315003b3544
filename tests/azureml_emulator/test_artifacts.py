"""Artifacts are write-once, and a blob URL is good for one blob, one purpose and a while."""

import base64
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.azureml_emulator.process import EmulatorProcess
from tests.azureml_emulator.rest import Json, Rest, stored_run

ONLY_NEW = {"If-None-Match": "*"}
STRANGE = "d/ä b+c?#%&=.txt"


def _code(answer: object) -> tuple[int, str]:
    return answer.status_code, answer.headers["x-ms-error-code"]  # type: ignore[attr-defined]


def test_what_was_uploaded_is_downloaded_and_hashed(rest: Rest) -> None:
    run = rest.run()
    content = bytes(range(256)) * 1000
    assert rest.put(rest.write_url(run, STRANGE), content, **ONLY_NEW).status_code == 201
    answer = rest.client.get(rest.read_url(run, STRANGE))
    assert answer.content == content
    assert answer.headers["x-ms-blob-type"] == "BlockBlob"
    assert answer.headers["content-md5"] == base64.b64encode(hashlib.md5(content).digest()).decode()
    (stored,) = stored_run(rest.emulator, run)["artifacts"]
    assert (stored["path"], stored["size"]) == (STRANGE, len(content))
    assert stored["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_registered_path_conflicts_and_the_others_do_not(rest: Rest) -> None:
    run = rest.run()
    rest.register(run, "a")
    maps = rest.register(run, "a", "b", "../c")
    assert list(maps["artifacts"]) == list(maps["artifactContentInformation"]) == ["b"]
    error = maps["errors"]["a"]["error"]
    assert error["code"] == "UserError"
    artifact_id = f"ExperimentRun/dcid.{run['run_id']}/a"
    assert error["message"] == f"Resource Conflict: ArtifactId {artifact_id} already exists."
    assert "../c" in maps["errors"]


def test_a_registered_artifact_without_bytes_shows_as_such(rest: Rest) -> None:
    run = rest.run()
    rest.register(run, "never")
    assert stored_run(rest.emulator, run)["artifacts"][0]["size"] is None
    assert _code(rest.client.get(rest.read_url(run, "never"))) == (404, "BlobNotFound")


def test_an_existing_blob_is_kept_when_asked_and_replaced_when_not(rest: Rest) -> None:
    run = rest.run()
    url = rest.write_url(run, "f")
    rest.put(url, b"one", **ONLY_NEW)
    refused = rest.put(url, b"two", **ONLY_NEW)
    assert _code(refused) == (409, "BlobAlreadyExists")
    assert refused.text.startswith('<?xml version="1.0" encoding="utf-8"?><Error><Code>BlobAlreadyExists</Code>')
    assert rest.put(url, b"three").status_code == 201
    assert rest.client.get(rest.read_url(run, "f")).content == b"three"


def test_a_write_url_for_an_existing_artifact_depends_on_the_switch(rest: Rest, emulator: EmulatorProcess) -> None:
    run = rest.run()
    rest.put(rest.write_url(run, "f"), b"one")
    path = f"/artifacts/write/ExperimentRun/dcid.{run['run_id']}/f"
    granted = rest.artifact("GET", path).json()["contentUri"]
    assert rest.put(granted, b"two").status_code == 201
    emulator.change_settings(write_sas=False)
    assert rest.artifact("GET", path).status_code == 404


def test_a_deleted_artifact_may_be_registered_again(rest: Rest) -> None:
    run = rest.run()
    rest.put(rest.write_url(run, "f"), b"one")
    assert rest.artifact("DELETE", f"/artifacts/metadata/ExperimentRun/dcid.{run['run_id']}/f").status_code == 200
    assert rest.put(rest.write_url(run, "f"), b"two", **ONLY_NEW).status_code == 201


def test_a_changed_url_is_refused(rest: Rest) -> None:
    run = rest.run()
    url = rest.write_url(run, "f")
    other = rest.write_url(run, "g").partition("?")[0]
    rest.put(url, b"one")
    read = rest.read_url(run, "f")
    changed = [
        other + "?" + url.partition("?")[2],
        url.replace("sig=", "sig=A"),
        url.replace("sp=rcw", "sp=rcwd"),
        read.replace("sp=r", "sp=rcw"),
        read.replace("se=20", "se=30"),
        url.partition("?")[0],
    ]
    for wrong in changed:
        assert _code(rest.put(wrong, b"bad")) == (403, "AuthenticationFailed")
    assert _code(rest.put(read, b"bad")) == (403, "AuthorizationPermissionMismatch")
    assert rest.client.get(read).content == b"one"


def test_a_bearer_token_is_no_credential_for_blobs(rest: Rest) -> None:
    run = rest.run()
    url = rest.write_url(run, "f")
    bearer = {"Authorization": f"Bearer {rest.token}"}
    assert _code(rest.put(url, b"x", **bearer)) == (403, "AuthenticationFailed")
    assert _code(rest.put(url.partition("?")[0], b"x", **bearer)) == (403, "AuthenticationFailed")


def test_a_url_dies_when_its_time_is_over(rest: Rest, emulator: EmulatorProcess) -> None:
    emulator.change_settings(sas_lifetime=0.5)
    url = rest.write_url(rest.run(), "f")
    assert rest.put(url, b"x").status_code == 201
    time.sleep(1.6)  # URLs expire at whole seconds
    assert _code(rest.put(url, b"x")) == (403, "AuthenticationFailed")


def test_a_blob_of_blocks_appears_when_its_list_is_put(rest: Rest) -> None:
    run = rest.run()
    url = rest.write_url(run, "big")
    ids = [base64.b64encode(f"{number:06}".encode()).decode() for number in range(3)]
    for number, block_id in enumerate(ids):
        answer = rest.client.put(
            url, params={**_query(url), "comp": "block", "blockid": block_id}, content=b"%d" % number
        )
        assert answer.status_code == 201
    assert _code(rest.client.get(rest.read_url(run, "big"))) == (404, "BlobNotFound")
    commit = {**_query(url), "comp": "blocklist"}
    wrong = f"<BlockList><Latest>{base64.b64encode(b'000009').decode()}</Latest></BlockList>"
    assert _code(rest.client.put(url, params=commit, content=wrong)) == (400, "InvalidBlockList")
    listed = "".join(f"<Latest>{block_id}</Latest>" for block_id in reversed(ids))
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'
    assert rest.client.put(url, params=commit, content=body, headers=ONLY_NEW).status_code == 201
    assert rest.client.get(rest.read_url(run, "big")).content == b"210"
    assert _code(rest.client.put(url, params=commit, content=body, headers=ONLY_NEW)) == (409, "BlobAlreadyExists")


def test_blocks_that_wait_for_their_list_are_told_until_it_comes(rest: Rest) -> None:
    url = rest.write_url(rest.run(), "big")
    waiting = {**_query(url), "comp": "blocklist", "blocklisttype": "uncommitted"}
    assert _code(rest.client.get(url, params=waiting)) == (404, "BlobNotFound")
    block = {**_query(url), "comp": "block", "blockid": (name := base64.b64encode(b"one").decode())}
    assert rest.client.put(url, params=block, content=b"12345").status_code == 201
    assert f"<Name>{name}</Name><Size>5</Size>" in rest.client.get(url, params=waiting).text
    other_length = {**block, "blockid": base64.b64encode(b"longer").decode()}
    assert _code(rest.client.put(url, params=other_length, content=b"x")) == (400, "InvalidBlobOrBlock")
    assert _code(rest.client.put(url, params=block, content=b"x", headers={"Content-MD5": "AAAA"})) == (
        400,
        "Md5Mismatch",
    )
    assert rest.put(url, b"").status_code == 201
    assert "<Name>" not in rest.client.get(url, params=waiting).text


@pytest.mark.parametrize("source", ["https://elsewhere.blob.core.windows.net/c/b?sig=1", "http://127.0.0.1:1/c/b"])
def test_a_source_that_is_not_there_or_not_for_us_is_not_copied(rest: Rest, source: str) -> None:
    url = rest.write_url(rest.run(), "f")
    refused = rest.put(url, b"", **{"x-ms-copy-source": source})
    assert refused.headers["x-ms-error-code"] == "CannotVerifyCopySource"
    assert refused.status_code in {403, 404}


def _query(url: str) -> dict[str, str]:
    return dict(httpx.URL(url).params)


@pytest.mark.parametrize("header", ["x-ms-range", "Range"])
def test_ranges_are_served_in_part(rest: Rest, header: str) -> None:
    run = rest.run()
    rest.put(rest.write_url(run, "f"), b"0123456789")
    url = rest.read_url(run, "f")
    part = rest.client.get(url, headers={header: "bytes=2-4"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    tail = rest.client.get(url, headers={header: "bytes=8-99"})
    assert (tail.content, tail.headers["content-range"]) == (b"89", "bytes 8-9/10")
    assert rest.client.get(url, headers={header: "bytes=5-"}).content == b"56789"
    assert _code(rest.client.get(url, headers={header: "bytes=10-"})) == (416, "InvalidRange")
    head = rest.client.head(url)
    assert (head.headers["content-length"], head.content) == ("10", b"")
    assert _code(rest.client.get(url, headers={"If-Match": '"other"'})) == (412, "ConditionNotMet")


def test_an_empty_blob_has_no_range(rest: Rest) -> None:
    run = rest.run()
    rest.put(rest.write_url(run, "empty"), b"")
    url = rest.read_url(run, "empty")
    assert _code(rest.client.get(url, headers={"x-ms-range": "bytes=0-33554431"})) == (416, "InvalidRange")
    assert rest.client.get(url).content == b""
    assert stored_run(rest.emulator, run)["artifacts"][0]["size"] == 0


def test_an_upload_needs_its_type_and_fits_its_checksum(rest: Rest) -> None:
    url = rest.write_url(rest.run(), "f")
    assert _code(rest.client.put(url, content=b"x")) == (400, "MissingRequiredHeader")
    wrong = base64.b64encode(hashlib.md5(b"y").digest()).decode()
    assert _code(rest.put(url, b"x", **{"Content-MD5": wrong})) == (400, "Md5Mismatch")
    assert rest.emulator.state()["artifacts"][0]["size"] is None


def test_a_broken_upload_leaves_nothing(rest: Rest) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"x" * 200_000
        raise ConnectionAbortedError

    url = rest.write_url(rest.run(), "f")
    headers = {"x-ms-blob-type": "BlockBlob", "Content-Length": "400000"}
    with pytest.raises(ConnectionAbortedError):
        rest.client.put(url, content=breaking(), headers=headers)
    assert rest.put(url, b"whole", **ONLY_NEW).status_code == 201
    blobs = Path(rest.emulator.ca_file).parent / "blobs"
    assert [file.stat().st_size for file in blobs.iterdir()] == [5]


def test_a_long_upload_uses_no_more_memory_than_a_short_one(rest: Rest) -> None:
    def peak() -> int:
        status = Path(f"/proc/{rest.emulator.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    run = rest.run()
    rest.put(rest.write_url(run, "short"), b"x" * 100_000)
    before = peak()
    block = b"x" * 1_000_000
    headers = {"x-ms-blob-type": "BlockBlob", "Content-Length": str(100 * len(block))}
    url = rest.write_url(run, "long")
    assert rest.client.put(url, content=(block for _ in range(100)), headers=headers).status_code == 201
    size = 0
    with rest.client.stream("GET", rest.read_url(run, "long")) as answer:
        for chunk in answer.iter_bytes():
            size += len(chunk)
    assert size == 100_000_000
    assert peak() - before < 20_000  # KiB


def test_listings_come_in_pages_by_link_and_by_token(rest: Rest, emulator: EmulatorProcess) -> None:
    emulator.change_settings(artifact_page_size=2)
    run = rest.run()
    paths = ["a", "b/1", "b/2", "b2", "c d"]
    rest.register(run, *paths)
    by_link, url = [], rest.emulator.api_url
    page: Json = rest.history("GET", rest.artifacts_of(run)).json()
    while True:
        by_link += [entry["path"] for entry in page["value"]]
        if page["nextLink"] is None:
            break
        assert page["nextLink"].startswith(url)
        page = rest.client.get(page["nextLink"], headers={"Authorization": f"Bearer {rest.token}"}).json()
    by_token: list[str] = []
    query: Json = {}
    while True:
        page = rest.artifact("GET", f"/artifacts/ExperimentRun/dcid.{run['run_id']}", params=query).json()
        by_token += [entry["path"] for entry in page["value"]]
        query = {"continuationToken": page["continuationToken"]}
        if page["continuationToken"] is None:
            break
    assert by_link == by_token == paths


def test_both_route_orders_of_the_artifact_service_answer(rest: Rest) -> None:
    body = {"paths": [{"path": "m/f 1"}]}
    first = rest.artifact("POST", "/artifacts/LocalUpload/c1/batch/metadata", json=body).json()
    headers = {"Content-Type": "application/json-patch+json; charset=utf-8"}
    second = rest.artifact("POST", "/artifacts/batch/metadata/LocalUpload/c2", json=body, headers=headers).json()
    assert first["artifacts"]["m/f 1"]["artifactId"] == "LocalUpload/c1/m/f 1"
    assert second["artifacts"]["m/f 1"]["artifactId"] == "LocalUpload/c2/m/f 1"
    for path in (
        "/artifacts/contentinfo/LocalUpload/c1/m/f%201",
        "/artifacts/LocalUpload/c1/contentinfo?path=m/f%201",
    ):
        assert "sig=" in rest.artifact("GET", path).json()["contentUri"]
    below = rest.artifact("GET", "/artifacts/prefix/contentinfo/LocalUpload/c1/m").json()["value"]
    assert [entry["path"] for entry in below] == ["m/f 1"]
    unknown = rest.artifact("GET", "/artifacts/contentinfo/LocalUpload/c1/none")
    assert (unknown.status_code, unknown.json()["error"]["innerError"]["code"]) == (404, "NotFoundError")


def test_content_goes_through_the_service_too(rest: Rest) -> None:
    place = "/artifacts/content/LocalUpload/c/x.bin"
    assert rest.artifact("POST", place, content=b"bytes").json()["path"] == "x.bin"
    assert rest.artifact("GET", place).content == b"bytes"
    assert rest.artifact("POST", place, content=b"again").status_code == 409

"""What every store does, over a folder and over Azure Blob alike."""

import asyncio
import hashlib
import os
import re
import resource
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from runmirror.artifacts import blob, local
from runmirror.artifacts.local import LocalStore
from runmirror.artifacts.store import Entry, Store, Written, create_store
from runmirror.errors import ArtifactNotFound, Busy, InvalidParameter, Unavailable
from runmirror.settings import Settings
from tests.artifacts.azurite import ACCOUNT
from tests.faults.disk import full, small_disk

MEBIBYTE = 1024**2


class BrokenOff(Exception):
    """The sender went away."""


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def broken(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise BrokenOff


async def content(store: Store, path: str, start: int = 0, end: int | None = None) -> bytes:
    opened = await store.read(path, start, end)
    return b"".join([chunk async for chunk in opened.stream])


def digest(data: bytes) -> Written:
    return Written(len(data), hashlib.md5(data).hexdigest())


@pytest.mark.parametrize("size", [0, 1, 5 * MEBIBYTE, 2 * blob.BLOCK_BYTES, 2 * blob.BLOCK_BYTES + 3])
async def test_a_file_comes_back_byte_for_byte(store: Store, size: int) -> None:
    data = os.urandom(size)
    parts = [data[at : at + 300_000] for at in range(0, size, 300_000)]
    assert await store.write("a/b/file.bin", chunks(*parts)) == digest(data)
    assert await content(store, "a/b/file.bin") == data
    assert await store.digest("a/b/file.bin") == digest(data)
    stat = await store.stat("a/b/file.bin")
    assert stat.size_bytes == size
    opened = await store.read("a/b/file.bin")
    await opened.aclose()
    assert (opened.size_bytes, opened.etag) == (stat.size_bytes, stat.etag)


async def test_a_part_of_a_file_can_be_read(store: Store) -> None:
    data = os.urandom(blob.READ_BYTES + 100)
    await store.write("f", chunks(data))
    assert await content(store, "f", 10) == data[10:]
    assert await content(store, "f", 10, 20) == data[10:20]
    assert await content(store, "f", 5, blob.READ_BYTES + 7) == data[5 : blob.READ_BYTES + 7]
    opened = await store.read("f", 3, 9)
    await opened.aclose()
    assert opened.size_bytes == len(data)


async def test_a_replaced_file_has_another_etag(store: Store) -> None:
    await store.write("f", chunks(b"one"))
    before = await store.stat("f")
    await store.write("f", chunks(b"two"))
    assert (await store.stat("f")).etag != before.etag
    assert before.etag.startswith('"')
    assert before.etag.endswith('"')


async def test_a_reader_keeps_the_version_it_opened_or_hears_of_the_change(store: Store) -> None:
    old = os.urandom(2 * blob.READ_BYTES)
    await store.write("f", chunks(old))
    opened = await store.read("f")
    await store.write("f", chunks(os.urandom(2 * blob.READ_BYTES)))
    got = bytearray()
    with suppress(Busy):
        async for chunk in opened.stream:
            got += chunk
    assert got
    assert old.startswith(got)


async def test_a_link_reads_one_file_for_a_while_where_the_store_has_urls(store: Store) -> None:
    await store.write("a/ü b%.bin", chunks(b"of others' use"))
    await store.write("a/secret", chunks(b"not yours"))
    link = await store.link("a/ü b%.bin", timedelta(minutes=1))
    if isinstance(store, LocalStore):
        assert link is None
        return
    assert link is not None
    stat = await store.stat("a/ü b%.bin")
    assert (link.size_bytes, link.etag, link.md5) == (stat.size_bytes, stat.etag, digest(b"of others' use").md5)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(link.url)).content == b"of others' use"
        other = link.url.replace("%C3%BC%20b%25.bin", "secret")
        assert other != link.url
        assert (await client.get(other)).status_code == 403
        written = await client.put(link.url, content=b"", headers={"x-ms-blob-type": "BlockBlob"})
        assert written.status_code == 403
    with pytest.raises(ArtifactNotFound):
        await store.link("missing", timedelta(minutes=1))
    with pytest.raises(InvalidParameter):
        await store.link("a", timedelta(minutes=1))


async def test_a_folder_is_listed_by_name_one_level_deep(store: Store) -> None:
    for path in ("d/b", "d/a/deep/x", "d/c é", "d.txt", "other/y"):
        await store.write(path, chunks(b"12"))
    assert await store.list("d") == [Entry("d/a", True), Entry("d/b", False, 2), Entry("d/c é", False, 2)]
    assert await store.list("") == [Entry("d", True), Entry("d.txt", False, 2), Entry("other", True)]
    assert await store.list("d/b") == []
    assert await store.list("nothing/here") == []


async def test_what_is_not_a_file_cannot_be_read(store: Store) -> None:
    await store.write("d/f", chunks(b"1"))
    for path in ("nothing", "d/nothing", "d/f/below"):
        for attempt in (store.read, store.stat):
            with pytest.raises(ArtifactNotFound):
                await attempt(path)
        assert await store.digest(path) is None
    for attempt in (store.read, store.stat):
        with pytest.raises(InvalidParameter, match="directory"):
            await attempt("d")
    assert await store.digest("d") is None


async def test_deleting_tells_what_went(store: Store) -> None:
    for path in ("d/a", "d/b/c", "dd", "e"):
        await store.write(path, chunks(b"1"))
    assert sorted(await store.delete("d")) == ["d/a", "d/b/c"]
    assert [entry.path for entry in await store.list("")] == ["dd", "e"]
    assert await store.delete("e") == ["e"]
    assert await store.delete("e") == []
    assert await store.delete("dd/below") == []


@pytest.mark.parametrize("size", [10, MEBIBYTE + 1, 3 * blob.BLOCK_BYTES])
async def test_an_upload_that_breaks_off_leaves_nothing(store: Store, size: int) -> None:
    with pytest.raises(BrokenOff):
        await store.write("d/f", broken(*[os.urandom(size // 4)] * 4))
    assert await store.list("") == []
    await store.write("d/f", chunks(b"kept"))
    with pytest.raises(BrokenOff):
        await store.write("d/f", broken(*[os.urandom(size // 4)] * 4))
    assert await content(store, "d/f") == b"kept"
    if isinstance(store, LocalStore):
        assert list(store.uploads.iterdir()) == []


async def test_a_cancelled_upload_leaves_nothing(store: Store) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MEBIBYTE
            started.set()
            await asyncio.sleep(0)

    task = asyncio.create_task(store.write("f", endless()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.list("") == []
    if isinstance(store, LocalStore):
        assert list(store.uploads.iterdir()) == []


async def test_nothing_shows_before_the_last_byte(store: Store) -> None:
    async def looking() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * blob.BLOCK_BYTES
            assert await store.list("") == []

    await store.write("f", looking())
    assert [entry.path for entry in await store.list("")] == ["f"]


async def test_a_usable_store_reports_no_problem(store: Store) -> None:
    assert await store.problem() is None


def test_only_folders_and_containers_are_destinations(tmp_path: Path) -> None:
    for address in ("s3://bucket/x", "https://host/x", "wasbs://container@evil.example/x", "wasbs://account/x"):
        with pytest.raises(ValueError, match="wasbs"):
            create_store(Settings(database_url="postgresql://x", artifacts_destination=address))
    store = create_store(Settings(database_url="postgresql://x", artifacts_destination=(tmp_path / "a b").as_uri()))
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path / "a b"


async def test_a_missing_container_is_told_as_such(azurite: str) -> None:
    store = blob.BlobStore.at(f"wasbs://missing@{ACCOUNT}.blob.core.windows.net", connection_string=azurite)
    try:
        assert "missing" in (await store.problem() or "")
        with pytest.raises(Unavailable, match="container"):
            await store.read("f")
        with pytest.raises(Unavailable, match="container"):
            await store.write("f", chunks(b"1"))
    finally:
        await store.close()


async def test_a_blob_service_that_cannot_be_reached_is_told_as_such(azurite: str) -> None:
    nobody = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", azurite)
    store = blob.BlobStore.at(f"wasbs://container@{ACCOUNT}.blob.core.windows.net", connection_string=nobody)
    try:
        assert "ServiceRequestError" in (await store.problem() or "")
    finally:
        await store.close()


async def test_without_a_connection_string_the_address_names_the_account() -> None:
    store = blob.BlobStore.at("wasbs://files@account.blob.core.windows.net/a/b/", connection_string=None)
    try:
        assert (store.service.url, store.container.container_name) == (
            "https://account.blob.core.windows.net/",
            "files",
        )
        assert store.prefix == "a/b"
        assert store.credential is not None
    finally:
        await store.close()


async def test_a_folder_that_is_gone_is_told_as_such(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "gone")
    assert "gone" in (await store.problem() or "")


async def test_leftovers_of_a_day_ago_are_cleared_at_start(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.prepare()
    for name, age_s in (("old", 25 * 3600), ("young", 23 * 3600)):
        (store.uploads / name).write_bytes(b"part")
        os.utime(store.uploads / name, (time.time() - age_s,) * 2)
    store.prepare()
    assert [left.name for left in store.uploads.iterdir()] == ["young"]


async def test_a_symbolic_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    store = LocalStore(tmp_path / "store")
    store.prepare()
    (store.root / "way").symlink_to(tmp_path / "secret")
    for attempt in (
        store.read("way/key"),
        store.list("way"),
        store.delete("way/key"),
        store.write("way/x", chunks(b"1")),
    ):
        with pytest.raises(InvalidParameter):
            await attempt
    assert [left.name for left in (tmp_path / "secret").iterdir()] == ["key"]


async def test_a_client_that_sends_byte_by_byte_has_no_more_kept_of_it_than_some_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[int] = []
    hand_over = local._Upload.hand_over

    async def noted(upload: local._Upload, parts: Sequence[bytes]) -> None:
        handed.append(len(parts))
        await hand_over(upload, parts)

    monkeypatch.setattr(local._Upload, "hand_over", noted)
    data = os.urandom(2 * local.MOST_PARTS + 7)

    async def bytewise() -> AsyncIterator[bytes]:
        for number in range(len(data)):
            yield data[number : number + 1]

    store = LocalStore(tmp_path)
    store.prepare()
    written = await store.write("1/f", bytewise())
    assert written == Written(len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())
    assert (tmp_path / "1/f").read_bytes() == data
    assert handed == [local.MOST_PARTS, local.MOST_PARTS, 7]


async def test_a_file_and_a_folder_cannot_share_a_name_in_a_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.prepare()
    await store.write("d/f", chunks(b"1"))
    with pytest.raises(InvalidParameter):
        await store.write("d", chunks(b"2"))
    with pytest.raises(InvalidParameter):
        await store.write("d/f/g", chunks(b"2"))
    assert await content(store, "d/f") == b"1"
    assert list(store.uploads.iterdir()) == []


async def test_a_disk_that_takes_no_more_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.prepare()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * 1024**2 // 2, hard))
    try:
        with pytest.raises(Unavailable):
            await store.write("f", chunks(*[b"x" * 1024**2] * 8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await store.list("") == []
    assert list(store.uploads.iterdir()) == []


async def test_a_full_disk_is_a_problem_until_there_is_room_again(tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path / "disk", "4m"))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no disk can be mounted here")
        store = LocalStore(disk)
        store.prepare()
        assert await store.problem() is None
        with full(disk / "ballast"):
            deadline = time.monotonic() + 10
            while (problem := await store.problem()) is None and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            assert "is full" in (problem or "")
        assert await store.problem() is None
        await store.write("f", chunks(b"x" * MEBIBYTE))

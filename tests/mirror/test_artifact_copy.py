"""Files on their way into the workspace: copied from store to store, or streamed, and taken up where they broke off."""

import asyncio
import itertools
import logging
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from azure.storage.blob.aio import BlobServiceClient
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Link, Store
from runmirror.artifacts.store import create_store
from runmirror.mirror import azureml
from runmirror.mirror import link as links
from runmirror.mirror.azureml_upload import Sizes
from runmirror.mirror.target import NewRun, RemoteFile, SourceChanged
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.artifacts.azurite import ACCOUNT, azurite
from tests.azureml_emulator.process import EmulatorProcess, Json
from tests.mirror.azure import files_of, remote_run
from tests.mirror.factories import START_MS, Source, chunks
from tests.mirror.test_azureml import md5
from tests.mirror.test_crash import is_current, struck, until
from tests.mirror.worker_process import working

__all__ = ["azurite"]

_containers = itertools.count()
MIB = 1024**2
LARGE = bytes(range(256)) * 20  # in the small pieces of these tests
SMALL = b"x" * 700


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azureml, "Sizes", lambda: Sizes(block=1000, copied=2000))


@pytest.fixture
async def blob_settings(azure_settings: Settings, azurite: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The source's files lie in a Blob account, which the emulated storage reaches and the proxy does not lead to."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    container = f"mirror-{next(_containers)}"
    async with BlobServiceClient.from_connection_string(azurite) as service:
        await service.create_container(container)
    address = f"wasbs://{container}@{ACCOUNT}.blob.core.windows.net/below"
    return azure_settings.model_copy(
        update={"artifacts_destination": address, "azure_storage_connection_string": secret(azurite)}
    )


def secret(text: str) -> object:
    return Settings(azure_storage_connection_string=text).azure_storage_connection_string


@pytest.fixture
async def blobs(blob_settings: Settings) -> AsyncIterator[Store]:
    made = create_store(blob_settings)
    yield made
    await made.close()


@pytest.fixture
def blob_source(engine: AsyncEngine, blobs: Store) -> Source:
    return Source(engine, blobs)


@pytest.fixture
def blob_worker(blob_settings: Settings, engine: AsyncEngine, blobs: Store) -> Worker:
    return Worker(blob_settings, engine, blobs)


def puts(emulator: EmulatorProcess, name: str = "") -> list[Json]:
    return [
        request
        for request in emulator.requests()
        if request["method"] == "PUT" and ".blob." in request["host"] and request["path"].endswith(name)
    ]


async def test_files_in_azure_blob_do_not_pass_through_the_worker(
    blob_source: Source, emulator: EmulatorProcess, blob_worker: Worker
) -> None:
    run = await blob_source.run()
    await run.upload("large.bin", LARGE)
    await run.upload("ünïcode & söns/100%.bin", SMALL)
    await run.upload("empty", b"")
    await blob_worker.drain()
    assert files_of(remote_run(emulator, run.run_id.hex)) == {
        "large.bin": (5120, md5(LARGE)), "ünïcode & söns/100%.bin": (700, md5(SMALL)), "empty": (0, md5(b"")),
    }  # fmt: skip
    assert [request["bytes"] for request in puts(emulator, "/100%.bin")] == [0], "a small file is one request"
    *blocks, block_list = puts(emulator, "/large.bin")
    assert [request["bytes"] for request in blocks] == [0, 0, 0]
    assert block_list["bytes"] > 0
    registered = [request for request in emulator.requests() if request["path"].endswith("batch/metadata")]
    assert len(registered) == 1


async def test_a_storage_that_does_not_reach_the_source_gets_the_bytes_and_the_log_says_why(
    blob_source: Source, emulator: EmulatorProcess, blob_worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    emulator.change_settings(copy_sources=False)
    run = await blob_source.run()
    for number in range(5):
        await run.upload(f"{number}.bin", LARGE)
    await blob_worker.drain()
    assert files_of(remote_run(emulator, run.run_id.hex)) == {f"{n}.bin": (5120, md5(LARGE)) for n in range(5)}
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert "CannotVerifyCopySource" in told[0]
    assert "sig=" not in told[0]


@pytest.mark.parametrize(("status", "times"), [(500, 1), (403, 2), (404, 1)])
async def test_one_file_that_storage_does_not_fetch_is_streamed_and_pauses_nothing(
    blob_source: Source, emulator: EmulatorProcess, blob_worker: Worker, status: int, times: int
) -> None:
    run = await blob_source.run()
    await run.upload("a.bin", SMALL)
    refused = {"x-ms-error-code": "AuthorizationFailure"}
    emulator.add_fault("status", {"method": "PUT", "path": "/a.bin$"}, status=status, times=times, headers=refused)
    await blob_worker.drain()
    asked = [(request["status"], request["bytes"]) for request in puts(emulator)]
    assert asked == [(status, 0)] * times + [(201, len(SMALL))]
    assert (await run.mirror()).attempt == 0
    await run.upload("b.bin", SMALL)
    await blob_worker.drain()
    assert [request["bytes"] for request in puts(emulator, "/b.bin")] == [0], "the next one is fetched again"


async def test_a_url_that_may_only_write_is_enough(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    """The blocks of an earlier attempt cannot be asked for then, and what stands there is asked by another URL."""
    run = await source.run()
    await run.upload("f", LARGE)
    refused = {"x-ms-error-code": "AuthorizationPermissionMismatch"}
    emulator.add_fault("status", {"method": "PUT", "path": "/f$"}, status=503, skip=3)
    emulator.add_fault("status", {"host": "*.blob.*", "method": "GET"}, status=403, headers=refused)
    emulator.add_fault("status", {"host": "*.blob.*", "method": "HEAD"}, status=403, headers=refused, skip=1)
    await azure_worker.drain()
    assert [fault["hits"] for fault in emulator.faults()] == [1, 1, 1]
    assert files_of(remote_run(emulator, run.run_id.hex)) == {"f": (5120, md5(LARGE))}
    assert (await run.mirror()).attempt == 0


async def test_copying_by_url_can_be_switched_off(
    blob_source: Source, emulator: EmulatorProcess, blob_settings: Settings, engine: AsyncEngine, blobs: Store
) -> None:
    run = await blob_source.run()
    await run.upload("a", SMALL)
    await Worker(blob_settings.model_copy(update={"mirror_copy_by_url": False}), engine, blobs).drain()
    assert [request["bytes"] for request in puts(emulator)] == [len(SMALL)]


@pytest.mark.parametrize("content", [SMALL, LARGE])
async def test_a_version_that_is_not_the_recorded_one_is_not_copied(
    emulator: EmulatorProcess, blob_settings: Settings, blobs: Store, content: bytes
) -> None:
    """The file is replaced, by one of the same size, between the look at it and the copy."""
    await blobs.write("f", chunks(content))
    link = await blobs.link("f", timedelta(minutes=5))
    assert link is not None
    await blobs.write("f", chunks(bytes(len(content))))

    async def stale() -> Link | None:
        return link

    async def read(start: int, end: int) -> AsyncIterator[bytes]:
        raise SourceChanged("f")

    target, _ = await links.open_target(blob_settings, links.Link(emulator.workspace_id))
    experiment_id = await target.ensure_experiment("suite")
    run = await target.create_run(experiment_id, NewRun("0" * 32, "name", "ada", START_MS, "here"))
    file = RemoteFile("f", "revisions/f", len(content), link.md5, read, stale)
    copied = await target.copy_files(run, [file])
    await target.close()
    assert (copied.sent_bytes, copied.changed) == (0, (file,))
    assert files_of(remote_run(emulator, "0" * 32)) == {"f": (None, None)}


@pytest.mark.parametrize("write_sas", [True, False])
@pytest.mark.parametrize("by_url", [True, False])
async def test_a_url_that_expires_within_a_file_is_replaced_and_nothing_is_sent_twice(
    blob_source: Source, emulator: EmulatorProcess, blob_worker: Worker, write_sas: bool, by_url: bool
) -> None:
    emulator.change_settings(write_sas=write_sas, copy_sources=by_url)
    run = await blob_source.run()
    await run.upload("large.bin", LARGE)
    skip = 2 if by_url else 3
    expired = {"x-ms-error-code": "AuthenticationFailed"}
    emulator.add_fault("status", {"method": "PUT", "path": "large.bin"}, status=403, headers=expired, skip=skip)
    await blob_worker.drain()
    assert [fault["hits"] for fault in emulator.faults()] == [1]
    assert files_of(remote_run(emulator, run.run_id.hex)) == {"large.bin": (5120, md5(LARGE))}
    arrived = [request for request in puts(emulator, "large.bin") if request["status"] == 201]
    assert len(arrived) == (3 + 1 if by_url else 6 + 1)
    assert (await run.mirror()).attempt == 0


async def test_blocks_of_another_content_are_never_taken_for_ours(
    blob_source: Source, emulator: EmulatorProcess, blob_worker: Worker
) -> None:
    """An attempt at the first content leaves its blocks; what is mirrored is the second, of the same size."""
    emulator.change_settings(copy_sources=False)
    run = await blob_source.run()
    await run.upload("f", LARGE)
    fault = emulator.add_fault("status", {"method": "PUT", "path": "/f$"}, status=503, skip=4, times=-1)
    draining = asyncio.create_task(blob_worker.drain())
    await until(lambda: struck(emulator))
    await run.upload("f", other := LARGE[:2500] + LARGE[2500:][::-1])
    with emulator.control() as control:
        control.delete(f"/faults/{fault}").raise_for_status()
    await draining
    assert files_of(remote_run(emulator, run.run_id.hex)) == {"f": (5120, md5(other))}


async def test_blocks_that_ours_cannot_stand_beside_are_cleared_away(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    run = await source.run()
    await run.upload("f", LARGE)
    emulator.add_fault(
        "status", {"method": "PUT", "path": "/f$"}, status=400, headers={"x-ms-error-code": "InvalidBlobOrBlock"}
    )
    await azure_worker.drain()
    assert files_of(remote_run(emulator, run.run_id.hex)) == {"f": (5120, md5(LARGE))}


async def test_after_kill_9_a_large_file_goes_on_where_it_stopped(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, tmp_path: Path
) -> None:
    content = bytes(range(256)) * (40 * MIB // 256) + b"the end"
    run = await source.run()
    await run.upload("large.bin", content)
    await run.finish()
    log = tmp_path / "worker.log"
    fault = emulator.add_fault("hang", {"method": "PUT", "path": "large.bin$"}, seconds=60, skip=6, times=-1)
    patience = {"RUNMIRROR_MIRROR_TIMEOUT": "3", "RUNMIRROR_MIRROR_LEASE": "4"}
    with working(azure_settings, emulator, log, **patience) as worker:
        await until(lambda: struck(emulator))
        await until(lambda: arrived(emulator, 6))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    with emulator.control() as control:
        control.delete(f"/faults/{fault}").raise_for_status()
    before = len(emulator.requests())
    with working(azure_settings, emulator, log, **patience):
        await until(lambda: is_current(run))
    assert files_of(remote_run(emulator, run.run_id.hex)) == {"large.bin": (len(content), md5(content))}
    again = [request["bytes"] for request in emulator.requests()[before:] if request["method"] == "PUT"]
    first = 6 * 4 * MIB
    assert sum(again[:-1]) == len(content) - first, "every block that had arrived was left alone"
    assert len(again) == 5 + 1


async def arrived(emulator: EmulatorProcess, count: int) -> bool:
    found = await asyncio.to_thread(puts, emulator, "large.bin")
    return sum(request["status"] == 201 for request in found) == count

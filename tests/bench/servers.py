"""The servers that are compared: each a process tree of its own, over a database of its own in one Postgres."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.bench.places import home
from tests.bench.postgres import Postgres
from tests.server import clean_environment, free_port

REPOSITORY = Path(__file__).resolve().parents[2]
MLFLOW_VENV = REPOSITORY / ".venv-bench-mlflow"
FASTTRACKML_VENV = REPOSITORY / ".venv-bench-fasttrackml"
OURS, MLFLOW, FASTTRACKML = "runmirror", "mlflow", "fasttrackml"
MIRRORED = "runmirror_mirror"  # ours once more, with a workspace linked that its worker mirrors into meanwhile
_START_S, _STOP_S = 120.0, 15.0


@dataclass
class Server:
    """A running server: its address, and what it costs."""

    name: str
    url: str
    child: subprocess.Popen[bytes]
    start_s: float
    log: Path

    def processes(self) -> list[psutil.Process]:
        own = psutil.Process(self.child.pid)
        return [own, *own.children(recursive=True)]

    def cpu_s(self) -> float:
        return cpu_s(self.processes())

    def memory_mb(self) -> list[float]:
        """Proportional set size of each process, shared pages counted once; the largest first."""
        return sorted((process.memory_full_info().pss / 1e6 for process in self.processes()), reverse=True)


def cpu_s(processes: list[psutil.Process]) -> float:
    """CPU seconds used so far, those of children that have ended too."""
    used = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            used += sum(process.cpu_times()[:2])
    return used


def command(name: str, port: int, database: str, folder: Path, workers: int | None) -> list[str]:
    """How users start each of them for two cores."""
    if name == FASTTRACKML:
        url = database.replace("postgresql://", "postgres://")
        binary = str(FASTTRACKML_VENV / "bin" / "fml")
        return [binary, "server", "-d", url, "-a", f"127.0.0.1:{port}", "-l", "error",
                "--default-artifact-root", str(folder / "artifacts")]  # fmt: skip
    if name == MLFLOW:
        python = str(MLFLOW_VENV / "bin" / "python")
        return [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
                "--workers", str(workers or 2),
                "--backend-store-uri", database.replace("postgresql://", "postgresql+psycopg2://"),
                "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    own = [sys.executable, "-m", "runmirror", "serve", "--port", str(port), "--backend-store-uri", database,
           "--data-dir", str(folder)]  # fmt: skip
    return own if workers is None else [*own, "--workers", str(workers)]


@contextmanager
def serving(
    name: str, postgres: Postgres, folder: Path, *, mirror: bool, workers: int | None = None,
    more: Mapping[str, str] | None = None,
) -> Iterator[Server]:  # fmt: skip
    """Start a server and wait for its first answer; `start_s` says how long that took."""
    folder = home(folder, name)
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    port = free_port()
    environment = {"RUNMIRROR_MIRROR": str(mirror), "TMPDIR": str(folder / "tmp"), **(more or {})}
    started = command(name, port, postgres.uri(name), folder, workers)
    url = f"http://127.0.0.1:{port}"
    with _running(started, f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0", folder, folder, environment) as (
        child,
        start_s,
    ):
        yield Server(name, url, child, start_s, folder / "server.log")


@contextmanager
def keeping_nothing(folder: Path) -> Iterator[str]:
    """The address of what `nothing.py` says, run by uvicorn as it comes, which copies more than ours does."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    asgi = [sys.executable, "-m", "uvicorn", "tests.bench.nothing:app", "--port", str(port), "--lifespan", "off"]
    with _running([*asgi, "--log-level", "warning"], url, folder, REPOSITORY, {}):
        yield url


@contextmanager
def _running(
    started: list[str], address: str, folder: Path, cwd: Path, environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The process, and how many seconds it took until `address` answered."""
    whole = clean_environment(environment)
    whole.pop("PYTHONDONTWRITEBYTECODE", None)  # pip compiles what it installs; a checkout does as it starts
    log = folder / "server.log"
    began = time.monotonic()
    with log.open("ab") as sink:
        child = subprocess.Popen(started, env=whole, stdout=sink, stderr=sink, start_new_session=True, cwd=cwd)
    try:
        _wait(child, address, log)
        yield child, time.monotonic() - began
    finally:
        _end(child)


def _wait(child: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    with httpx.Client(trust_env=False, timeout=2) as client:
        while time.monotonic() < deadline and child.poll() is None:
            with suppress(httpx.TransportError):
                if client.get(address).status_code == 200:
                    return
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.02)  # the pause between two looks
    raise RuntimeError(f"{address} did not come up:\n{log.read_text()[-4000:]}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """By SIGTERM, then whatever it started and left behind: MLflow's job runners are in sessions of their own."""
    below = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_STOP_S)
    for process in below:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()

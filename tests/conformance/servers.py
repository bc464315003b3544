"""MLflow's own server, the specification we are compared with, as a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.server import clean_environment, free_port

START_DEADLINE_S = 90.0  # some 9 s on an idle machine
STOP_DEADLINE_S = 10.0

# Webhooks of both servers: the receiver of the tests is on loopback, and told at once or not at all.
WEBHOOKS = {
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "cnVubWlycm9yLXRlc3RzLW9mLXdlYmhvb2tzLTAwMDE=",
    "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",
}


@contextmanager
def mlflow_server(folder: Path, artifacts: str = "", **more: str) -> Iterator[str]:
    """`mlflow server` of the pinned wheel over SQLite, and a folder unless `artifacts` are elsewhere: its address."""
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", artifacts or str(folder / "artifacts"),
    ]  # fmt: skip
    environment = clean_environment({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **WEBHOOKS, **more})
    log = folder / "server.log"
    with log.open("wb") as sink:
        child = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(child, f"{url}/health", log)
        yield url
    finally:
        _end_group(child)


def _wait_until_healthy(child: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and child.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(address, timeout=2.0, trust_env=False).status_code == 200:
                return
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.1)  # the pause between two looks, cut short when the child ends
    raise AssertionError(f"{address} did not come up (exit code {child.poll()}):\n{log.read_text()[-4000:]}")


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End the server and the workers it started: by SIGTERM, then whatever is left by SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_DEADLINE_S)

"""`runmirror serve` as users start it: a process of its own, on a free loopback port."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 40.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """A running server; `kill` is kill -9."""

    url: str
    child: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline and self.child.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200:
                    return
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(0.05)  # the pause between two looks
        raise AssertionError(f"the server did not come up:\n{self.log.read_text()[-4000:]}")


@contextmanager
def serving(folder: Path, *arguments: str, port: int | None = None, **environment: str) -> Iterator[Server]:
    """Start `runmirror serve` with its data in `folder`; end it by SIGTERM, as an operator would."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = ["-m", "runmirror", "serve", "--port", str(port), "--data-dir", str(folder), *arguments]
    with started(command, port, folder / "server.log", environment) as server:
        yield server


@contextmanager
def started(arguments: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """Any Python program that serves our API on a port of loopback."""
    command = [sys.executable, *arguments]
    with log.open("ab") as sink:
        child = subprocess.Popen(command, env=clean_environment(environment), stdout=sink, stderr=sink)
    server = Server(f"http://127.0.0.1:{port}", child, log)
    try:
        server.wait_ready()
        yield server
    finally:
        child.terminate()
        try:
            child.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise AssertionError(f"the server did not stop at SIGTERM:\n{log.read_text()[-4000:]}") from None


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, without anything that would configure a client or a server behind the test's back."""
    foreign = ("MLFLOW_", "RUNMIRROR_", "AZURE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)}
    return {**inherited, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore", **more}

"""A real server process over either store, and raw requests that no client tidies up."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from runmirror.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 60
STOP_DEADLINE_S = 10


@dataclass(frozen=True, slots=True)
class Live:
    url: str
    port: int
    pid: int
    output: Path

    def resident_bytes(self) -> int:
        """The memory the process holds now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS: is this Linux?")

    def raw(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of a request whose target goes out letter by letter."""
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(head.encode() + body)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        status, _, rest = answer.partition(b"\r\n")
        return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]


@contextmanager
def live_server(settings: Settings, folder: Path) -> Iterator[Live]:
    """One API process with these settings on a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    secret = settings.azure_storage_connection_string
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MLFLOW_", "RUNMIRROR_", "AZURE_"))
        },
        "RUNMIRROR_DATABASE_URL": settings.database_url or "",
        "RUNMIRROR_ARTIFACTS_DESTINATION": settings.artifact_root,
        **({"AZURE_STORAGE_CONNECTION_STRING": secret.get_secret_value()} if secret else {}),
    }
    command = [
        sys.executable, "-m", "uvicorn", "--factory", "runmirror.asgi:create", "--port", str(port), "--no-access-log",
        "--log-level", "warning",
    ]  # fmt: skip
    output = folder / "server.txt"
    with output.open("wb") as sink:
        child = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=sink, stderr=sink)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(child, url + "/readyz", output)
        yield Live(url, port, child.pid, output)
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_DEADLINE_S)
        child.kill()
        child.wait()


def _wait(child: subprocess.Popen[bytes], address: str, output: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and child.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(address, timeout=5, trust_env=False).status_code == 200:
                return
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.1)  # the pause between two looks, cut short when the child ends
    raise AssertionError(f"the server did not come up (exit code {child.poll()}):\n{output.read_text()[-3000:]}")

"""One API process over either store, and raw requests that no client tidies up."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runmirror.settings import Settings
from tests.server import Server, free_port, started


class Live(Server):
    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def resident_bytes(self) -> int:
        """The memory the process holds now."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS: is this Linux?")

    def raw(self, method: str, target: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        """Status and body of a request whose target goes out letter by letter; `kind` is its content type."""
        typed = f"Content-Type: {kind}\r\n" if kind else ""
        sized = f"Content-Length: {len(body)}\r\n\r\n"
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{typed}{sized}"
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(head.encode() + body)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        status, _, rest = answer.partition(b"\r\n")
        return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]


@contextmanager
def live_server(settings: Settings, folder: Path) -> Iterator[Live]:
    """The API without the supervisor around it, on these settings' database and store."""
    secret = settings.azure_storage_connection_string
    environment = {
        "RUNMIRROR_DATABASE_URL": settings.database_url or "",
        "RUNMIRROR_ARTIFACTS_DESTINATION": settings.artifact_root,
        "RUNMIRROR_DIRECT_TRANSFERS": settings.direct_transfers,
        **({"AZURE_STORAGE_CONNECTION_STRING": secret.get_secret_value()} if secret else {}),
    }
    port = free_port()
    command = [
        "-m", "uvicorn", "--factory", "runmirror.asgi:create", "--port", str(port), "--no-access-log",
        "--log-level", "warning",
    ]  # fmt: skip
    with started(command, port, folder / "server.txt", environment) as server:
        yield Live(server.url, server.child, server.log)

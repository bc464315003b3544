"""The two services of the demo: the workspace (an emulator) and a runmirror that mirrors into it."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from runmirror.demo.processes import Child, ChildFailed, Children

LOOPBACK = "127.0.0.1"
_START_S = 60.0
_POSTGRES_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the emulated workspace is, and who may use it."""

    proxy_url: str
    ca_file: str
    arm_id: str
    tenant_id: str
    client_id: str
    client_secret: str
    subscription_id: str
    resource_group: str
    name: str

    def network(self) -> dict[str, str]:
        """The variables with which any client reaches this workspace under Azure's own host names."""
        return {
            "HTTPS_PROXY": self.proxy_url,
            "https_proxy": self.proxy_url,
            "NO_PROXY": f"{LOOPBACK},localhost",
            "no_proxy": f"{LOOPBACK},localhost",
            "SSL_CERT_FILE": self.ca_file,
            "REQUESTS_CA_BUNDLE": self.ca_file,
        }

    def credentials(self) -> dict[str, str]:
        """The variables from which azure-identity signs in."""
        return {
            "AZURE_TENANT_ID": self.tenant_id,
            "AZURE_CLIENT_ID": self.client_id,
            "AZURE_CLIENT_SECRET": self.client_secret,
        }


def start_emulator(children: Children, folder: Path, environment: Mapping[str, str]) -> Workspace:
    """Run the emulator; it says in a file how it is reached."""
    announced = folder / "emulator.json"
    command = [
        sys.executable, "-m", "azureml_emulator",
        "--data-dir", str(folder / "emulator"), "--ready-file", str(announced),
    ]  # fmt: skip
    child = children.start("emulator", command, environment, essential=True)
    children.wait(announced.exists, child, "the emulator is starting", _START_S)
    return read_workspace(announced)


def read_workspace(announced: Path) -> Workspace:
    """The workspace of an emulator that wrote this file."""
    ready: dict[str, Any] = json.loads(announced.read_text(encoding="utf-8"))
    return Workspace(
        proxy_url=ready["proxy_url"],
        ca_file=ready["ca_file"],
        arm_id=ready["workspace_id"],
        tenant_id=ready["tenant_id"],
        client_id=ready["client_id"],
        client_secret=ready["client_secret"],
        subscription_id=ready["subscription_id"],
        resource_group=ready["resource_group"],
        name=ready["workspace_name"],
    )


def start_server(
    children: Children, folder: Path, environment: Mapping[str, str], *, workspace: Workspace, port: int
) -> tuple[str, Child]:
    """Run `runmirror serve` (Postgres, API and worker), linked to the workspace; the answer is its address."""
    linked = {"RUNMIRROR_AZUREML_WORKSPACE": workspace.arm_id, **workspace.network(), **workspace.credentials()}
    port = _claim_port(port)
    command = [sys.executable, "-m", "runmirror", "serve", "--data-dir", str(folder / "data"), "--port", str(port)]
    children.at_end(lambda: _stop_postgres(folder / "data" / "postgres" / "postmaster.pid"))
    child = children.start("server", command, {**environment, **linked}, essential=True)
    url = f"http://{LOOPBACK}:{port}"
    with loopback_client(url) as http:
        children.wait(lambda: _answers(http), child, "runmirror is starting", _START_S)
    return url, child


def loopback_client(url: str, auth: tuple[str, str] | None = None) -> httpx.Client:
    """A client for our own server, whatever proxy the environment names."""
    return httpx.Client(base_url=url, auth=auth, trust_env=False, timeout=10.0)


def _stop_postgres(pid_file: Path) -> None:
    """End the Postgres of a server that could not do so itself; after a clean end the file is not there."""
    with suppress(FileNotFoundError, ProcessLookupError, IndexError, ValueError):
        os.kill(int(pid_file.read_text(encoding="utf-8").split()[0]), signal.SIGINT)  # its "fast shutdown"
        deadline = time.monotonic() + _POSTGRES_STOP_S
        while pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _claim_port(wanted: int) -> int:
    """A port nobody listens on. Whoever answers on a taken one would be mistaken for ours, and be written to."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just left is free
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError as error:
            raise ChildFailed(f"runmirror cannot listen on port {wanted} of {LOOPBACK}: {error.strerror}") from error
        port: int = probe.getsockname()[1]
        return port

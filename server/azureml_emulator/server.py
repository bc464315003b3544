"""Starts the three listeners on loopback and stops them together."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from azureml_emulator import entra
from azureml_emulator.control import build_control
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import Json
from azureml_emulator.hosts import build_hosts
from azureml_emulator.proxy import Leads, start_proxy
from azureml_emulator.tls import TlsFiles, make_certificates
from azureml_emulator.transport import ReachableProtocol

LOOPBACK = "127.0.0.1"


class QuietServer(uvicorn.Server):
    """A server that leaves signals to whoever runs it beside others."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(port: int) -> socket.socket:
    # asyncio turns off Nagle's delay (40 ms an answer) only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, port))
    listener.listen(256)
    return listener


def _server(app: ASGIApp, tls: TlsFiles | None = None) -> QuietServer:
    config = uvicorn.Config(
        app,
        http=ReachableProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        # Longer than any client's pool, so that a reused connection is never just being closed.
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
        ssl_certfile=str(tls.certificate_file) if tls else None,
        ssl_keyfile=str(tls.key_file) if tls else None,
    )
    return QuietServer(config)


def _ready(emulator: Emulator, proxy_port: int, control_port: int, tls: TlsFiles) -> Json:
    workspace = emulator.workspace
    control_url = f"http://{LOOPBACK}:{control_port}"
    return {
        "proxy_url": f"http://{LOOPBACK}:{proxy_port}",
        "control_url": control_url,
        "ca_file": str(tls.ca_file),
        "workspace_id": workspace.arm_id,
        "other_workspace_ids": [each.workspace.arm_id for each in emulator.others],
        "tenant_id": workspace.tenant_id,
        "client_id": workspace.client_id,
        "client_secret": workspace.client_secret,
        "subscription_id": workspace.subscription,
        "resource_group": workspace.resource_group,
        "workspace_name": workspace.name,
        "region": workspace.region,
        "api_url": workspace.api_url,
        "blob_host": workspace.blob_host,
        "studio_url": workspace.studio_url,
        "tracking_uri": workspace.tracking_uri,
        "identity_endpoint": f"{control_url}/msi/token",
        "identity_header": entra.IDENTITY_HEADER,
    }


async def run(
    emulator: Emulator, proxy_at: tuple[str, int], control_port: int, announce: Callable[[Json], None]
) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    by_tls = emulator.scoring_hosts[0]
    tls = make_certificates(emulator.data_dir, (*emulator.hosts, f"*{by_tls}"))
    tls_socket, plain_socket, control_socket = _listen(0), _listen(0), _listen(control_port)
    hosts = build_hosts(emulator)
    servers = [
        (_server(hosts, tls), tls_socket),
        (_server(hosts), plain_socket),
        (_server(build_control(emulator)), control_socket),
    ]
    serving = [asyncio.ensure_future(server.serve(sockets=[listener])) for server, listener in servers]
    tls_port: int = tls_socket.getsockname()[1]
    leads = Leads(emulator.hosts, emulator.scoring_hosts, tls_port, plain_socket.getsockname()[1])
    proxy, bound = await start_proxy(proxy_at, leads, emulator.recorder)
    announce(_ready(emulator, bound, control_socket.getsockname()[1], tls))

    await stop.wait()
    proxy.close()
    for server, _ in servers:
        server.should_exit = True
    await asyncio.gather(*serving, *(scorer.close() for each in emulator for scorer in each.scorers.values()))

"""A workspace that answers after a fixed time and does next to nothing, so that the worker is what is measured.

The emulator keeps and checks what it is sent, which costs it more than the worker's own work. This stands before it as
the CONNECT proxy: Azure ML's data plane and Blob storage end here, in shapes the worker reads; tokens and Resource
Manager are tunnelled to the emulator. `python -m tests.bench.mirror_stand_in` starts it; plain requests control it:
`GET /stats`, `POST /reset`, `POST /delay/SECONDS`, `POST /down/0|1`.
"""

import argparse
import asyncio
import contextlib
import json
import ssl
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

_CHUNK = 256 * 1024
_STAGE = b'{"run_info":{"lifecycle_stage":"active"}}'
_FIXED = {
    "get-by-name": b'{"experiment":{"experiment_id":"1"}}',
    "update": _STAGE,
    "search": b"{}",
    "log-batch": b"{}",
    "log-inputs": b"{}",
    "get": b'{"run":{"info":{"run_id":"r","lifecycle_stage":"active"},"data":{"tags":[]}}}',
}


class Workspace:
    """What is answered, and what was counted."""

    def __init__(self, blob_host: str, delay_s: float) -> None:
        self.blob_host = blob_host
        self.delay_s = delay_s
        self.is_down = False
        self.reset()

    def reset(self) -> None:
        self.requests: Counter[str] = Counter()
        self.points = 0
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.cpu_from = time.process_time()

    def stats(self) -> dict[str, Any]:
        return {
            "requests": dict(self.requests), "points": self.points, "first_at": self.first_at, "last_at": self.last_at,
            "cpu_s": time.process_time() - self.cpu_from,
        }  # fmt: skip

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        path = target.partition("?")[0]
        name = "blob " + method if "/blob-of/" in path else path.rpartition("/")[2]
        if name == "search":
            name = path.split("/")[-2] + "/search"  # of runs, or the probe's of experiments
        self.requests[name] += 1
        if name in {"create", "log-batch", "update"}:
            self.last_at = time.time()
            self.first_at = self.first_at or self.last_at
        if name == "create":
            return 200, b'{"run":{"info":{"run_id":"%s"}},"experiment_id":"1"}' % uuid.uuid4().hex.encode()
        if name == "log-batch":
            self.points += body.count(b'"timestamp"')
        if name == "metadata":
            paths = [entry["path"] for entry in json.loads(body)["paths"]]
            urls = {path: {"contentUri": f"https://{self.blob_host}/blob-of/{path}?sig=x"} for path in paths}
            return 200, json.dumps({"artifactContentInformation": urls, "errors": {}}).encode()
        if name.startswith("blob"):
            return 201, b""
        return 200, _FIXED.get(name.rpartition("/")[2], b"{}")


class Http(asyncio.Protocol):
    """One connection of a client: requests one after the other, each answered `delay_s` later."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._unread = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._workspace.is_down:
            self._transport.close()
            return
        self._unread += data
        head, found, rest = self._unread.partition(b"\r\n\r\n")
        if not found:
            return
        fields = head.lower()
        at = fields.find(b"content-length:")
        length = 0 if at < 0 else int(fields[at + 15 :].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self._unread = rest[length:]
        method, target, _ = head.split(b" ", 2)
        status, body = self._workspace.answer(method.decode(), target.decode(), rest[:length])
        answer = (
            b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
            + body
        )
        asyncio.get_running_loop().call_later(self._workspace.delay_s, self._send, answer)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


class Proxy:
    """Leads a client to the stand-in, or through the emulator's own proxy."""

    def __init__(self, workspace: Workspace, hosts: set[str], tls: ssl.SSLContext, emulator_port: int) -> None:
        self._workspace = workspace
        self._hosts = hosts
        self._tls = tls
        self._emulator_port = emulator_port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.decode().split(" ", 2)
            if method != "CONNECT":
                writer.write(self._control(method, target))
                writer.close()
            elif target.partition(":")[0] not in self._hosts:
                await self._tunnel(head, reader, writer)
            elif self._workspace.is_down:
                writer.close()
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await writer.drain()
                loop, protocol = asyncio.get_running_loop(), Http(self._workspace)
                protocol.connection_made(await loop.start_tls(writer.transport, protocol, self._tls, server_side=True))

    def _control(self, method: str, target: str) -> bytes:
        body = b"{}"
        if target == "/stats":
            body = json.dumps(self._workspace.stats()).encode()
        elif target == "/reset":
            self._workspace.reset()
        elif target.startswith("/delay/"):
            self._workspace.delay_s = float(target.rpartition("/")[2])
        elif target.startswith("/down/"):
            self._workspace.is_down = target.endswith("1")
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body

    async def _tunnel(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._emulator_port)
        inner_writer.write(head)
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def _run(options: argparse.Namespace) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(options.certificates / "server.pem", options.certificates / "server.key")
    workspace = Workspace(options.blob_host, options.delay)
    proxy = Proxy(workspace, {options.api_host, options.blob_host}, tls, options.emulator_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificates", type=Path, required=True)
    parser.add_argument("--api-host", required=True)
    parser.add_argument("--blob-host", required=True)
    parser.add_argument("--emulator-port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.001)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()

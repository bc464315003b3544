"""The proxy: the emulated names lead to the emulator, every other name is refused.

By CONNECT, except for web services on container instances and AKS, which Azure serves without TLS.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from urllib.parse import urlsplit

from azureml_emulator.recorder import Recorder

HEAD_LIMIT = 64 * 1024
CHUNK = 256 * 1024
HTTPS = 443


@dataclass(frozen=True)
class Leads:
    """Which names lead where: `scoring` are ends of names, the first one of those that are served by TLS."""

    hosts: tuple[str, ...]
    scoring: tuple[str, ...]
    tls_port: int
    plain_port: int

    def by_tls(self, host: str) -> bool:
        return host in self.hosts or host.endswith(self.scoring[0])

    def plain(self, target: str) -> bool:
        url = urlsplit(target)
        return url.scheme == "http" and (url.port or 80) == 80 and (url.hostname or "").endswith(self.scoring[1:])


class Proxy:
    """Tunnels to the emulator's ports."""

    def __init__(self, leads: Leads, recorder: Recorder) -> None:
        self.leads = leads
        self.recorder = recorder

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")[:2]
            host, _, port = target.rpartition(":")
            if method == "CONNECT" and self.leads.by_tls(host.lower()) and port == str(HTTPS):
                await self._tunnel(reader, writer)
            elif method != "CONNECT" and self.leads.plain(target):
                await self._forward(reader, writer, head)
            else:
                await self._refuse(writer, method, target)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that left, or that speaks no HTTP: there is nobody to tell
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _refuse(self, writer: asyncio.StreamWriter, method: str, target: str) -> None:
        shown = target.partition("?")[0]
        recorded = self.recorder.add(shown, method, "")
        recorded.status, recorded.refused = 403, True
        body = f"The Azure ML emulator does not lead to {shown}\n".encode()
        head = f"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode("latin-1") + b"Connection: close\r\n\r\n" + body)
        await writer.drain()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.leads.tls_port, limit=CHUNK)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._pump_both(reader, writer, inner_reader, inner_writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        """One request, whose target becomes a path; the connection ends with its answer."""
        first, _, rest = head.partition(b"\r\n")
        method, target, version = first.split(b" ")
        path = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        lines = [line for line in rest.split(b"\r\n") if not line.lower().startswith((b"connection:", b"proxy-"))]
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.leads.plain_port, limit=CHUNK)
        inner_writer.write(b" ".join((method, path, version)) + b"\r\nConnection: close\r\n" + b"\r\n".join(lines))
        await self._pump_both(reader, writer, inner_reader, inner_writer)

    async def _pump_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        inner_reader: asyncio.StreamReader,
        inner_writer: asyncio.StreamWriter,
    ) -> None:
        try:
            pumps = {
                asyncio.ensure_future(_pump(reader, inner_writer)),
                asyncio.ensure_future(_pump(inner_reader, writer)),
            }
            # HTTP/1.1 over TLS has no use for half a connection: when one side ends, so does the other.
            _, unfinished = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in unfinished:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            inner_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()


async def start_proxy(at: tuple[str, int], leads: Leads, recorder: Recorder) -> tuple[asyncio.Server, int]:
    """Listen there and say on which port."""
    proxy = Proxy(leads, recorder)
    server = await asyncio.start_server(proxy.serve, *at, limit=HEAD_LIMIT)
    bound: int = server.sockets[0].getsockname()[1]
    return server, bound

"""uvicorn's HTTP protocol with fewer copies and calls.

The head of an answer is written together with the first of its body: apart, each is a system call of ours and two of
the client's. What came of a body is handed on as it is: uvicorn copies it twice, a twentieth of a large upload.

Nothing made for a request may refer to itself in a ring: to find such garbage took a twentieth of the time of small
requests.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

# Headers that decide how an answer is framed, and what becomes of the connection.
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
# Headers that have one of a few values in all answers.
_REPEATED = frozenset({
    b"content-type", b"x-content-type-options", b"referrer-policy", b"cross-origin-resource-policy",
    b"x-frame-options", b"strict-transport-security",
})  # fmt: skip
_MOST_REMEMBERED = 100
_SMALL_BYTES = 64 * 1024  # to copy it takes less than to write two pieces

_Header = tuple[bytes, bytes]


class OneWriteProtocol(HttpToolsProtocol):
    """One connection."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.__class__ = _Answering  # uvicorn cannot be told what to make
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        waiting = self.cycle.body  # there is a request, since none is an upgrade to WebSocket here
        if not waiting:
            self.cycle.body = b""  # type: ignore[assignment]  # to which `body` is added by taking its place
        elif isinstance(waiting, bytes):
            self.cycle.body = bytearray(waiting)  # to which much that is small is added in no time
        super().on_body(body)


class _Answering(RequestResponseCycle):
    """One request and its answer, whose head waits for what comes next."""

    _head: Message | None = None

    async def send(self, message: Message) -> None:  # type: ignore[override]  # uvicorn has types of its own
        head, self._head = self._head, None
        if head is not None:
            if not self._write_whole(head, message):
                await self._send_both(head, message)
        elif self.response_started or message["type"] != "http.response.start" or self.scope["method"] == "HEAD":
            await super().send(message)  # type: ignore[arg-type]  # after the head of HEAD nothing is written
        else:
            self._head = {**message, "headers": [*message.get("headers", ())]}  # which may be read only once
            self.waiting_for_100_continue = False

    async def send_500_response(self) -> None:
        self._head = None
        await super().send_500_response()

    def _write_whole(self, head: Message, message: Message) -> bool:
        """Write an answer that consists of these two, if there is nothing special about it."""
        if message["type"] != "http.response.body" or message.get("more_body", False):
            return False
        if self.disconnected or self.flow.write_paused or not self.keep_alive or head["status"] in {204, 304}:
            return False
        body = message.get("body", b"")
        lines = _lines((*self.default_headers, *head["headers"]), len(body))
        if lines is None:
            return False
        self.response_started = self.response_complete = True
        text = b"".join([STATUS_LINE[head["status"]], *lines, b"\r\n"])
        if len(body) < _SMALL_BYTES:
            self.transport.write(text + body)
        else:
            self.transport.writelines((text, body))
        self.message_event.set()
        self.on_response()
        return True

    async def _send_both(self, head: Message, message: Message) -> None:
        """As uvicorn does it, but for what it writes for the head, which is written with what it writes next."""
        transport = self.transport
        self.transport = both = _HeadFirst(transport)  # type: ignore[assignment]  # as much of one as is used
        try:
            await super().send(head)  # type: ignore[arg-type]
            both.has_head = True
            await super().send(message)  # type: ignore[arg-type]
        finally:
            self.transport = transport


class _HeadFirst:
    """A transport for two writes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiting: list[bytes] = []
        self.has_head = False

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        if self.has_head:
            self._transport.writelines(self._waiting)
            self._waiting = []

    def close(self) -> None:
        self._transport.close()


_remembered: dict[_Header, bytes] = {}


def _lines(headers: Iterable[_Header], length: int) -> list[bytes] | None:
    """The lines of headers that say how long the body is and are plain otherwise; None for others."""
    lines: list[bytes] = []
    is_sized = False
    for header in headers:
        name, value = header
        line = _remembered.get((name, value))
        if line is None:
            if name in _FRAMING:
                if name != b"content-length" or value != b"%d" % length or is_sized:
                    return None
                is_sized = True
            elif HEADER_RE.search(name) or HEADER_VALUE_RE.search(value) or name != name.lower():
                return None
            line = b"%b: %b\r\n" % (name, value)
            if name in _REPEATED and len(_remembered) < _MOST_REMEMBERED:
                _remembered[name, value] = line
        lines.append(line)
    return lines if is_sized else None

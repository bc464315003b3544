"""uvicorn's HTTP protocol with fewer copies and calls.

The head of an answer is written together with the first of its body: apart, each is a system call of ours and two of
the client's. What came of a body is handed on as it is: uvicorn copies it twice, a twentieth of a large upload.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class OneWriteProtocol(HttpToolsProtocol):
    """One connection."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.scope["method"] != "HEAD":  # uvicorn writes no body after its head
            cycle.transport = _HeadFirst(cycle)  # type: ignore[assignment]  # as much of a transport as a cycle uses
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        waiting = self.cycle.body  # there is a request, since none is an upgrade to WebSocket here
        if not waiting:
            self.cycle.body = b""  # type: ignore[assignment]  # to which `body` is added by taking its place
        elif isinstance(waiting, bytes):
            self.cycle.body = bytearray(waiting)  # to which much that is small is added in no time
        super().on_body(body)


class _HeadFirst:
    """The transport of one answer: its head waits for what comes next."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport: asyncio.Transport = cycle.transport
        self._head: bytes | None = None
        self._is_headed = False

    def write(self, data: bytes) -> None:
        if self._head is not None:
            self._transport.writelines((self._head, data))
            self._head = None
        elif self._cycle.response_started and not self._is_headed:  # before that there may be a 100 Continue
            self._head, self._is_headed = data, True
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

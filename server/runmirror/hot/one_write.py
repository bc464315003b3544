"""uvicorn's HTTP protocol, writing the head of an answer together with the first of its body.

Apart, each is a system call of ours and two of the client's.
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

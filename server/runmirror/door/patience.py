"""uvicorn's HTTP protocol, with an end to its patience: who sends or takes too slowly is let go.

Requests pay for it with an addition or two. One look at all connections, some times in the time a client has, finds
those that keep us waiting; the time in which it is we who do not read does not count. A client that has the server wait
for a head, a body, or for its answer to be taken, holds a socket and memory for so long and no longer.
"""

import asyncio
import json
import resource
import sys
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from runmirror.door.errors import HeadTooLong, TooSlow
from runmirror.errors import RunmirrorError
from runmirror.hot.one_write import OneWriteProtocol

MAX_HEAD_BYTES = 160 * 1024  # what the door allows of headers and address, and some; also of what frames a body
SLOWEST = 500  # bytes of a body in a second, on the whole
_LOOKS = 10
_NOT_CLIENTS = 256  # descriptors kept for Postgres, Azure and files

_HEAD, _BODY, _DONE = range(3)  # what of a request comes next


class Patience:
    """Watches the connections of one process. `limit_s`: how long a client may keep it waiting."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._step_s = min(limit_s / _LOOKS, 1.0)
        self._open: set[PatientProtocol] = set()
        self._next: asyncio.TimerHandle | None = None
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = sys.maxsize if descriptors < 0 else max(descriptors - _NOT_CLIENTS, 64)  # below 0: without a limit

    def watch(self, protocol: "PatientProtocol") -> None:
        if len(self._open) >= self._most:
            self._make_room()
        self._open.add(protocol)
        if self._next is None:
            self._next = protocol.loop.call_later(self._step_s, self._look, protocol.loop)

    def forget(self, protocol: "PatientProtocol") -> None:
        self._open.discard(protocol)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        for protocol in list(self._open):
            protocol.look(self._step_s, self._limit_s)
        self._next = loop.call_later(self._step_s, self._look, loop) if self._open else None

    def _make_room(self) -> None:
        """Without descriptors nobody could come any more: those go that have asked for nothing for the longest."""
        idle = sorted((protocol for protocol in self._open if protocol.is_idle), key=lambda one: -one.waited_s)
        for protocol in idle[: len(idle) // 4 + 1]:
            protocol.transport.abort()


class PatientProtocol(OneWriteProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        patience: Patience,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.waited_s = 0.0
        self._patience = patience
        self._next_is = _HEAD
        self._unpaid = 0  # bytes since the head began, or since there was last something of a body
        self._received = self._seen = 0  # bytes of the connection, now and at the last look
        self._body_s = 0.0  # for how long this body has been waited for, and what was received before it
        self._before_body = 0
        self._left = 0  # bytes that the client had not taken at the last look

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._patience.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        self._unpaid += len(data)
        super().data_received(data)
        if self._unpaid > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HeadTooLong(MAX_HEAD_BYTES))

    def on_message_begin(self) -> None:
        self._next_is, self._unpaid, self.waited_s = _HEAD, 1, 0.0  # of what came with it, one byte is enough
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._next_is, self._body_s, self.waited_s, self._before_body = _BODY, 0.0, 0.0, self._received
        super().on_headers_complete()
        self.headers = []  # what comes behind a body has nothing to say about the request any more

    def on_body(self, body: bytes) -> None:
        self._unpaid = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._next_is, self._unpaid = _DONE, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self.waited_s = 0.0  # and no timer of uvicorn's for each request: `look` counts

    def resume_writing(self) -> None:
        self._left, self.waited_s = 0, 0.0  # the client has taken something
        super().resume_writing()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked, or not yet."""
        return self._next_is != _BODY and self._is_answered

    @property
    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def look(self, passed_s: float, limit_s: float) -> None:
        """Let the client go if it kept us waiting for too long; `passed_s` is since the last look."""
        if self.transport.is_closing() or self.flow.write_paused:
            left = self.transport.get_write_buffer_size()
            self.waited_s = self.waited_s + passed_s if left >= self._left > 0 else 0.0
            self._left = left
            if self.waited_s > limit_s:
                self.transport.abort()
            return
        self._left = 0
        got, self._seen = self._received - self._seen, self._received
        if self._next_is == _BODY:
            self._look_at_body(passed_s, limit_s, got)
        elif not self._is_answered:  # it is we who are to do something
            self.waited_s = 0.0
        else:
            self.waited_s += passed_s  # however much of a head came meanwhile
            if self._next_is == _DONE and self._is_kept_no_longer(passed_s):
                self.transport.close()
            elif self._next_is == _HEAD and self.waited_s > limit_s:
                self._refuse(TooSlow())

    def _look_at_body(self, passed_s: float, limit_s: float, got: int) -> None:
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self.waited_s = 0.0
            return
        self.waited_s = 0.0 if got else self.waited_s + passed_s
        self._body_s += passed_s
        is_slow = max(self.waited_s, self._body_s - (self._received - self._before_body) / SLOWEST) > limit_s
        if self._is_answered:  # what was refused before it came may never come
            if is_slow or self._is_kept_no_longer(passed_s):
                self.transport.close()
        elif is_slow:
            self._refuse(TooSlow())

    def _is_kept_no_longer(self, passed_s: float) -> bool:
        """Whether nothing came for as long as clients count on; of the first look's time only a part was waited."""
        return self.waited_s - passed_s >= self.timeout_keep_alive

    def _refuse(self, error: RunmirrorError) -> None:
        """Say why, where that cannot be taken for a part of an answer, and close."""
        cycle = self.cycle
        if self._next_is == _HEAD:
            may_say = self._is_answered and self._unpaid > 0  # who said nothing is told nothing
        else:
            may_say = self._is_answered or not (cycle.response_started or self.pipeline)
        if not may_say:
            self.transport.abort()
            return
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # whatever the application would say now
            cycle.message_event.set()
        body = json.dumps({"error_code": error.code, "message": error.message}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[error.status] + head + body)
        self.transport.close()

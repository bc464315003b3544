"""A real receiver of webhooks on loopback: answers as it is told and remembers what it was sent."""

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def delivery_id(self) -> str:
        return self.headers["X-MLflow-Delivery-Id"]


@dataclass
class Receiver:
    """`answers[path]` is a list of (status, headers, body), the last of which stays; 200 without any.

    A path that begins with /hang is answered when the receiver closes, or when `hanging` is set.
    """

    port: int = 0
    answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def at(self, path: str) -> list[Received]:
        return [one for one in self.received if one.path == path]

    def wait_for(self, path: str, count: int = 1) -> list[Received]:
        """What has come at `path`, once it is `count` requests."""
        deadline = time.monotonic() + DEADLINE_S
        while len(self.at(path)) < count:
            assert time.monotonic() < deadline, f"{len(self.at(path))} of {count} requests came at {path}"
            threading.Event().wait(0.01)  # the pause between two looks
        return self.at(path)


@contextmanager
def receiving(port: int = 0, trust: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver; with `trust`, the server's side of TLS, it speaks HTTPS."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append(Received(self.path, dict(self.headers), content))
            if self.path.startswith("/hang"):
                receiver.hanging.wait(DEADLINE_S)
            answers = receiver.answers.get(self.path, [])
            status, headers, body = answers.pop(0) if len(answers) > 1 else [*answers, (200, {}, b"thanks")][0]
            with suppress(OSError):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                while self.path.startswith("/endless") and not receiver.hanging.is_set():
                    self.wfile.write(b"x" * 65536)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """A peer that hangs up is what some tests are about."""

    server = Server(("127.0.0.1", port), Handler)
    if trust is not None:
        server.socket = trust.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.hanging.set()
        server.shutdown()
        server.server_close()
        thread.join()

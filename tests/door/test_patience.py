"""Clients that keep the server waiting, on the server as users start it."""

import json
import select
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.server import Server, serving

LIMIT_S = 1.0
POST = b"POST /api/2.0/mlflow/experiments/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET /version HTTP/1.1\r\nHost: localhost\r\n"
_EACH = 40

Drip = Callable[[int], bytes]

# What a slow client sends first, and then bit by bit; with the status it is told, if any.
SLOW: dict[str, tuple[bytes, Drip, int | None]] = {
    "says nothing": (b"", lambda _: b"", None),
    "stops in the head": (GET + b"X-A: b", lambda _: b"", 408),
    "a header now and then": (GET, lambda n: b"X-%d: y\r\n" % n, 408),
    "letters of a header": (GET + b"X-A: ", lambda _: b"y", 408),
    "stops in the body": (POST + b"Content-Length: 100\r\n\r\n{", lambda _: b"", 408),
    "letters of a body": (POST + b"Content-Length: 1000000\r\n\r\n{", lambda _: b" ", 408),
    "letters in chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n", lambda _: b"1\r\n \r\n", 408),
    "empty lines after a request": (GET + b"\r\n", lambda _: b"\r\n", 200),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory(prefix="runmirror-", ignore_cleanup_errors=True) as folder,
        serving(Path(folder), "--no-mirror", RUNMIRROR_CLIENT_TIMEOUT=str(LIMIT_S)) as started,
    ):
        yield started


def address(server: Server) -> tuple[str, int]:
    url = httpx.URL(server.url)
    assert url.port is not None
    return url.host, url.port


def test_slow_clients_are_let_go_while_others_are_served(server: Server) -> None:
    with ExitStack() as stack:
        opened = [
            (name, stack.enter_context(socket.create_connection(address(server))))
            for name in SLOW
            for _ in range(_EACH)
        ]
        for name, each in opened:
            each.setblocking(False)
            each.sendall(SLOW[name][0])
        began = time.monotonic()
        heard, longest = _drip(server, opened, began)
        print(f"{len(opened)} slow sockets closed in {time.monotonic() - began:.1f} s; others waited {longest:.3f} s")
    for name, said in heard:
        status = SLOW[name][2]
        assert (said == b"") if status is None else said.startswith(b"HTTP/1.1 %d " % status), (name, said)
    assert longest < 2


def _drip(
    server: Server, opened: list[tuple[str, socket.socket]], began: float
) -> tuple[list[tuple[str, bytes]], float]:
    """What each was told until it was closed, and how long anybody else waited for an answer meanwhile."""
    heard: dict[socket.socket, bytes] = {each: b"" for _, each in opened}
    is_open, longest = set(heard), 0.0
    with httpx.Client(base_url=server.url, trust_env=False, timeout=10) as client:
        while is_open:
            asked = time.monotonic()
            assert asked - began < 20 * LIMIT_S, {name for name, each in opened if each in is_open}
            assert client.post("/api/2.0/mlflow/experiments/search", json={"max_results": 5}).status_code == 200
            longest = max(longest, time.monotonic() - asked)
            for name, each in opened:
                if each in is_open:
                    with suppress(OSError):  # when it is closed, reading will tell
                        each.sendall(SLOW[name][1](round(asked * 1000)))
            for each in select.select(list(is_open), [], [], LIMIT_S / 10)[0]:
                told = b""
                with suppress(ConnectionError):
                    told = each.recv(65536)
                heard[each] += told
                if not told:
                    is_open.discard(each)
    return [(name, heard[each]) for name, each in opened], longest


def test_a_body_that_comes_steadily_may_take_longer(server: Server) -> None:
    body = json.dumps({"max_results": 5}).encode().ljust(9000)
    with socket.create_connection(address(server)) as client:
        client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body))
        began = time.monotonic()
        for start in range(0, len(body), 1000):
            client.sendall(body[start : start + 1000])
            select.select([client], [], [], LIMIT_S / 3)
        assert time.monotonic() - began > 2 * LIMIT_S
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_connection_is_kept_for_five_seconds_after_an_answer(server: Server) -> None:
    """As uvicorn has it, and clients count on it, however slow the request was."""
    body = json.dumps({"max_results": 5}).encode()
    with socket.create_connection(address(server), timeout=30) as client:
        client.sendall(GET + b"\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert not select.select([client], [], [], 2 * LIMIT_S)[0], "closed although it may be used again"
        client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body[:5])
        assert not select.select([client], [], [], LIMIT_S / 2)[0]
        client.sendall(body[5:])
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        answered = time.monotonic()
        assert client.recv(65536) == b""
        assert time.monotonic() - answered > 4.9


def test_who_was_refused_before_the_body_came_is_told_no_more(server: Server) -> None:
    with socket.create_connection(address(server), timeout=30) as client:
        client.sendall(POST.replace(b"localhost", b"elsewhere.example") + b"Content-Length: 50\r\n\r\n{")
        assert client.recv(65536).startswith(b"HTTP/1.1 403 ")
        assert client.recv(65536) == b""


def test_a_head_without_end_is_refused_before_it_fills_the_memory(server: Server) -> None:
    sent = {
        "one header": (GET + b"X-A: ", b"y" * 65536),
        "many": (GET, b"X-A: y\r\n" * 8192),
        "address": (b"GET /", b"y" * 65536),
        "behind the body": (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-A: y\r\n" * 8192),
    }
    for name, (head, more) in sent.items():
        with socket.create_connection(address(server)) as client:
            client.settimeout(10)
            client.sendall(head)
            told, bytes_sent = b"", 0
            try:
                while not told:
                    client.sendall(more)
                    bytes_sent += len(more)
                    assert bytes_sent < 32 * 1024**2, name
                    if select.select([client], [], [], 0)[0]:
                        told = client.recv(65536) or b"closed"
            except ConnectionError:
                continue  # what it said is lost with the connection
            assert told.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 414 ", b"HTTP/1.1 400 ", b"closed")), (name, told)


def test_who_does_not_take_the_answer_is_let_go(server: Server) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        run = client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]
        root = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
        path = f"/api/2.0/mlflow-artifacts/artifacts/{root}/large"
        size = 24 * 1024**2
        assert client.put(path, content=b"\0" * size, timeout=60).status_code == 200
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        lazy.connect(address(server))
        lazy.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert lazy.recv(12) == b"HTTP/1.1 200"
        process, port = psutil.Process(server.child.pid), lazy.getsockname()[1]
        deadline = time.monotonic() + 20 * LIMIT_S
        while any(each.raddr and each.raddr.port == port for each in process.net_connections("tcp")):
            assert time.monotonic() < deadline, "it is connected still"
            select.select([], [], [], LIMIT_S / 10)
        got = 0
        lazy.settimeout(10)
        try:
            while part := lazy.recv(1 << 20):
                got += len(part)
        except ConnectionError:
            pass
        assert got < size

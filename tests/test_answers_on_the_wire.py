"""What leaves the socket is what uvicorn's own protocol would have sent, byte for byte, in fewer pieces."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runmirror.hot.one_write import OneWriteProtocol

JSON = (b"content-type", b"application/json")
SURE = "/sure"
LARGE = b"x" * 1_000_000


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


def sized(length: int) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % length)


# What an application says to a request for each path.
SAID: dict[str, list[Message]] = {
    SURE: [start(200, JSON, sized(4)), body(b"sure")],
    "/empty": [start(200, sized(0)), body()],
    "/no-body-key": [start(200, sized(0)), {"type": "http.response.body"}],
    "/no-headers": [{"type": "http.response.start", "status": 200}, body(b"abc")],
    "/large": [start(200, sized(len(LARGE))), body(LARGE)],
    "/created": [start(201, JSON, sized(2), (b"x-request-id", b"1-2")), body(b"{}")],
    "/nobody-knows": [start(599, sized(1)), body(b"?")],
    "/no-content": [start(204), body()],
    "/no-content-of-a-length": [start(204, sized(0)), body()],
    "/not-modified": [start(304, (b"etag", b'"1"')), body()],
    "/no-length": [start(200, JSON), body(b"chunked")],
    "/no-length-nor-body": [start(200), body()],
    "/in-parts": [start(200, sized(6)), body(b"abc", more=True), body(b"", more=True), body(b"def")],
    "/in-chunks": [start(200), body(b"abc", more=True), body(b"", more=True), body(b"def", more=True), body()],
    "/chunks-said": [start(200, (b"transfer-encoding", b"chunked")), body(b"abc")],
    "/chunks-of-a-length": [start(200, (b"transfer-encoding", b"chunked"), sized(3)), body(b"abc")],
    "/upper-case": [start(200, (b"Content-Length", b"3"), (b"X-Large", b"Yes")), body(b"abc")],
    "/says-close": [start(200, sized(3), (b"connection", b"close")), body(b"abc")],
    "/says-keep-alive": [start(200, sized(3), (b"connection", b"keep-alive")), body(b"abc")],
    "/a-value-with-a-line": [start(200, sized(3), (b"location", b"/a\r\nset-cookie: b")), body(b"abc")],
    "/a-value-with-a-tab": [start(200, sized(3), (b"x-a", b"a\tb"), (b"x-b", "ä".encode("latin-1"))), body(b"abc")],
    "/a-name-with-a-space": [start(200, sized(3), (b"x a", b"b")), body(b"abc")],
    "/a-known-name-with-a-line": [start(200, sized(3), (b"content-type", b"a\r\nb: c")), body(b"abc")],
    "/too-short": [start(200, sized(4)), body(b"abc")],
    "/pairs-as-lists": [{**start(), "headers": [[b"content-length", b"3"], list(JSON)]}, body(b"abc")],
    "/two-lengths": [start(200, sized(3), sized(3)), body(b"abc")],
    "/more-than-an-answer": [start(200, sized(3)), body(b"abc"), body(b"def")],
    "/body-first": [body(b"abc"), start(200, sized(3))],
    "/nothing": [],
}

# What uvicorn has sent the head of when it finds out that more cannot follow.
HELD = {
    "/too-long": [start(200, sized(2)), body(b"abc")],
    "/two-heads": [start(200, sized(3)), start(200, sized(3)), body(b"abc")],
    "/head-only": [start(200, sized(3))],
}


class Failure(Exception):
    pass


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope["path"]
    if path == "/echo":
        content = b""
        while True:
            message = await receive()
            content += message["body"]
            if not message["more_body"]:
                break
        await send(start(200, sized(len(content))))
        await send(body(content))
    elif path == "/head-then-reads":
        await send(start(200, sized(4)))
        await send(body((await receive())["body"] + b"!"))
    elif path == "/headers-once":
        await send({**start(), "headers": iter([sized(3), (b"X-Large", b"Yes")])})
        await send(body(b"abc"))
    elif path == "/fails":
        raise Failure
    elif path == "/fails-after-its-head":
        await send(start(200, sized(3)))
        raise Failure
    else:
        for message in {**SAID, **HELD}[path]:
            await send(message)


@asynccontextmanager
async def listening(protocol: type[asyncio.Protocol]) -> AsyncIterator[int]:
    """The port of a server that speaks `protocol`."""
    config = uvicorn.Config(
        app, port=0, http=protocol, lifespan="off", log_config=None, access_log=False, date_header=False, ws="none"
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@pytest.fixture
async def ports() -> AsyncIterator[tuple[int, int]]:
    """Of uvicorn as it comes, and of ours."""
    async with listening(HttpToolsProtocol) as stock, listening(OneWriteProtocol) as ours:
        yield stock, ours


def ask(path: str, method: str = "GET", version: str = "1.1", *headers: str, content: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "host: a", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


LAST = ask(SURE, "GET", "1.1", "connection: close")


async def told(port: int, *requests: bytes) -> bytes:
    """All that the server says to these until it closes, which it is asked to do in the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(requests) + LAST)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("path", [*SAID, "/headers-once", "/fails"])
async def test_each_answer_is_that_of_uvicorn(ports: tuple[int, int], path: str) -> None:
    stock, ours = ports
    for method in ("GET", "HEAD", "POST"):
        for version, *headers in (
            ("1.1",), ("1.1", "connection: close"), ("1.0",), ("1.0", "connection: keep-alive"),
        ):  # fmt: skip
            asked = ask(path, method, version, *headers)
            expected = await told(stock, asked)
            assert await told(ours, asked) == expected, (method, version, headers)
            if path == SURE and version == "1.1" and not headers:
                assert expected.count(b"HTTP/1.1 200 OK\r\n") == 2, "the connection goes on"


async def test_requests_sent_at_once_are_answered_in_their_order(ports: tuple[int, int]) -> None:
    stock, ours = ports
    length = len(LARGE)
    asked = [
        ask("/in-chunks"), ask("/empty"), ask("/echo", "POST", "1.1", "content-length: 3", content=b"one"), ask(SURE),
        ask("/echo", "POST", "1.1", f"content-length: {length}", content=LARGE), ask(SURE, "HEAD"), ask("/no-content"),
        ask("/echo", "PUT", "1.1", "transfer-encoding: chunked", content=b"3\r\ntwo\r\n0\r\n\r\n"),
        ask("/echo", "PUT", "1.1", "content-length: 5", "expect: 100-continue", content=b"three"),
        ask("/head-then-reads", "PUT", "1.1", "content-length: 3", "expect: 100-continue", content=b"yes"),
    ]  # fmt: skip
    assert await told(ours, *asked) == await told(stock, *asked)


async def test_no_head_is_sent_that_nothing_can_follow(ports: tuple[int, int]) -> None:
    """On purpose not as uvicorn does it, which has sent the head by then and can only close."""
    stock, ours = ports
    for path in (*HELD, "/fails-after-its-head"):
        assert (await told(stock, ask(path))).startswith(b"HTTP/1.1 200 OK\r\n"), path
    for path in ("/head-only", "/fails-after-its-head"):
        answer = await told(ours, ask(path))
        assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n"), path
        assert answer.endswith(b"\r\n\r\nInternal Server Error"), "and the connection is closed"
    for path in ("/too-long", "/two-heads"):
        assert await told(ours, ask(path)) == b"", path


async def test_requests_leave_nothing_to_the_garbage_collector(ports: tuple[int, int]) -> None:
    """What refers to itself in a ring is found by walking through all that is new: a twentieth of the time."""
    _, ours = ports
    requests = [ask(SURE)] * 300
    await told(ours, *requests)
    gc.collect()
    gc.disable()
    try:
        answers = await told(ours, *requests)
        rings = gc.collect()
    finally:
        gc.enable()
    assert answers.count(b"\r\n\r\nsure") == 301
    assert rings < 300, "not one a request"

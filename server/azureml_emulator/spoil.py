"""How a fault is done to a request, as ASGI around everything the emulated hosts answer."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from azureml_emulator.faults import Fault
from azureml_emulator.transport import transport_of

_DRIPS = 20

Answer = Callable[[], Awaitable[None]]


async def spoil(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request the way its fault wants."""
    match fault.kind:
        case "status":
            await _read_all(receive)
            await _answer(fault, send)
        case "reset_before":
            await _reset(scope, receive)
        case "reset_after":
            await app(scope, receive, _nowhere)
            await _reset(scope, receive)
        case "hang":
            await _hang(fault, app, scope, receive, send)
        case "hang_after":
            held: list[Message] = []

            async def hold(message: Message) -> None:
                held.append(message)

            await app(scope, receive, hold)
            await asyncio.sleep(fault.seconds)
            for message in held:
                await send(message)
        case "truncate":
            await _truncate(app, scope, receive, send)
        case "drip":
            await _drip(fault, app, scope, receive, send)


async def _nowhere(_message: Message) -> None:
    """Swallow an answer."""


async def _read_all(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


async def _answer(fault: Fault, send: Send) -> None:
    body = fault.body if isinstance(fault.body, str) else json.dumps(fault.body) if fault.body is not None else ""
    told = {name: _date(value) for name, value in fault.headers.items()}
    headers = {"content-type": "application/json", **told, "content-length": str(len(body.encode()))}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": raw})
    await send({"type": "http.response.body", "body": body.encode()})


def _date(value: str) -> str:
    """`date+N` stands for the time N seconds from now, as HTTP writes it."""
    return formatdate(time.time() + float(value[5:]), usegmt=True) if value.startswith("date+") else value


async def _reset(scope: Scope, receive: Receive) -> None:
    transport_of(scope).abort()
    await _until_gone(receive)


async def _until_gone(receive: Receive) -> None:
    """Wait until the protocol has noticed: before that, uvicorn would complain of a missing answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _hang(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Wait, then answer normally; a client that has gone by then has changed nothing."""
    transport = transport_of(scope)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(fault.seconds):
            while not transport.is_closing():  # noqa: ASYNC110 - a transport has no event for this
                await asyncio.sleep(0.02)
    if not transport.is_closing():
        await app(scope, receive, send)


async def _drip(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a few bytes at a time, so that no single wait is long but all of them together are."""
    transport = transport_of(scope)

    async def drip(message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] == "http.response.start" or not body:
            await send(message)
            return
        size = max(1, len(body) // _DRIPS)
        for at in range(0, len(body), size):
            if transport.is_closing():
                return
            await asyncio.sleep(fault.seconds / _DRIPS)
            await send({"type": "http.response.body", "body": body[at : at + size], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)})

    await app(scope, receive, drip)


async def _truncate(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Promise the whole body and send half of it."""
    start: Message = {}
    body = b""

    async def collect(message: Message) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start":
            start = message
        else:
            body += message.get("body", b"")

    await app(scope, receive, collect)
    await send(start)
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    # Unlike a reset, this still sends what was written.
    transport_of(scope).close()
    await _until_gone(receive)

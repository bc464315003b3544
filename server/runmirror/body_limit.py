"""A ceiling for JSON bodies and for how deep they nest. Artifact uploads stream and have none.

FastAPI's own limit answers in plain text; clients of MLflow read JSON.
"""

from array import array
from itertools import accumulate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runmirror.answers import error_answer
from runmirror.errors import BodyTooLong, InvalidParameter

MAX_NESTING = 200  # what walks through a body calls itself: three calls a level stay far below Python's thousand

_STREAMED = "/mlflow-artifacts/artifacts"
_ALL_BUT_BRACKETS_AND_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one level down, one level up


class BodyLimit:
    """ASGI middleware: refuses a JSON body longer than `limit_bytes`, announced or not, or nested too deep."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _STREAMED in scope["path"]:
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"])
        announced = given.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self.limit_bytes:
            await error_answer(BodyTooLong(self.limit_bytes))(scope, receive, send)
            return
        is_json = b"json" in given.get(b"content-type", b"").lower()
        received = 0
        parts: list[bytes] = []

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            part = message.get("body", b"")
            received += len(part)
            if received > self.limit_bytes:
                raise BodyTooLong(self.limit_bytes)
            if is_json:
                parts.append(part)
                if not message.get("more_body", False):
                    check_nesting(b"".join(parts))
                    parts.clear()
            return message

        await self.app(scope, counted, send)


def check_nesting(body: bytes) -> None:
    """Raise `InvalidParameter` when JSON nests deeper than `MAX_NESTING`, before anything is made of it.

    The hot routes need no such check: what is not flat there is passed over by the decoder, which makes nothing of it.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_NESTING:
        return
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = unescaped.translate(_STEPS, _ALL_BUT_BRACKETS_AND_QUOTES).replace(b'""', b"")
    steps = array("b", b"".join(brackets.split(b'"')[::2]))  # without what stands between quotes
    if max(accumulate(steps), default=0) > MAX_NESTING:
        raise InvalidParameter(f"The request body nests deeper than {MAX_NESTING} levels.")

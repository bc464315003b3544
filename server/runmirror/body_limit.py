"""A ceiling for JSON bodies, before anything parses them. Artifact uploads stream and have none.

FastAPI's own limit answers in plain text; clients of MLflow read JSON.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runmirror.answers import error_answer
from runmirror.errors import BodyTooLong

_STREAMED = "/mlflow-artifacts/artifacts"


class BodyLimit:
    """ASGI middleware: refuses a JSON body longer than `limit_bytes`, announced or not."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _STREAMED in scope["path"]:
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self.limit_bytes:
            await error_answer(BodyTooLong(self.limit_bytes))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit_bytes:
                raise BodyTooLong(self.limit_bytes)
            return message

        await self.app(scope, counted, send)

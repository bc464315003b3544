"""A ceiling for JSON bodies, before anything parses them. Artifact uploads stream and have none."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runmirror.answers import error_answer
from runmirror.errors import InvalidParameter

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
            await self._refuse(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit_bytes:
                raise self._error()
            return message

        await self.app(scope, counted, send)

    def _error(self) -> InvalidParameter:
        return InvalidParameter(f"The request body is longer than {self.limit_bytes} bytes (RUNMIRROR_MAX_BODY_BYTES).")

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await error_answer(self._error(), status=413)(scope, receive, send)

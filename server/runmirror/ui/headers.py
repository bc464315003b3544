"""Headers that every answer has, as `mlflow server` sends them: a browser neither guesses types nor frames us."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FRAMED_BY_NOTEBOOKS = "/static-files/lib/notebook-trace-renderer"


class SecurityHeaders:
    """ASGI middleware; `x_frame_options` "NONE" lets any page frame ours."""

    def __init__(self, app: ASGIApp, x_frame_options: str) -> None:
        self.app = app
        self.x_frame_options = x_frame_options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if self.x_frame_options != "NONE" and not scope["path"].startswith(_FRAMED_BY_NOTEBOOKS):
                    headers["X-Frame-Options"] = self.x_frame_options
            await send(message)

        await self.app(scope, receive, with_headers)

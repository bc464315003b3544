"""Hot routes: a request that is plainly in order is answered here; any other goes the ordinary way, untouched.

The ordinary route stays the truth: it declares the permission, which holds for the hot way too, stands in the OpenAPI
document, and says what is wrong with a request. A hot handler may only accept what the ordinary one accepts, with the
same effect and answer; at the slightest doubt it returns None and has done nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runmirror.answers import error_answer
from runmirror.auth.permits import EVERYTHING, current
from runmirror.auth.subjects import Given
from runmirror.errors import RunmirrorError
from runmirror.routing import routes_of

HotHandler = Callable[[bytes], Awaitable[bytes | None]]
"""From the body of a request to the body of a 200, or None: let the ordinary route have it."""


@dataclass(frozen=True, slots=True)
class Hot:
    """A handler, and the ordinary route that it is the short way of."""

    handler: HotHandler
    route: APIRoute


_JSON = b"application/json"
_NO_HEADERS = Headers(raw=[])  # no hot request names a thing there
_OK_HEADERS = (b"content-type", _JSON)


class HotRoutes:
    """ASGI middleware over `app.state.hot`, see `check_hot`."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hot = _hot(scope)
        if hot is None or not self._is_plain(scope):
            await self.app(scope, receive, send)
            return
        scope["route"] = hot.route  # by which requests are counted
        messages: list[Message] = []
        while True:
            message = await receive()
            messages.append(message)
            if message["type"] != "http.request":
                break
            if not message.get("more_body", False):
                break
        try:
            is_whole = messages[-1]["type"] == "http.request"
            body = b"".join([m.get("body", b"") for m in messages])
            answer = await hot.handler(body) if is_whole and _is_allowed(scope, hot, body) else None
        except RunmirrorError as error:
            await error_answer(error)(scope, receive, send)
            return
        if answer is None:
            await self.app(scope, _again(messages, receive), send)
            return
        headers = [_OK_HEADERS, (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _is_plain(self, scope: Scope) -> bool:
        """A JSON body of a known length within the limit."""
        is_json, length = False, b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                is_json = value == _JSON
            elif name == b"content-length":
                length = value
        return is_json and length.isdigit() and int(length) <= self.limit_bytes


def check_hot(app: FastAPI, hot: Mapping[str, HotHandler]) -> Mapping[str, Hot]:
    """`hot`, by path, for POST. Raises when a path has no ordinary route, which would leave it without a permission."""
    routes = {
        context.path: context.original_route
        for context in routes_of(app)
        if "POST" in (context.methods or ()) and isinstance(context.original_route, APIRoute)
    }
    if strays := set(hot) - set(routes):
        raise RuntimeError(f"hot routes without an ordinary one: {sorted(strays)}")
    return {path: Hot(handler, routes[path]) for path, handler in hot.items()}


def _hot(scope: Scope) -> Hot | None:
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    hot: Mapping[str, Hot] = getattr(scope["app"].state, "hot", {})
    return hot.get(scope["path"])


def _is_allowed(scope: Scope, hot: Hot, body: bytes) -> bool:
    """Whether it is known already that the sender may do this; else the ordinary route's gate finds out."""
    permits = current()
    if permits is EVERYTHING:
        return True
    if scope["query_string"]:  # there a request may name things too
        return False
    subject, permission = scope["app"].state.subjects["POST", hot.route.path]
    try:
        given = Given({}, (), _NO_HEADERS, msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return permits.allow_at_once(subject, permission, given)


def _again(messages: list[Message], receive: Receive) -> Receive:
    """The messages that were read already, then the rest."""
    read = iter(messages)

    async def replayed() -> Message:
        message = next(read, None)
        return message if message is not None else await receive()

    return replayed

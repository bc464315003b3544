"""Hot routes: a request that is plainly in order is answered here; any other goes the ordinary way, untouched.

The ordinary route stays the truth: it declares the permission, which holds for the hot way too, stands in the OpenAPI
document, and says what is wrong with a request. A hot handler may only accept what the ordinary one accepts, with the
same effect and answer; at the slightest doubt it returns None and has done nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

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

HotUpload = Callable[[str, bytes], Awaitable[bytes | None]]
"""The same from a path and the bytes to be there, which may be of any type."""


@dataclass(frozen=True, slots=True)
class Hot:
    """A handler, and the ordinary route that it is the short way of."""

    handler: HotHandler
    route: APIRoute
    is_json: bool = True
    below: str = ""  # the rest of the path, of a file
    limit_bytes: int | None = None  # less than that of any JSON body


@dataclass(frozen=True, slots=True)
class HotFolder:
    """What takes the files that are put below a path, up to a length."""

    handler: HotUpload
    route: APIRoute
    limit_bytes: int


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
        if hot is None or not self._is_plain(scope, hot):
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
        length = (b"content-length", b"%d" % len(answer))
        headers = [_OK_HEADERS, length] if answer else [length]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _is_plain(self, scope: Scope, hot: Hot) -> bool:
        """A body of the right type and of a known length within the limit."""
        is_json, length = None, b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                is_json = value == _JSON if is_json is None else False  # of two the ordinary way takes one
            elif name == b"content-length":
                length = value
        limit_bytes = self.limit_bytes if hot.limit_bytes is None else min(hot.limit_bytes, self.limit_bytes)
        return (bool(is_json) or not hot.is_json) and length.isdigit() and int(length) <= limit_bytes


def check_hot(app: FastAPI, hot: Mapping[str, HotHandler], limit_bytes: int | None = None) -> dict[str, Hot]:
    """`hot`, by path, for POST, of bodies up to a length that may be less than that of any JSON body.

    Raises when a path has no ordinary route, which would leave it without a permission.
    """
    routes = _routes(app, "POST")
    if strays := set(hot) - set(routes):
        raise RuntimeError(f"hot routes without an ordinary one: {sorted(strays)}")
    return {path: Hot(handler, routes[path], limit_bytes=limit_bytes) for path, handler in hot.items()}


def check_hot_folders(app: FastAPI, handler: HotUpload, limit_bytes: int, *paths: str) -> Mapping[str, HotFolder]:
    """As `check_hot` for PUT below paths that end with a slash: the ordinary routes take any path there."""
    routes = _routes(app, "PUT")
    if strays := {path for path in paths if path + "{path:path}" not in routes}:
        raise RuntimeError(f"hot folders without an ordinary route: {sorted(strays)}")
    return {path: HotFolder(handler, routes[path + "{path:path}"], limit_bytes) for path in paths}


def _routes(app: FastAPI, method: str) -> dict[str, APIRoute]:
    return {
        str(context.path): context.original_route
        for context in routes_of(app)
        if method in (context.methods or ()) and isinstance(context.original_route, APIRoute)
    }


def _hot(scope: Scope) -> Hot | None:
    if scope["type"] != "http":
        return None
    method, path, state = scope["method"], scope["path"], scope["app"].state
    if method == "POST":
        hot: Mapping[str, Hot] = getattr(state, "hot", {})
        return hot.get(path)
    if method == "PUT":
        folders: Mapping[str, HotFolder] = getattr(state, "hot_folders", {})
        for start, folder in folders.items():
            if path.startswith(start):
                below = path.removeprefix(start)
                handler = partial(folder.handler, below)
                return Hot(handler, folder.route, is_json=False, below=below, limit_bytes=folder.limit_bytes)
    return None


def _is_allowed(scope: Scope, hot: Hot, body: bytes) -> bool:
    """Whether it is known already that the sender may do this; else the ordinary route's gate finds out."""
    permits = current()
    if permits is EVERYTHING:
        return True
    if scope["query_string"]:  # there a request may name things too
        return False
    subject, permission = scope["app"].state.subjects[scope["method"], hot.route.path]
    try:
        told = msgspec.json.decode(body) if hot.is_json else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return permits.allow_at_once(subject, permission, Given({"path": hot.below}, (), _NO_HEADERS, told))


def _again(messages: list[Message], receive: Receive) -> Receive:
    """The messages that were read already, then the rest."""
    read = iter(messages)

    async def replayed() -> Message:
        message = next(read, None)
        return message if message is not None else await receive()

    return replayed

"""Finds out who sends a request, before anything else looks at it: nobody who is not signed in gets any further.

Who is signed in is told by a token, as Bearer (MLFLOW_TRACKING_TOKEN) or as the password of Basic
(MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD), by a name and its password, or with RUNMIRROR_AUTH=entra by an
access token of the issuer that is trusted, as Bearer. A browser that was signed in has a cookie instead; one that was
not is led to the sign-in page.
"""

import base64
import binascii
import re
from collections.abc import Sequence

from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from runmirror.answers import error_answer
from runmirror.audit.caller import caller
from runmirror.auth import permits
from runmirror.auth.access import Access
from runmirror.auth.identities import Identities
from runmirror.auth.viewer import Viewer
from runmirror.door.rate import Buckets, TooOften
from runmirror.errors import PermissionDenied, RunmirrorError, Unauthenticated
from runmirror.routing import Permission, routes_of
from runmirror.signin.cookies import Cookies, is_from_our_pages, wants_page
from runmirror.signin.places import Places

_LONGEST = 16_384  # an access token tells of hundreds of groups
_NO_WINDOW = 'Bearer realm="runmirror"'
_NOT_KEPT = {"Cache-Control": "no-store"}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Authenticate:
    """ASGI middleware. Probes, the pages' own files and what else is declared public need no identity."""

    def __init__(self, app: ASGIApp, places: Places, cookies: Cookies, per_second: float) -> None:
        self.app = app
        self._buckets = Buckets(per_second) if per_second else None  # of users
        self._places = places
        self._cookies = cookies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # none is served
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        app: FastAPI = scope["app"]
        try:
            viewer = await self._viewer(scope, app.state.identities)
            if viewer is None and (scope["path"] == "/" or not _is_public(scope, app)):
                if wants_page(scope) and not _told(scope):
                    await RedirectResponse(self._places.sign_in(scope), 303, _NOT_KEPT)(scope, receive, send)
                    return
                if scope["path"] != "/":
                    raise _not_signed_in(scope)
            if viewer is not None and self._buckets is not None:
                _take(self._buckets, viewer, scope["path"])
        except RunmirrorError as error:
            await error_answer(error)(scope, receive, send)
            return
        if viewer is not None:
            caller.set(viewer.name)
        access: Access = app.state.access
        token = permits.set_current(permits.Permits(viewer, access))
        try:
            await self.app(scope, receive, send)
        finally:
            permits.reset_current(token)

    async def _viewer(self, scope: Scope, identities: Identities) -> Viewer | None:
        """None when the request tells nobody's name, or what it tells is wrong."""
        told = _told(scope)
        if not told:
            return await self._of_session(scope, identities)
        if len(told) != 1 or len(told[0]) > _LONGEST:
            return None
        return await _of_authorization(told[0], scope, identities)

    async def _of_session(self, scope: Scope, identities: Identities) -> Viewer | None:
        """A browser sends its cookie by itself, so it counts only where a page of ours, or nobody, made it ask."""
        session = self._cookies.session(scope)
        viewer = None if session is None else await identities.of_session(session)
        if viewer is None or is_from_our_pages(scope):
            return viewer
        if scope["method"] in _SAFE_METHODS:
            return None
        raise PermissionDenied("A page of another site may not send this for who is signed in here.")


def public_paths(app: FastAPI) -> Sequence[tuple[str, re.Pattern[str]]]:
    """Method and path of every route that is declared public."""
    return [
        (method, context.path_regex)
        for context in routes_of(app)
        if (context.openapi_extra or {}).get("x-permission") == Permission.PUBLIC
        for method in context.methods or ()
    ]


def _is_public(scope: Scope, app: FastAPI) -> bool:
    method, path = scope["method"], scope["path"]
    return any(method == each and pattern.match(path) for each, pattern in app.state.public_paths)


def _take(buckets: Buckets, viewer: Viewer, path: str) -> None:
    """Raise `TooOften` for a user who asks too often, wherever from; the pages' own files are free."""
    if not path.startswith("/static-files/") and (wait_s := buckets.take(viewer.user_id)):
        raise TooOften(wait_s, "by you (RUNMIRROR_RATE_LIMIT_PER_USER)")


def _told(scope: Scope) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == b"authorization"]


def _not_signed_in(scope: Scope) -> Unauthenticated:
    error = Unauthenticated(
        "Not signed in: send a token as MLFLOW_TRACKING_TOKEN, or a name and a password or token as "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    )
    if not _told(scope) and any(name == b"sec-fetch-mode" for name, _ in scope["headers"]):
        # A page asks, whose visitor was signed in until now: the browser would put up a window of its own.
        error.challenge = _NO_WINDOW
    return error


async def _of_authorization(told: bytes, scope: Scope, identities: Identities) -> Viewer | None:
    """None when what it tells is wrong."""
    scheme, _, credentials = told.partition(b" ")
    try:
        match scheme.lower():
            case b"bearer":
                token = credentials.strip().decode("ascii")
                return await (identities.of_jwt(token) if token.count(".") == 2 else identities.of_token(token))
            case b"basic":
                decoded = base64.b64decode(credentials.strip(), validate=True).decode("utf-8")
            case _:
                return None
    except (UnicodeDecodeError, binascii.Error):
        return None
    _refuse_from_elsewhere(scope)
    name, _, password = decoded.partition(":")
    return await identities.of_name(name, password)


def _refuse_from_elsewhere(scope: Scope) -> None:
    """A browser sends a name and password by itself, also for a page of another site: that may change nothing."""
    if scope["method"] in _SAFE_METHODS:
        return
    if (b"sec-fetch-site", b"cross-site") in scope["headers"]:
        raise PermissionDenied("A page of another site may not send this with your name and password.")

"""HTTP of signing in and out, for browsers: pages and redirects."""

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from runmirror import audit
from runmirror.auth import secrets
from runmirror.auth.identities import Identities
from runmirror.auth.permits import current
from runmirror.dashboard.origin import SameOrigin
from runmirror.dashboard.pages import page
from runmirror.db import write_connection
from runmirror.errors import BadRequest, RunmirrorError, Unauthenticated
from runmirror.routing import Permission, route
from runmirror.signin import oidc, queries
from runmirror.signin.cookies import Cookies
from runmirror.signin.places import CALLBACK, OURS, SIGN_IN, SIGN_OUT, START, Places, checked_next
from runmirror.signin.queries import Opening

router = APIRouter(tags=["sign-in"], include_in_schema=False)

_MOST_BYTES = 8192
_NOT_KEPT = {"Cache-Control": "no-store"}

_Next = Annotated[str, Query(alias="next", max_length=4000)]


class FormTooLong(BadRequest):
    status = 413

    def __init__(self) -> None:
        super().__init__("That is more than a name and a token or password.")


class WrongSecret(Unauthenticated):
    challenge = 'Bearer realm="runmirror"'


@route(router, "GET", SIGN_IN, permission=Permission.PUBLIC)
async def sign_in_page(request: Request, place: _Next = "/") -> Response:
    """How to sign in, or as whom one is."""
    checked_next(place)
    return _page(request, place)


@route(router, "POST", SIGN_IN, permission=Permission.PUBLIC)
async def sign_in(request: Request, _: SameOrigin, place: _Next = "/") -> Response:
    """With a token, or a name and a password."""
    checked_next(place)
    try:
        form = await _form(request)
        name, secret = form.get("name", "").strip(), form.get("secret", "").strip()
        identities: Identities = request.app.state.identities
        viewer = await identities.of_name(name, secret) if secret else None
        if viewer is None:
            raise WrongSecret("That is no token that is good, nor the password of that user.")
        opening = Opening(viewer.user_id, "password" if viewer.token_id is None else "token", token_id=viewer.token_id)
        return await _signed_in(request, opening, viewer.name, place)
    except RunmirrorError as error:
        return _page(request, place, error)


@route(router, "GET", START, permission=Permission.PUBLIC)
async def start(request: Request, place: _Next = "/") -> Response:
    """To the identity provider."""
    flow = oidc.Flow.begin(place)
    try:
        address = await _provider(request).address(flow, _places(request).callback(request.scope))
    except RunmirrorError as error:
        return _page(request, place, error, depth=1)
    answer = RedirectResponse(address, status_code=303, headers=_NOT_KEPT)
    _cookies(request).keep_flow(request.scope, answer, flow.cookie, oidc.FLOW_S)
    return answer


@route(router, "GET", CALLBACK, permission=Permission.PUBLIC)
async def callback(request: Request, told: Annotated[oidc.Answer, Query()]) -> Response:
    """Back from the identity provider."""
    cookies, scope = _cookies(request), request.scope
    flow = oidc.Flow.read(cookies.flow(scope))
    try:
        claims = await _provider(request).finish(flow, told, _places(request).callback(scope))
        identities: Identities = request.app.state.identities
        viewer = await identities.of_claims(claims)
        if viewer is None or flow is None:
            raise oidc.NotSignedIn("The identity provider names you by what can be no name here.")
        opening = Opening(
            user_id=viewer.user_id, way="oidc", claimed=claims.claimed, is_admin=identities.is_admin_by_role(claims)
        )
        answer = await _signed_in(request, opening, viewer.name, flow.next)
    except RunmirrorError as error:
        answer = _page(request, flow.next if flow else "/", error, depth=1)
    cookies.forget_flow(scope, answer)
    return answer


@route(router, "POST", SIGN_OUT, permission=Permission.PUBLIC)
async def sign_out(request: Request, _: SameOrigin) -> Response:
    """End this browser's session, on every server."""
    secret = _cookies(request).session(request.scope)
    if secret is not None and secrets.is_session(secret):
        async with _writing(request) as connection:
            name = await queries.end(connection, secrets.digest(secret))
            if name is not None:
                await audit.record(connection, "session.end", name)
    answer = RedirectResponse(_places(request).address(SIGN_IN), status_code=303, headers=_NOT_KEPT)
    _cookies(request).forget_session(request.scope, answer)
    return answer


_writing = asynccontextmanager(write_connection)  # no connection is held while a provider or a password takes its time


async def _signed_in(request: Request, opening: Opening, name: str, place: str) -> Response:
    """A session of its own, whatever the browser had: nobody can have given it one to use."""
    lifetime: timedelta = request.app.state.settings.session_ttl
    secret, before = secrets.new_session(), _cookies(request).session(request.scope)
    async with _writing(request) as connection:
        if before is not None and secrets.is_session(before):
            await queries.end(connection, secrets.digest(before))
        await queries.open_session(connection, opening, secrets.digest(secret), lifetime)
        await audit.record(connection, "session.open", name)
    place = "/" if place.partition("?")[0] in OURS else place
    answer = RedirectResponse(_places(request).address(place), status_code=303, headers=_NOT_KEPT)
    _cookies(request).keep_session(request.scope, answer, secret, int(lifetime.total_seconds()))
    return answer


def _page(request: Request, place: str, error: RunmirrorError | None = None, *, depth: int = 0) -> Response:
    viewer = current().viewer
    headers = {} if error is None or error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = error.challenge
    status = 200 if error is None else error.status
    return page(
        request, "signin.html", depth=depth, status=status, headers=headers, next=quote(place, safe="/"),
        problem="" if error is None else error.message,
        has_provider=_has_provider(request), signed_in=viewer is not None and error is None,
    )  # fmt: skip


async def _form(request: Request) -> dict[str, str]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise FormTooLong
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=10))
    except ValueError:
        raise FormTooLong from None


def _places(request: Request) -> Places:
    places: Places = request.app.state.places
    return places


def _cookies(request: Request) -> Cookies:
    cookies: Cookies = request.app.state.cookies
    return cookies


def _has_provider(request: Request) -> bool:
    return request.app.state.provider is not None


def _provider(request: Request) -> oidc.Provider:
    provider: oidc.Provider | None = request.app.state.provider
    if provider is None:
        raise oidc.NotSignedIn("No identity provider is set up here for browsers (RUNMIRROR_OIDC_CLIENT_ID).")
    return provider

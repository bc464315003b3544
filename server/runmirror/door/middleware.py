"""The first thing a request meets and the last thing its answer passes: a few microseconds each.

What is refused here is refused before anything of it was read or looked up.
"""

import os
import re
from itertools import count

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runmirror.answers import error_answer
from runmirror.audit.caller import caller
from runmirror.door.errors import AddressTooLong, HostRefused, OriginRefused, TooManyHeaders
from runmirror.door.origins import is_own, who_may_call
from runmirror.errors import BadRequest, RunmirrorError
from runmirror.logs import request_id
from runmirror.settings import Settings

MAX_HEADERS = 100
MAX_HEADER_BYTES = 64 * 1024  # with a token of Entra that names many groups
MAX_PATH_BYTES = 8 * 1024
MAX_QUERY_BYTES = 32 * 1024

_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ASKED_BY_ADDRESS = frozenset({"/health", "/version", "/livez", "/readyz"})  # of a kubelet, which knows no name
_FRAMED_BY_NOTEBOOKS = "/static-files/lib/notebook-trace-renderer"
_SITES_OF_OURS = frozenset({"same-origin", "none"})
_MOST_REMEMBERED = 1000
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.\-]{1,64}")

_Headers = list[tuple[bytes, bytes]]


def security_headers(x_frame_options: str) -> _Headers:
    """What every answer has: no guessing of types, no frames, no address told to other sites, no use by them.

    With the policy no-referrer, forms of the dashboard would send "Origin: null".
    """
    headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]
    if x_frame_options != "NONE":
        headers.append((b"x-frame-options", x_frame_options.encode()))
    return headers


class Door:
    """ASGI middleware over all of the application. Raises as `who_may_call`."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._hosts, self._origins = who_may_call(settings)
        self._admitted: set[bytes] = set()  # hosts seen and admitted: most requests name one of a few
        self._prefix = settings.static_prefix
        self._process = os.urandom(6).hex()
        self._numbers = count(1)
        self._headers = security_headers(settings.x_frame_options)
        self._framed_headers = security_headers("NONE")[:2]  # shown inside pages of other sites on purpose
        if settings.ssl_certfile is not None:  # only who speaks TLS here knows that https will do from now on
            self._headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        is_framed = path.startswith(_FRAMED_BY_NOTEBOOKS, len(self._prefix))
        number = f"{self._process}-{next(self._numbers):x}"
        headers = [*(self._framed_headers if is_framed else self._headers), (b"x-request-id", number.encode())]
        request_id.set(number)
        caller.set((scope.get("client") or ("unknown",))[0])

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        try:
            given = self._checked(scope)
            if wanted := given.get(b"x-request-id"):
                headers[-1] = self._named(wanted, number)
            if b"origin" in given or b"sec-fetch-site" in given:
                for_page = self._checked_origin(scope, given)
                if for_page:
                    headers = [*headers, *for_page]
                    if scope["method"] == "OPTIONS" and b"access-control-request-method" in given:
                        await _preflight(given)(scope, receive, with_headers)
                        return
        except RunmirrorError as refusal:
            await error_answer(refusal)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)

    def _named(self, wanted: bytes, otherwise: str) -> tuple[bytes, bytes]:
        """The id that a proxy gave the request, when it can be one."""
        name = wanted.decode("latin-1") if _REQUEST_ID.fullmatch(wanted) else otherwise
        request_id.set(name)
        return b"x-request-id", name.encode()

    def _checked(self, scope: Scope) -> dict[bytes, bytes]:
        """The request's headers, when there are not too many and the server has the name it is called by."""
        headers: _Headers = scope["headers"]
        given = dict(headers)
        if len(headers) > MAX_HEADERS or sum([len(name) + len(value) for name, value in headers]) > MAX_HEADER_BYTES:
            raise TooManyHeaders(f"A request has at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together.")
        if len(scope["query_string"]) > MAX_QUERY_BYTES or len(scope.get("raw_path") or b"") > MAX_PATH_BYTES:
            raise AddressTooLong(
                f"An address has a path of at most {MAX_PATH_BYTES} bytes and a query of at most {MAX_QUERY_BYTES}."
            )
        host = given.get(b"host", b"")
        if host not in self._admitted:
            self._check_host(scope["path"], host)
        if len(given) < len(headers) and sum(name == b"host" for name, _ in headers) > 1:
            raise BadRequest("A request has one Host header.")
        return given

    def _check_host(self, path: str, host: bytes) -> None:
        if path in ASKED_BY_ADDRESS or path.removeprefix(self._prefix) in ASKED_BY_ADDRESS:
            return
        name = host.decode("latin-1")
        if not self._hosts.admits(name):
            raise HostRefused(name)
        if len(self._admitted) < _MOST_REMEMBERED:
            self._admitted.add(host)

    def _checked_origin(self, scope: Scope, given: dict[bytes, bytes]) -> _Headers:
        """What lets the page that asks read the answer; nothing for a page of ours, which needs no permission.

        Raises `OriginRefused` when a page elsewhere would change something, or asks whether it may.
        """
        origin = given.get(b"origin", b"").decode("latin-1")
        host = given.get(b"host", b"").decode("latin-1")
        site = given.get(b"sec-fetch-site", b"").decode("latin-1")
        # A browser that says how the page stands to us knows the names that proxies between us may have changed.
        if site in _SITES_OF_OURS or (not site and is_own(origin, host, scope["scheme"])):
            return []
        if origin and self._origins.lists(origin, host):
            if self._origins.everybody:  # whoever asks is told no more than a stranger: no cookies, no passwords
                return [(b"access-control-allow-origin", b"*")]
            return [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-allow-credentials", b"true"),
                (b"vary", b"Origin"),
            ]
        if scope["method"] in _CHANGING or b"access-control-request-method" in given:
            raise OriginRefused(origin or site)
        return []


def _preflight(given: dict[bytes, bytes]) -> Response:
    """The answer to a browser that asks before it calls."""
    wanted = given.get(b"access-control-request-headers", b"").decode("latin-1")
    allowed = {"Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE", "Access-Control-Max-Age": "600"}
    if wanted:
        allowed["Access-Control-Allow-Headers"] = wanted
    return Response(status_code=204, headers=allowed)

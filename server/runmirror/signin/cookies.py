"""The cookies: their names, what they are good for, and that no page elsewhere can use them."""

from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import Scope

from runmirror.door.origins import is_own
from runmirror.signin.places import Places

_SESSION = "runmirror_session"
_FLOW = "runmirror_signin"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGEST = 4096


class Cookies:
    """Browsers keep what begins with __Host- or __Secure- only when it came over TLS, the former from this host alone.

    So nobody who has another name below our domain can give a visitor a session of their choice.
    """

    def __init__(self, places: Places) -> None:
        self._places = places

    def session(self, scope: Scope) -> str | None:
        """What the browser sent; None also when there are two, because one of them is not ours."""
        return self._read(scope, _SESSION)

    def flow(self, scope: Scope) -> str | None:
        return self._read(scope, _FLOW)

    def keep_session(self, scope: Scope, answer: Response, secret: str, seconds: int) -> None:
        self._set(scope, answer, _SESSION, secret, seconds)

    def keep_flow(self, scope: Scope, answer: Response, flow: str, seconds: int) -> None:
        self._set(scope, answer, _FLOW, flow, seconds)

    def forget_session(self, scope: Scope, answer: Response) -> None:
        self._set(scope, answer, _SESSION, "", 0)

    def forget_flow(self, scope: Scope, answer: Response) -> None:
        self._set(scope, answer, _FLOW, "", 0)

    def _read(self, scope: Scope, what: str) -> str | None:
        sent = [value for name, value in scope["headers"] if name == b"cookie"]
        if not sent:
            return None
        wanted = self._name(scope, what).encode()
        found = [value for name, value in _pairs(sent) if name == wanted]
        if len(found) != 1 or len(found[0]) > _LONGEST:
            return None
        return found[0].decode("latin-1")

    def _set(self, scope: Scope, answer: Response, what: str, value: str, seconds: int) -> None:
        answer.set_cookie(
            self._name(scope, what), value, max_age=seconds, path=self._path, secure=self._places.is_tls(scope),
            httponly=True, samesite="lax",
        )  # fmt: skip

    def _name(self, scope: Scope, what: str) -> str:
        if not self._places.is_tls(scope):
            return what
        return f"__Host-{what}" if self._path == "/" else f"__Secure-{what}"

    @property
    def _path(self) -> str:
        return self._places.base or "/"


def is_from_our_pages(scope: Scope) -> bool:
    """Whether one of our pages sends this, or its visitor goes somewhere, which changes nothing.

    Browsers say where a request comes from by headers that pages cannot set, the newer ones only to TLS and this
    machine. Origins that the operator lets call us (CORS) are not ours: they have tokens of their own.
    """
    given = dict(scope["headers"])
    site = given.get(b"sec-fetch-site")
    if site is not None:
        is_going = site == b"none" or given.get(b"sec-fetch-mode") == b"navigate"
        return site == b"same-origin" or (is_going and scope["method"] in _SAFE_METHODS)
    origin = given.get(b"origin")
    if origin is None:
        return scope["method"] in _SAFE_METHODS
    return is_own(origin.decode("latin-1"), given.get(b"host", b"").decode("latin-1"), scope["scheme"])


def wants_page(scope: Scope) -> bool:
    """Whether a browser goes to an address, rather than a page or program asking for something."""
    if scope["method"] != "GET":
        return False
    given = dict(scope["headers"])
    if b"text/html" not in given.get(b"accept", b""):
        return False
    mode = given.get(b"sec-fetch-mode")
    return b"upgrade-insecure-requests" in given if mode is None else mode == b"navigate"


def _pairs(sent: Iterable[bytes]) -> Iterable[tuple[bytes, bytes]]:
    for value in sent:
        for part in value.split(b";"):
            name, _, told = part.strip().partition(b"=")
            yield name, told

"""Where the server is for a browser, and which places of ours it may be led to."""

import re
from urllib.parse import quote, unquote, urlsplit

from starlette.types import Scope

from runmirror.door.hosts import LOOPBACK, Hosts
from runmirror.errors import InvalidParameter
from runmirror.settings import Settings

SIGN_IN = "/signin"
START = "/signin/start"
CALLBACK = "/signin/callback"
SIGN_OUT = "/signout"
OURS = frozenset({SIGN_IN, START, CALLBACK, SIGN_OUT})

_LONGEST = 1000
# Printable ASCII without a backslash, which browsers read as a slash: two of them would name another host.
_PLACE = re.compile(r"/(?!/)[!-\[\]-~]*")
_LOOPBACK = Hosts(LOOPBACK)


class InvalidNext(InvalidParameter):
    def __init__(self) -> None:
        super().__init__("next: it is the path of a page of this server.")


def checked_next(place: str) -> str:
    """A path of ours with what belongs to it, else raises `InvalidNext`: nobody is led elsewhere from here."""
    segments = unquote(re.split(r"[?#]", place, maxsplit=1)[0]).split("/")
    if len(place) > _LONGEST or not _PLACE.fullmatch(place) or {".", ".."}.intersection(segments):
        raise InvalidNext
    return place


class Places:
    """Addresses as browsers see them: `RUNMIRROR_PUBLIC_URL` if it is set, else what the request tells."""

    def __init__(self, settings: Settings) -> None:
        self._public = settings.public_url
        self.base = urlsplit(self._public).path if self._public else settings.static_prefix

    def address(self, place: str) -> str:
        """The path of a place of ours, with the prefix that browsers use."""
        return self.base + place

    def is_tls(self, scope: Scope) -> bool:
        """Whether the browser speaks TLS, as it has to off loopback, to us or to what stands before us."""
        if self._public is not None:
            return self._public.startswith("https:")
        return scope["scheme"] == "https" or not _LOOPBACK.admits(_host(scope))

    def callback(self, scope: Scope) -> str:
        """Where the identity provider sends browsers back to."""
        if self._public is not None:
            return self._public + CALLBACK
        return f"{'https' if self.is_tls(scope) else 'http'}://{_host(scope)}{self.address(CALLBACK)}"

    def sign_in(self, scope: Scope) -> str:
        """The sign-in page, which leads back to where the request wanted to go."""
        wanted = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        if scope["query_string"]:
            wanted += "?" + scope["query_string"].decode("latin-1")
        try:
            return f"{self.address(SIGN_IN)}?next={quote(checked_next(wanted), safe='/')}"
        except InvalidNext:
            return self.address(SIGN_IN)


def _host(scope: Scope) -> str:
    found: bytes = next((value for name, value in scope["headers"] if name == b"host"), b"")
    return found.decode("latin-1")

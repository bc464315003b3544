"""From which pages a browser may call: ours, and those of the origins that the operator names.

Only browsers say where a request comes from, and pages cannot change what they say. Whoever says nothing is a program,
which no page can make send anything.
"""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from runmirror.door.hosts import DEFAULT, LOOPBACK, Hosts, split_host
from runmirror.settings import Settings

_ORIGIN = re.compile(r"(https?)://([^/?#@]+)")
_PORTS = {"http": "80", "https": "443"}
_LOOPBACK = Hosts(LOOPBACK)


class Origins:
    """The origins that some entries admit: `https://app.example`, `https://*.example`, `http://localhost:*`, `*`.

    Raises `ValueError` at an entry that is none.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self.everybody = "*" in entries
        self._rules = [_parse(entry) for entry in entries if entry != "*"]

    def lists(self, origin: str, host: str) -> bool:
        """Whether a page of this origin may call us and read the answers, when it calls us `host`.

        As MLflow, pages of this machine may call a server that they reach on this machine.
        """
        if self.everybody:
            return True
        match = _ORIGIN.fullmatch(origin)
        parts = split_host(match[2]) if match else None
        if match is None or parts is None:
            return False
        scheme, (name, port) = match[1], parts
        if _LOOPBACK.admits(match[2]) and _LOOPBACK.admits(host):
            return True
        port = port or _PORTS[scheme]
        return any(scheme == wanted and hosts.admits_parts(name, port) for wanted, hosts in self._rules)


def who_may_call(settings: Settings) -> tuple[Hosts, Origins]:
    """Under which names, and from which pages. Raises `ValueError` at settings that name no host or origin."""
    named = settings.allowed_hosts or (*DEFAULT, _listened_on(settings.host))
    hosts = Hosts((*named, urlsplit(settings.public_url).netloc) if settings.public_url else named)
    return hosts, Origins(settings.cors_allowed_origins)


def is_own(origin: str, host: str, scheme: str) -> bool:
    """Whether a page of this origin came from where it calls now.

    Behind a proxy that ends TLS we see http where the browser sees https; the other way round is another origin.
    """
    return origin == f"https://{host}" or (origin == f"http://{host}" and scheme == "http")


def _parse(entry: str) -> tuple[str, Hosts]:
    match = _ORIGIN.fullmatch(entry)
    if match is None:
        raise ValueError(f"{entry!r} is not an origin: write https://app.example, https://*.example or *")
    scheme, host = match[1], match[2]
    return scheme, Hosts([host if re.search(r":(\*|[0-9]+)$", host) else f"{host}:{_PORTS[scheme]}"])


def _listened_on(host: str) -> str:
    """The address that the operator had the server listen on, as an entry."""
    return f"[{host}]" if ":" in host else host

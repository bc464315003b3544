"""Under which names the server answers: a page elsewhere can have its name lead to us, but not give itself our name.

An entry is a name (`tracking.example`), every name below one (`*.example`), an address, a network (`10.0.0.0/8`, or
`10.*` as MLflow writes it), or `*`; with `:port` only that port. A `*` stands for whole labels, so `10.*` is no name
that begins with 10.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address
Rule = Callable[[str, Address | None], bool]

# As MLflow: this machine, and the private networks. A name that was made to lead here is none of them.
DEFAULT = (
    "localhost", "127.0.0.0/8", "[::1]",
    "0.0.0.0/32",  # what some call this machine by
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
)  # fmt: skip
LOOPBACK = ("localhost", "127.0.0.0/8", "[::1]")

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_][a-z0-9_.\-]{0,252})(?::([0-9]{1,5}))?")
_ENTRY = re.compile(r"(\[[^\]]+\]|[^:\[\]]*)(?::(\*|[0-9]{1,5}))?")
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.\-]*[a-z0-9_])?")
_OCTETS = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3}){0,2})\.\*")


def split_host(host: str) -> tuple[str, str] | None:
    """Name (without a dot at its end) and port of a Host header; None for what is no host."""
    match = _HOST.fullmatch(host.lower())
    return None if match is None else (match[1].removesuffix("."), match[2] or "")


class Hosts:
    """The hosts that some entries admit. Raises `ValueError` at an entry that is none."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._rules = [_parse(entry) for entry in entries]

    def admits(self, host: str) -> bool:
        parts = split_host(host)
        return parts is not None and self.admits_parts(*parts)

    def admits_parts(self, name: str, port: str) -> bool:
        address = _address(name)
        return any(wanted in {"*", port} and rule(name, address) for rule, wanted in self._rules)


def _parse(entry: str) -> tuple[Rule, str]:
    """The rule of an entry, and its port or `*`."""
    text = entry.strip().lower()
    if text == "*":
        return _any, "*"
    if "/" in text or text.count(":") > 1:
        try:
            return partial(_in_network, ip_network(text.strip("[]"), strict=False)), "*"
        except ValueError:
            pass
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise ValueError(f"{entry!r} is not a host: write tracking.example, *.example, 10.0.0.0/8 or [::1]")
    name, port = match[1], match[2] or "*"
    if octets := _OCTETS.fullmatch(name):
        known = octets[1].split(".")
        network = ".".join([*known, *["0"] * (4 - len(known))])
        return partial(_in_network, ip_network(f"{network}/{8 * len(known)}")), port
    if address := _address(name):
        return partial(_in_network, ip_network(address)), port
    if not _NAME.fullmatch(name):
        raise ValueError(f"{entry!r} is not a host: a * stands for whole labels in front, as in *.example")
    return (partial(_below, name[1:]) if name.startswith("*") else partial(_named, name)), port


def _address(name: str) -> Address | None:
    try:
        return ip_address(name.strip("[]"))
    except ValueError:
        return None


def _any(_: str, __: Address | None) -> bool:
    return True


def _in_network(network: ipaddress.IPv4Network | ipaddress.IPv6Network, _: str, address: Address | None) -> bool:
    return address is not None and address in network


def _below(suffix: str, name: str, address: Address | None) -> bool:
    return address is None and name.endswith(suffix) and len(name) > len(suffix)


def _named(wanted: str, name: str, _: Address | None) -> bool:
    return name == wanted

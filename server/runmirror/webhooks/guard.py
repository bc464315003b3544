"""Which addresses a webhook may be sent to: the server connects to nothing a client could not reach by itself.

A name is resolved once, every address it has must be public, and the connection goes to one of exactly these: an
answer that changes between the check and the use changes nothing. Every attempt is checked anew.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

import httpx

from runmirror.errors import InvalidParameter

MAX_URL_LENGTH = 500  # the width of MLflow's column

Resolve = Callable[[str, int], Sequence[str]]
Address = IPv4Address | IPv6Address

# IANA's special-purpose registries, multicast, and Azure's WireServer, which answers every virtual machine in Azure.
_NOT_PUBLIC_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
            "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
            "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
_GLOBAL_V6 = IPv6Network("2000::/3")  # outside it: loopback, private, link-local, multicast, IPv4-mapped …
_NOT_PUBLIC_V6 = tuple(  # inside it: Teredo and other protocols, documentation, 6to4
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)
_NAT64 = IPv6Network("64:ff9b::/96")  # how a network without IPv4 reaches the public one

_LONGEST_RESOLUTION_S = 5.0
_MOST_ADDRESSES = 4


class Forbidden(InvalidParameter):
    """The URL is one no webhook may have; trying again does not help."""


class Unresolvable(InvalidParameter):
    """The name has no address now."""


def is_public(address: Address) -> bool:
    """Whether everybody on the internet can reach it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def resolve(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says; also of 127.1, 0x7f000001 and other spellings of an address."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Guard:
    """Checks URLs, and resolves their hosts apart from other work: names that hang hold up only webhooks."""

    def __init__(self, schemes: Sequence[str], *, allow_private: bool, resolve: Resolve = resolve) -> None:
        self._schemes = schemes
        self._allow_private = allow_private
        self._resolve = resolve
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="webhook-names")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def parse(self, url: str) -> httpx.URL:
        """The URL as the request will use it. Raises `Forbidden`."""
        if not url.strip():
            raise Forbidden(f"Webhook URL cannot be empty or just whitespace: {url[:80]!r}")
        if len(url) > MAX_URL_LENGTH:
            raise Forbidden(f"Webhook URL exceeds the maximum length of {MAX_URL_LENGTH} characters")
        try:
            _ = urlsplit(url).port  # knows some mistakes that the other does not
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise Forbidden(f"Invalid webhook URL: {error}") from None
        if parsed.scheme not in self._schemes:
            raise Forbidden(
                f"Invalid webhook URL scheme: {parsed.scheme!r}. Allowed schemes are: {', '.join(self._schemes)}."
            )
        if not parsed.host:
            raise Forbidden("Webhook URL must include a hostname")
        if parsed.userinfo or "\\" in url:  # a backslash is a slash to some readers of URLs, and not to others
            raise Forbidden("Webhook URL must contain neither a user name nor a backslash")
        return parsed

    async def check(self, url: str) -> None:
        """Raise `Forbidden` or `Unresolvable` unless a webhook may have this URL."""
        parsed = self.parse(url)
        if not self._allow_private:  # as in MLflow: then the name need not have an address yet
            await self.addresses(parsed)

    async def addresses(self, url: httpx.URL) -> list[str]:
        """The addresses that a request to `url` may connect to. Raises `Forbidden` or `Unresolvable`."""
        host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        looking = asyncio.get_running_loop().run_in_executor(self._threads, self._resolve, host, port)
        try:
            async with asyncio.timeout(_LONGEST_RESOLUTION_S):
                found = [ipaddress.ip_address(one) for one in await looking]
        except TimeoutError:
            raise Unresolvable(f"Timed out resolving the webhook's host {host!r}") from None
        except (OSError, UnicodeError, ValueError):
            raise Unresolvable(f"Cannot resolve the webhook's host {host!r}") from None
        if not found:
            raise Unresolvable(f"The webhook's host {host!r} has no address")
        if not self._allow_private and not all(map(is_public, found)):
            # Without the address: the answer is no way to ask our resolver for names of our network.
            raise Forbidden(f"Webhook URL must not resolve to a non-public IP address: {host!r} does.")
        return [str(address) for address in dict.fromkeys(found)][:_MOST_ADDRESSES]

"""How often one address may ask, or one user: a bucket each, which fills at a rate and holds some seconds of it.

It counts in one process: with several, each lets through as much.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

from runmirror.answers import error_answer
from runmirror.errors import Busy

_BURST_S = 5.0
_MOST_CALLERS = 10_000


class TooOften(Busy):
    def __init__(self, wait_s: float, whose: str = "from this address (RUNMIRROR_RATE_LIMIT)") -> None:
        super().__init__(f"Too many requests {whose}; nothing was done, try again.")
        self.retry_after_s = max(1, math.ceil(wait_s))


@lru_cache(_MOST_CALLERS)
def _caller(host: str) -> str:
    """An address; of IPv6 the network, because who has one address there has all of its network."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return host if address.version == 4 else str(ip_network((int(address), 64), strict=False))


class Buckets:
    """Of each caller, when its bucket will be full again; of too many the one that asked longest ago is forgotten."""

    def __init__(self, per_second: float, now: Callable[[], float] = monotonic) -> None:
        self._cost_s = 1 / per_second
        self._now = now
        self._full_at: dict[str | int, float] = {}

    def take(self, caller: str | int) -> float:
        """0 when the request may pass; else how many seconds it is too early, and nothing is taken."""
        now = self._now()
        was_full_at = max(self._full_at.pop(caller, now), now)
        full_at = was_full_at + self._cost_s
        early = full_at - now - max(_BURST_S, self._cost_s)
        if len(self._full_at) >= _MOST_CALLERS:
            del self._full_at[next(iter(self._full_at))]
        self._full_at[caller] = was_full_at if early > 0 else full_at  # as the last one
        return max(early, 0.0)


class RateLimit:
    """ASGI middleware inside of the door; probes are free."""

    def __init__(self, app: ASGIApp, per_second: float, free: frozenset[str]) -> None:
        self.app = app
        self._buckets = Buckets(per_second)
        self._free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._free:
            host, _ = scope.get("client") or ("", 0)
            if wait_s := self._buckets.take(_caller(host)):
                await error_answer(TooOften(wait_s))(scope, receive, send)
                return
        await self.app(scope, receive, send)

"""Who has a database connection next: a bounded queue for reads and another for writes.

A process has a few connections and may have hundreds of clients. Whoever would have to wait behind too many others is
told at once to come again (429, with `Retry-After`), and neither kind can take what the other needs: a fifth of the
connections, one at least, is left to it. Hot writes have connections and a queue of their own, see `runmirror.hot`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from runmirror.answers import error_answer
from runmirror.errors import Busy
from runmirror.routing import routes_of


@dataclass(slots=True, eq=False)
class Share:
    """The reads, or the writes: how many of them have a connection, and who waits for one."""

    having: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Gate:
    """In front of one process's connections: at most `most_waiting` of each share wait, none longer than `patience`."""

    def __init__(self, *, connections: int, most_waiting: int, patience: timedelta) -> None:
        self.reads, self.writes = Share(), Share()
        self._free = connections
        self._most = max(connections - max(connections // 5, 1), 1)
        self._most_waiting = most_waiting
        self._patience_s = patience.total_seconds()

    @asynccontextmanager
    async def turn(self, share: Share) -> AsyncIterator[None]:
        """A connection is free while this lasts. Raises `Busy` when too many wait, or it took too long."""
        if self._free and share.having < self._most and not share.waiting:
            self._give(share)
        else:
            self.refuse_if_full(share)
            await self._wait(share)
        try:
            yield
        finally:
            self._leave(share)

    def refuse_if_full(self, share: Share) -> None:
        if len(share.waiting) >= self._most_waiting:
            raise Busy("Too many requests are waiting for the database; nothing was done, try again.")

    async def _wait(self, share: Share) -> None:
        turn = asyncio.get_running_loop().create_future()
        share.waiting.append(turn)
        try:
            async with asyncio.timeout(self._patience_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave(share)  # it was given in the same moment
            else:
                with suppress(ValueError):
                    share.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise Busy("The database is busy; nothing was done, try again.") from error
            raise

    def _give(self, share: Share) -> None:
        self._free -= 1
        share.having += 1

    def _leave(self, share: Share) -> None:
        self._free += 1
        share.having -= 1
        while self._free and (next_ones := [s for s in (self.reads, self.writes) if self._may_have(s)]):
            chosen = min(next_ones, key=lambda s: s.having)
            turn = chosen.waiting.popleft()
            self._give(chosen)
            turn.set_result(None)

    def _may_have(self, share: Share) -> bool:
        while share.waiting and share.waiting[0].done():  # cancelled, and not yet taken out by its own task
            share.waiting.popleft()
        return bool(share.waiting) and share.having < self._most


@dataclass(frozen=True, slots=True)
class Admitted:
    """A route that will want a connection of this share."""

    share: Share
    route: BaseRoute


_NOTHING: Mapping[tuple[str, str], Admitted] = {}


def admitted(app: FastAPI, shares: Mapping[Callable[..., Any], Share]) -> Mapping[tuple[str, str], Admitted]:
    """By method and path, the routes whose connection comes from one of these dependencies.

    A path with a variable in it, and a route that takes its connection later, is refused when it asks for one.
    """
    found = {}
    for context in routes_of(app):
        route, path = context.original_route, str(context.path)
        if isinstance(route, APIRoute) and "{" not in path:
            for call in _calls(route.dependant):
                if call in shares:
                    for method in context.methods or ():
                        found[method, path] = Admitted(shares[call], route)
    return found


def _calls(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    for below in dependant.dependencies:
        if below.call is not None:
            yield below.call
        yield from _calls(below)


class Admission:
    """ASGI middleware over `app.state.admitted`, see `admitted`: refuses before anything of a request is read.

    But for what took a hot way as far as it goes: the 64 KiB of a search.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            state = scope["app"].state
            found = getattr(state, "admitted", _NOTHING).get((scope["method"], scope["path"]))
            if found is not None:
                try:
                    state.gate.refuse_if_full(found.share)
                except Busy as error:
                    scope["route"] = found.route  # by which requests are counted
                    await error_answer(error)(scope, receive, send)
                    return
        await self.app(scope, receive, send)

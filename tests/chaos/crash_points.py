"""In a process that is to die: kill -9 of itself at the n-th step boundary of a kind, the product's code untouched.

Between two commits, and between two requests to Azure, nothing happens that anybody else could see; so these are all
the step boundaries there are. Before a commit: all of a transaction is done, and is lost. After it: nobody was told.
"""

import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction

from runmirror.artifacts.service import Artifacts
from runmirror.mirror import claims, link, overflow_queries, queries, queue, status, throughput
from runmirror.mirror.azureml_transport import Answer, Transport
from runmirror.runs import hot_queries, inputs_service, service
from runmirror.webhooks.deliverer import Deliverer

KINDS = ("before_commit", "after_commit", "before_request", "after_request")
MARK = "CHAOS died at "

# What looks for webhooks to deliver commits when it begins and when it is woken, beside whatever a client does.
_counts = ContextVar("_counts", default=True)


class _Fuse:
    """Burns down at the `number`-th of a kind of boundary."""

    def __init__(self, kind: str, number: int) -> None:
        self._kind = kind
        self._left = number
        self.doing = "start"

    def at(self, kind: str, what: str) -> None:
        if kind != self._kind or not _counts.get():
            return
        self._left -= 1
        if self._left == 0:
            sys.stderr.write(f"{MARK}{kind} {what}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def install(kind: str, number: int) -> None:
    fuse = _Fuse(kind, number)
    _name_the_work(fuse)

    commit = AsyncTransaction.commit

    async def committing(self: AsyncTransaction) -> None:
        fuse.at("before_commit", fuse.doing)
        await commit(self)
        fuse.at("after_commit", fuse.doing)

    # `engine.begin()` ends its transaction by leaving it, `transaction.commit()` by saying so.
    leave = AsyncTransaction.__aexit__

    async def leaving(self: AsyncTransaction, kind_: Any, error: Any, trace: Any) -> None:
        if error is not None:
            await leave(self, kind_, error, trace)
            return
        fuse.at("before_commit", fuse.doing)
        await leave(self, kind_, error, trace)
        fuse.at("after_commit", fuse.doing)

    AsyncTransaction.commit = committing  # type: ignore[method-assign]
    AsyncTransaction.__aexit__ = leaving  # type: ignore[method-assign]

    deliver = Deliverer.run

    async def uncounted(self: Deliverer) -> None:
        _counts.set(False)
        await deliver(self)

    Deliverer.run = uncounted  # type: ignore[method-assign]

    send = Transport.send

    async def sending(self: Transport, method: str, url: str, **options: Any) -> Answer:
        parts = urlsplit(url)
        is_blob = (parts.hostname or "").split(".")[1:2] == ["blob"]
        what = f"{method} blob" if is_blob else f"{method} {'/'.join(parts.path.split('/')[-2:])}"
        fuse.at("before_request", what)
        answer = await send(self, method, url, **options)
        fuse.at("after_request", what)
        return answer

    Transport.send = sending  # type: ignore[method-assign]
    random.seed()


def _name_the_work(fuse: _Fuse) -> None:
    """Remember which function of the queue, or of a service, worked last: so that a boundary has a name.

    What is one statement and a transaction of its own has its boundaries here.
    """

    def named(name: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(function)
        async def call(*arguments: Any, **options: Any) -> Any:
            fuse.doing = name
            is_whole = bool(arguments) and _commits_by_itself(arguments[0])
            if is_whole:
                fuse.at("before_commit", name)
            answer = await function(*arguments, **options)
            if is_whole:
                fuse.at("after_commit", name)
            return answer

        return call

    for module in (
        queue,
        claims,
        queries,
        overflow_queries,
        link,
        status,
        throughput,
        service,
        inputs_service,
        hot_queries,
    ):
        for name, found in list(vars(module).items()):
            is_own = getattr(found, "__module__", "") == module.__name__
            if is_own and callable(found) and getattr(found, "__code__", None) and found.__code__.co_flags & 0x80:
                setattr(module, name, named(f"{module.__name__.rpartition('.')[2]}.{name}", found))
    for name in ("upload", "delete"):
        setattr(Artifacts, name, named(f"artifacts.{name}", getattr(Artifacts, name)))


def _commits_by_itself(connection: object) -> bool:
    if isinstance(connection, AsyncConnection) and connection.sync_connection is not None:
        return connection.sync_connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
    return isinstance(connection, asyncpg.Connection)

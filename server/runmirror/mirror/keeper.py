"""Keeps a lease alive while its run is worked on, and says when it may no longer be relied on."""

import asyncio
import logging
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.db import DATABASE_ERRORS
from runmirror.mirror import queue
from runmirror.mirror.queue import Lease, LeaseLost
from runmirror.settings import Settings

log = logging.getLogger(__name__)


def clock_s() -> float:
    """Seconds that also pass while the machine is suspended, where the platform counts them."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class Keeper:
    """A heartbeat for one lease.

    The lease lasts at least until `asked_at + ttl` on the local clock, because the database set it later than we
    asked. A request that could outlast that is not sent: a worker that was stalled sends nothing after its lease.
    """

    def __init__(self, engine: AsyncEngine, lease: Lease, settings: Settings, *, asked_at: float) -> None:
        self._engine = engine
        self._lease = lease
        self._ttl = settings.mirror_lease
        self._request_s = settings.mirror_timeout.total_seconds()
        self._until = asked_at + self._ttl.total_seconds()
        self._lost = False
        self._beat_s = (self._ttl.total_seconds() - self._request_s) / 4
        self._task: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raise `LeaseLost` unless the lease outlives a request that is sent now."""
        if self._lost or clock_s() + self._request_s > self._until:
            raise LeaseLost(self._lease.run_id.hex)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat(), name=f"lease {self._lease.run_id.hex}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _beat(self) -> None:
        while not self._lost:
            await asyncio.sleep(self._beat_s)
            asked_at = clock_s()
            try:
                async with self._engine.begin() as connection:
                    await queue.renew(connection, self._lease, self._ttl)
            except LeaseLost:
                self._lost = True
            except DATABASE_ERRORS as error:
                log.warning("lease of run %s not renewed: %s", self._lease.run_id.hex, type(error).__name__)
            else:
                self._until = asked_at + self._ttl.total_seconds()

"""The loop beside the API: claim what is due, send it, write down what came of it.

It lives in the API process, so that webhooks work without a mirror worker; processes share the work by leases.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.db import DATABASE_ERRORS
from runmirror.listen import cancel, listen
from runmirror.settings import Settings
from runmirror.webhooks import queue
from runmirror.webhooks.queue import Delivery
from runmirror.webhooks.retry import Again, Done, decide
from runmirror.webhooks.sender import Sender

log = logging.getLogger(__name__)

_POLL_S = 15.0
_DATABASE_WAIT_S = 1.0
_MARGIN = timedelta(seconds=10)  # a lease outlives the request by this
_GRACE_S = 3.0  # what requests under way get when the server stops
_KEEP_FINISHED = timedelta(days=7)
_FORGET_EVERY_S = 3600.0


@asynccontextmanager
async def delivering(settings: Settings, engine: AsyncEngine, sender: Sender) -> AsyncIterator[None]:
    """Deliver in the background until the block ends; requests under way then get `_GRACE_S`."""
    deliverer = Deliverer(settings, engine, sender)
    task = asyncio.create_task(deliverer.run(), name="webhook deliveries")
    try:
        yield
    finally:
        deliverer.stop()
        await asyncio.wait([task], timeout=2 * _GRACE_S)
        await cancel(task)  # if Postgres hangs: leases that were not given back expire


class Deliverer:
    """Delivers until it is told to stop; Postgres going away does not end it."""

    def __init__(self, settings: Settings, engine: AsyncEngine, sender: Sender) -> None:
        self._settings = settings
        self._engine = engine
        self._sender = sender
        self._ttl = settings.webhook_timeout + _MARGIN
        self._running: dict[UUID, asyncio.Task[None]] = {}  # one for a webhook
        self._wake = asyncio.Event()
        self._stopping = False
        self._forgot_at = float("-inf")

    async def run(self) -> None:
        url = self._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        listener = asyncio.create_task(listen(url, queue.CHANNEL, self._wake), name="listen for webhook deliveries")
        try:
            while not self._stopping:
                delay_s = await self._step_or_wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._wake.wait()
                if not self._stopping:
                    self._wake.clear()
        finally:
            await cancel(listener)
            await self._wind_up()

    def stop(self) -> None:
        """Ask `run` to end: requests under way are finished or given back."""
        self._stopping = True
        self._wake.set()

    async def _step_or_wait(self) -> float:
        try:
            return await self._step()
        except DATABASE_ERRORS as error:
            log.warning("no webhooks are delivered: Postgres cannot be reached: %s", type(error).__name__)
            return _DATABASE_WAIT_S
        except Exception as error:
            # A mistake of ours must not end the loop: it would be the end of delivering.
            log.exception("unexpected %s while delivering webhooks", type(error).__name__)
            return _DATABASE_WAIT_S

    async def _step(self) -> float:
        """Start what can be started; how long to wait, unless woken, before looking again."""
        room = self._settings.webhook_concurrency - len(self._running)
        if room <= 0:
            return _POLL_S
        async with self._engine.begin() as connection:
            if time.monotonic() - self._forgot_at > _FORGET_EVERY_S:
                await queue.forget_finished(connection, age=_KEEP_FINISHED)
                self._forgot_at = time.monotonic()
            claimed = await queue.claim(connection, most=room, busy=self._running, ttl=self._ttl)
        for delivery in claimed:
            self._running[delivery.webhook_id] = asyncio.create_task(
                self._deliver(delivery), name=f"deliver {delivery.delivery_id}"
            )
        if len(claimed) == room:
            return _POLL_S
        async with self._engine.begin() as connection:
            seconds = await queue.seconds_to_next(connection, busy=self._running)
        return _POLL_S if seconds is None else min(max(seconds, 0.01), _POLL_S)

    async def _deliver(self, delivery: Delivery) -> None:
        """One attempt; what is not settled is made again when the lease expires."""
        try:
            result = await self._sender.send(delivery.url, delivery.secret, delivery.delivery_id, delivery.body)
            decision = decide(
                result,
                attempts=delivery.attempts,
                max_retries=self._settings.webhook_max_retries,
                jitter=random.random(),  # noqa: S311 - spreads load, hides nothing
            )
            await self._settle(delivery, decision)
        except asyncio.CancelledError:
            await self._give_back(delivery)
            raise
        except DATABASE_ERRORS as error:
            log.warning("webhook delivery %s is not settled: %s", delivery.delivery_id, type(error).__name__)
        except Exception:
            log.exception("webhook delivery %s", delivery.delivery_id)
        finally:
            del self._running[delivery.webhook_id]
            self._wake.set()

    async def _settle(self, delivery: Delivery, decision: Done | Again) -> None:
        if isinstance(decision, Again) or not decision.delivered:
            end = f"again in {decision.wait.total_seconds():.0f} s" if isinstance(decision, Again) else "given up"
            ids = delivery.delivery_id, delivery.webhook_id
            log.warning("webhook delivery %s to %s: %s; %s", *ids, decision.outcome, end)
        async with self._engine.begin() as connection:
            match decision:
                case Done(outcome, delivered):
                    await queue.finish(connection, delivery, delivered=delivered, outcome=outcome)
                case Again(outcome, wait):
                    await queue.postpone(connection, delivery, wait=wait, outcome=outcome)

    async def _give_back(self, delivery: Delivery) -> None:
        """The server stops: others need not wait for the lease to expire."""
        with suppress(*DATABASE_ERRORS, TimeoutError):
            async with asyncio.timeout(_GRACE_S), self._engine.begin() as connection:
                await queue.give_back(connection, delivery)

    async def _wind_up(self) -> None:
        tasks = list(self._running.values())
        if tasks:
            await asyncio.wait(tasks, timeout=_GRACE_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

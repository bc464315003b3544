"""The loop: lease runs that are due, mirror them side by side, settle what went wrong, stop in good order."""

import asyncio
import logging
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts import pending
from runmirror.artifacts.files import Store
from runmirror.artifacts.service import Artifacts
from runmirror.artifacts.store import create_store
from runmirror.db import DATABASE_ERRORS, create_engine
from runmirror.listen import cancel, listen
from runmirror.mirror import link as links
from runmirror.mirror import model_queue, queue, status, throughput
from runmirror.mirror.keeper import Keeper, clock_s
from runmirror.mirror.link import Link
from runmirror.mirror.model_queue import ModelLease
from runmirror.mirror.model_worker import ModelWorker
from runmirror.mirror.one_run import OneRun, Tools
from runmirror.mirror.outage import Outage
from runmirror.mirror.queue import Lease, LeaseLost
from runmirror.mirror.retry import Pause, Postpone, Quarantine, Release, decide, describe
from runmirror.mirror.target import Target, TargetError, TargetOutage, TargetRejected
from runmirror.settings import Settings

log = logging.getLogger(__name__)

OpenTarget = Callable[[Settings, Link], Awaitable[tuple[Target, Link]]]

_NOW = timedelta(0)
_MISTAKES = (DataError, IntegrityError, ProgrammingError)  # of ours: Postgres is there and refuses
_DATABASE_WAIT_S = 1.0
_CONTACT_EVERY_S = 5.0
_FORGET_EVERY_S = 3600.0


class Worker:
    """Mirrors runs until it is told to stop; neither Azure nor Postgres going away ends it."""

    def __init__(
        self, settings: Settings, engine: AsyncEngine, store: Store, open_target: OpenTarget = links.open_target
    ) -> None:
        links.link_of_settings(settings)  # a contradiction stops the start
        self.worker_id = uuid4()
        self._settings = settings
        self._engine = engine
        self._open_target = open_target
        self._debounce = settings.mirror_debounce
        self._tools = Tools(settings, engine, store, self.worker_id, lambda: self._stopping)
        self._models = ModelWorker(settings, engine)
        self._target: Target | None = None
        self._link: Link | None = None
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        # Leases that could not be given back because Postgres was away.
        self._unreleased: list[Lease] = []
        self._outage = Outage()
        self._run_outages: dict[UUID, int] = {}  # failures of the workspace in a row that each run met
        self._contact_noted_at = float("-inf")
        self._forgot_at = float("-inf")
        self._adopted = False

    async def run(self) -> None:
        """Mirror until `stop`."""
        url = self._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        listener = asyncio.create_task(listen(url, queue.CHANNEL, self._wake), name="listen for due runs")
        artifacts = Artifacts(self._tools.store, reading=self._engine.connect, writing=self._engine.begin)
        watcher = asyncio.create_task(pending.watch(artifacts, self._settings.mirror_poll), name="pending uploads")
        try:
            while not self._stopping:
                await self._wait(await self._step_or_wait())
        finally:
            await cancel(listener)
            await cancel(watcher)
            await self._wind_up()

    async def stop(self) -> None:
        """Ask `run` to end: pages in hand are finished, leases given back."""
        self._stopping = True
        self._wake.set()

    async def drain(self, *, timeout_s: float = 60.0) -> None:
        """Mirror until nothing is due, without gathering writes first; for tests and one-off commands.

        Raises `TimeoutError`. Runs that were set aside stay so; without a linked workspace there is nothing to do.
        """
        self._debounce = _NOW
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    delay = await self._step_or_wait()
                    if not self._running and await self._is_done():
                        return
                    await self._wait(delay)
        finally:
            await self._wind_up()

    async def _is_done(self) -> bool:
        async with self._engine.connect() as connection:
            if await links.read_link(connection) is None:
                return True
            waits = [await of.seconds_to_next(connection, debounce=_NOW, settle=_NOW) for of in (queue, model_queue)]
            return waits == [None, None]

    async def _step_or_wait(self) -> float:
        try:
            return await self._step()
        except DATABASE_ERRORS as error:
            log.warning("Postgres cannot be reached: %s", type(error).__name__)
            return _DATABASE_WAIT_S
        except Exception as error:
            # A mistake of ours must not end the worker: it would be the end of mirroring.
            log.exception("unexpected %s in the worker", type(error).__name__)
            return _DATABASE_WAIT_S

    async def _wait(self, delay_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(delay_s, 0))
        self._wake.clear()

    async def _step(self) -> float:
        """Start what can be started; how long to wait, unless woken, before looking again."""
        poll_s = self._settings.mirror_poll.total_seconds()
        await self._give_back()
        if self._outage.pause_s > 0:
            return self._outage.pause_s
        target = await self._linked_target()
        if target is None or self._link is None:
            return self._outage.pause_s or poll_s
        # After an outage one run goes first: if it fails, only one request was wasted.
        room = (1 if self._outage else self._settings.mirror_concurrency) - len(self._running)
        if room <= 0:
            return poll_s
        if await self._start(target, self._link.workspace_id, room) == room:
            return poll_s
        if self._outage and not self._running:
            await self._probe(target)
            return self._outage.pause_s
        async with self._engine.begin() as connection:
            if clock_s() - self._forgot_at > _FORGET_EVERY_S:
                self._forgot_at = clock_s()
                await throughput.forget_old(connection)
            waits = [
                await of.seconds_to_next(connection, debounce=self._debounce, settle=self._settings.mirror_settle)
                for of in (queue, model_queue)
            ]
        soonest = min((seconds for seconds in waits if seconds is not None), default=poll_s)
        return min(max(soonest, 0.01), poll_s)

    async def _start(self, target: Target, workspace_id: str, room: int) -> int:
        """Begin with what can be claimed; how many that are. Of models one at a time: neither kind stops the other."""
        times = {
            "ttl": self._settings.mirror_lease, "debounce": self._debounce, "settle": self._settings.mirror_settle,
        }  # fmt: skip
        asked_at = clock_s()
        async with self._engine.begin() as connection:
            models = await model_queue.claim(connection, workspace_id=workspace_id, most=1, **times)
        for model in models:
            task = asyncio.create_task(self._mirror_model(target, model, asked_at), name=f"model {model.model}")
            self._running[model.token] = task
        if room == len(models):
            return room
        asked_at = clock_s()
        async with self._engine.begin() as connection:
            leases = await queue.claim(connection, workspace_id=workspace_id, most=room - len(models), **times)
        for lease in leases:
            task = asyncio.create_task(self._mirror(target, lease, asked_at), name=f"mirror {lease.run_id.hex}")
            self._running[lease.run_id] = task
        return len(models) + len(leases)

    async def _linked_target(self) -> Target | None:
        """The linked workspace, opened anew when another one is linked; None when none is, or during an outage."""
        async with self._engine.begin() as connection:
            if not self._adopted:
                await links.adopt_settings(connection, self._settings)
                await model_queue.adopt(connection)
                self._adopted = True
            linked = await links.read_link(connection)
        if linked is None or (self._link is not None and linked.workspace_id != self._link.workspace_id):
            await self._close_target()
        if linked is None or self._target is not None:
            return self._target
        try:
            self._target, self._link = await self._open_target(self._settings, linked)
            await self._target.probe()
        except TargetError as error:
            await self._close_target()
            self._link = linked
            await self._note_outage(error)
            return None
        async with self._engine.begin() as connection:
            await links.save_resolution(connection, self._link)
        log.info("mirroring to %s", self._link.workspace_id)
        await self._note_contact(clock_s())
        return self._target

    async def _mirror(self, target: Target, lease: Lease, asked_at: float) -> None:
        """One lease from claim to its end, whatever happens."""
        try:
            async with Keeper(self._engine, lease, self._settings, asked_at=asked_at) as keeper:
                await OneRun(self._tools, target, keeper, lease).mirror()
        except LeaseLost:
            # Usually somebody else has the run by now; if only the database was slow it is ours still.
            log.info("run %s: the lease is lost", lease.run_id.hex)
            self._unreleased.append(lease)
        except asyncio.CancelledError:
            self._unreleased.append(lease)
            raise
        except _MISTAKES as error:
            log.exception("run %s could not be mirrored", lease.run_id.hex)
            await self._failed(target, lease, error)
        except DATABASE_ERRORS as error:
            log.warning("run %s: Postgres cannot be reached: %s", lease.run_id.hex, type(error).__name__)
            self._unreleased.append(lease)
        except Exception as error:
            if not isinstance(error, TargetError):
                log.exception("run %s could not be mirrored", lease.run_id.hex)
            await self._failed(target, lease, error)
        else:
            self._run_outages.pop(lease.run_id, None)
            await self._note_contact(asked_at)
        finally:
            del self._running[lease.run_id]
            self._wake.set()

    async def _mirror_model(self, target: Target, lease: ModelLease, asked_at: float) -> None:
        """As `_mirror`, for a registered model."""
        try:
            outcome = await self._models.mirror(target, lease, asked_at=asked_at)
            if outcome.outage is not None:
                await self._note_outage(outcome.outage)
            elif outcome.answered:
                await self._note_contact(asked_at)
        finally:
            del self._running[lease.token]
            self._wake.set()

    async def _failed(self, target: Target, lease: Lease, error: Exception) -> None:
        if isinstance(error, TargetRejected):
            # A refusal is the run's own fault only if the workspace is in its place and lets us in.
            asked_at = clock_s()
            try:
                await target.probe()
            except TargetOutage as outage:
                error = outage
            else:
                await self._note_contact(asked_at)
        run_outages = self._run_outages.get(lease.run_id, 0)
        decision = decide(
            error,
            attempt=lease.attempt,
            outages=self._outage.failures,
            run_outages=run_outages,
            jitter=random.random(),  # noqa: S311 - spreads load, hides nothing
            settings=self._settings,
        )
        if isinstance(decision, Pause | Release):
            self._run_outages[lease.run_id] = run_outages + 1
        else:
            self._run_outages.pop(lease.run_id, None)
        await self._settle(lease, decision, error)
        if isinstance(decision, Pause):
            await self._pause(error, decision.wait)

    async def _settle(self, lease: Lease, decision: Quarantine | Postpone | Release | Pause, error: Exception) -> None:
        """Write the decision down; if Postgres is away the lease is given back later, or expires."""
        told = describe(error)
        log.warning("run %s: %s: %s", lease.run_id.hex, type(decision).__name__.lower(), told)
        try:
            async with self._engine.begin() as connection:
                match decision:
                    case Quarantine(reason):
                        await queue.quarantine(connection, lease, reason=reason)
                    case Postpone(wait):
                        await queue.postpone(connection, lease, wait=wait, error=told)
                    case Release(wait) | Pause(run_wait=wait):
                        await queue.release(connection, lease, wait=wait, error=told)
        except LeaseLost:
            log.info("run %s: the lease is lost", lease.run_id.hex)
        except DATABASE_ERRORS:
            self._unreleased.append(lease)

    async def _give_back(self) -> None:
        """Release what could not be released when it should have been."""
        while self._unreleased:
            lease = self._unreleased[-1]
            with suppress(LeaseLost):
                async with self._engine.begin() as connection:
                    # What was under way may still take effect: the next attempt reads back what arrived.
                    await queue.release(connection, lease, wait=self._settings.mirror_settle)
            self._unreleased.pop()

    async def _note_outage(self, error: TargetError) -> None:
        """The workspace failed without a run being involved."""
        outage = error if isinstance(error, TargetOutage) else TargetOutage(str(error))
        jitter = random.random()  # noqa: S311
        failures = self._outage.failures
        decision = decide(
            outage, attempt=0, outages=failures, run_outages=0, jitter=jitter, settings=self._settings
        )  # fmt: skip
        await self._pause(outage, decision.wait if isinstance(decision, Pause) else self._settings.mirror_backoff_max)

    async def _pause(self, error: Exception, wait: timedelta) -> None:
        """Stop trying for a while, and say why where operators look."""
        if not self._outage.failed(wait):
            return
        log.warning("the workspace cannot be used; next attempt in %.1f s: %s", wait.total_seconds(), describe(error))
        with suppress(*DATABASE_ERRORS):
            async with self._engine.begin() as connection:
                await status.note_outage(connection, describe(error))

    async def _probe(self, target: Target) -> None:
        """Ask whether the outage is over when no run is there to find out."""
        asked_at = clock_s()
        try:
            await target.probe()
        except TargetError as error:
            await self._note_outage(error)
        else:
            await self._note_contact(asked_at)

    async def _note_contact(self, asked_at: float) -> None:
        """The workspace answered what was begun at `asked_at`."""
        if self._outage.answered(asked_at):
            log.info("the workspace answers again")
        elif self._outage or clock_s() - self._contact_noted_at < _CONTACT_EVERY_S:
            return
        with suppress(*DATABASE_ERRORS):
            async with self._engine.begin() as connection:
                await status.note_contact(connection)
            self._contact_noted_at = clock_s()

    async def _close_target(self) -> None:
        """Let go of a workspace; runs under way are fenced off by the relinking itself."""
        target, self._target, self._link = self._target, None, None
        if target is not None:
            await self._cancel_running()
            await target.close()

    async def _cancel_running(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wind_up(self) -> None:
        """Finish the pages in hand within one request's time, give everything back, close."""
        self._stopping = True
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=self._settings.mirror_timeout.total_seconds())
        await self._cancel_running()
        with suppress(*DATABASE_ERRORS):
            await self._give_back()
        await self._close_target()
        self._stopping = False


async def run_worker(settings: Settings, database_url: str) -> None:
    """`runmirror worker`: a process that mirrors until SIGTERM or SIGINT."""
    engine = create_engine(settings, database_url)
    store = create_store(settings)
    worker = Worker(settings, engine, store)
    loop = asyncio.get_running_loop()
    stopping: set[asyncio.Task[None]] = set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: stopping.add(asyncio.create_task(worker.stop())))
    try:
        await worker.run()
    finally:
        await store.close()
        await engine.dispose()

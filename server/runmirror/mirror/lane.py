"""One linked workspace: its target, its health, and the runs that are on their way there."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from runmirror.db import DATABASE_ERRORS
from runmirror.mirror import claims, link_queries, queue, status, throughput
from runmirror.mirror.keeper import Keeper, clock_s
from runmirror.mirror.link_queries import Link
from runmirror.mirror.model_queue import ModelLease
from runmirror.mirror.model_worker import ModelWorker
from runmirror.mirror.one_run import OneRun, Tools
from runmirror.mirror.outage import Outage
from runmirror.mirror.queue import Lease, LeaseLost
from runmirror.mirror.retry import EXPECTED, Pause, Postpone, Quarantine, Release, decide, describe
from runmirror.mirror.target import Target, TargetError, TargetOutage, TargetRejected, TargetThrottled
from runmirror.mirror.turns import Turns
from runmirror.settings import Settings
from runmirror.telemetry.spans import span

log = logging.getLogger(__name__)

OpenTarget = Callable[[Settings, Link], Awaitable[tuple[Target, Link]]]

_DATABASE_WAIT_S = 1.0
_MISTAKES = (DataError, IntegrityError, ProgrammingError)  # of ours: Postgres is there and refuses
_CONTACT_EVERY_S = 5.0


async def patiently(step: Callable[[], Awaitable[float]]) -> float:
    """Do a step of a loop; how long to wait after it. Nothing that goes wrong ends the loop."""
    try:
        return await step()
    except _MISTAKES:
        log.exception("Postgres refuses what the worker asks")
    except DATABASE_ERRORS as error:
        log.warning("Postgres cannot be reached: %s", type(error).__name__)
    except Exception as error:
        # A mistake of ours must not end the worker: it would be the end of mirroring.
        log.exception("unexpected %s in the worker", type(error).__name__)
    return _DATABASE_WAIT_S


class Lane:
    """Leases runs and registered models that are due for one workspace and mirrors them side by side.

    The other lanes know nothing of it.

    `changed` is called when one has come to its end, one way or another.
    """

    def __init__(
        self, tools: Tools, open_target: OpenTarget, link: Link, *, debounce: timedelta, changed: Callable[[], None]
    ) -> None:
        self.link = link
        self.running: dict[UUID, asyncio.Task[None]] = {}  # by run, or by the token of a registered model's lease
        self._leases: dict[UUID, Lease] = {}  # of those runs, until they are given back
        self._models = ModelWorker(tools.settings, tools.engine, link)
        self._tools = tools
        self._settings = tools.settings
        self._engine = tools.engine
        self._open_target = open_target
        self._debounce = debounce
        self._changed = changed
        self._target: Target | None = None
        self._wake = asyncio.Event()
        self._closing = False
        # Leases that could not be given back because Postgres was away.
        self._unreleased: list[Lease] = []
        self._outage = Outage()
        self._turns = Turns(link.workspace_id)
        self._run_outages: dict[UUID, int] = {}  # failures of the workspace in a row that each run met
        self._contact_noted_at = float("-inf")
        self._looping = asyncio.create_task(self._loop(), name=f"mirror to {link.name}")

    def wake(self) -> None:
        """There may be something to do, or it is time to stop."""
        self._wake.set()

    async def drop_lost(self) -> None:
        """Give up at once, in the middle of a page, what was switched off or sent elsewhere."""
        if not self._leases:
            return
        async with self._tools.one_statement() as connection:
            lost = await queue.lost(connection, list(self._leases.values()))
        for run_id in lost & self._leases.keys():
            self.running[run_id].cancel()

    async def close(self) -> None:
        """Finish the pages in hand within one request's time, give everything back, close."""
        self._closing = True
        self.wake()
        await asyncio.wait(
            [self._looping, *self.running.values()], timeout=self._settings.mirror_timeout.total_seconds()
        )
        await self.abandon()

    async def abandon(self) -> None:
        """Let go at once of a workspace that is not linked any more."""
        self._closing = True
        tasks = [self._looping, *self.running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(*DATABASE_ERRORS):
            await self._give_back()
        await self._close_target()

    async def _loop(self) -> None:
        while not self._closing:
            delay_s = await patiently(self._step)
            if self._closing:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(delay_s, 0))
            self._wake.clear()

    async def _step(self) -> float:
        """Start what can be started; how long to wait, unless woken, before looking again."""
        poll_s = self._settings.mirror_poll.total_seconds()
        await self._give_back()
        if self._outage.pause_s > 0:
            return self._outage.pause_s
        target = await self._opened_target()
        if target is None:
            return self._outage.pause_s or poll_s
        # After an outage one run goes first: if it fails, only one request was wasted.
        room = (1 if self._outage else self._settings.mirror_concurrency) - len(self.running)
        room -= await self._start_model(target) if room > 0 else 0
        if room <= 0:
            return poll_s
        asked_at = clock_s()
        async with self._tools.one_statement() as connection:
            live = await claims.claim(
                connection,
                workspace_id=self.link.workspace_id,
                most=room,
                ttl=self._settings.mirror_lease,
                debounce=self._debounce,
                settle=self._settings.mirror_settle,
                turns=await self._turns.take(connection, room, self._debounce),
            )
        self._turns.claimed(len(live), room)
        self._start(target, live, asked_at)
        await self._tools.write_tally()
        # However long runs of the past take, they do not take every place.
        of_the_past = sum(lease.backfill for lease in self._leases.values())
        most_past = max(self._settings.mirror_concurrency - 1, 1) - of_the_past
        past = await self._claim_past(target, min(room - len(live), most_past))
        if len(live) + past == room:
            return poll_s
        if self._outage and not self.running:
            await self._probe(target)
            return self._outage.pause_s
        # When the past has all its places, the end of one of its runs wakes the lane.
        is_full = most_past <= past
        async with self._tools.one_statement() as connection:
            seconds = await claims.seconds_to_next(
                connection,
                debounce=self._debounce,
                settle=self._settings.mirror_settle,
                workspace_id=self.link.workspace_id,
                backfill_rate=0 if is_full else self._settings.mirror_backfill_rate,
            )
        waits = [seconds, await self._models.seconds_to_next(self._debounce)]
        return min(max(min((wait for wait in waits if wait is not None), default=poll_s), 0.01), poll_s)

    async def _start_model(self, target: Target) -> int:
        """Begin with a registered model, if one is due: one at a time, so that neither kind stops the other."""
        asked_at = clock_s()
        model = await self._models.claim(self._debounce)
        if model is None:
            return 0
        task = asyncio.create_task(self._mirror_model(target, model, asked_at), name=f"model {model.model}")
        self.running[model.token] = task
        return 1

    async def _claim_past(self, target: Target, most: int) -> int:
        """Start up to `most` runs of the past, those that are live being started; how many."""
        if most <= 0:
            return 0
        asked_at = clock_s()
        async with self._tools.one_statement() as connection:
            leases = await claims.claim_past(
                connection,
                workspace_id=self.link.workspace_id,
                most=most,
                ttl=self._settings.mirror_lease,
                backfill_rate=self._settings.mirror_backfill_rate,
            )
        self._start(target, leases, asked_at)
        return len(leases)

    def _start(self, target: Target, leases: Sequence[Lease], asked_at: float) -> None:
        for lease in leases:
            self._leases[lease.run_id] = lease
            task = asyncio.create_task(self._mirror(target, lease, asked_at), name=f"mirror {lease.run_id.hex}")
            self.running[lease.run_id] = task

    async def _opened_target(self) -> Target | None:
        """The workspace, ready to be written to; None during an outage."""
        if self._target is not None:
            return self._target
        try:
            target, known = await self._open_target(self._settings, self.link)
            self._target = target
            await target.probe()
        except TargetError as error:
            await self._close_target()
            await self._note_outage(error)
            return None
        async with self._engine.begin() as connection:
            await link_queries.save_resolution(connection, known)
        log.info("mirroring to %s", self.link.workspace_id)
        await self._note_contact(clock_s())
        return target

    async def _mirror(self, target: Target, lease: Lease, asked_at: float) -> None:
        """One lease from claim to its end, whatever happens."""
        try:
            with span("mirror run", {"runmirror.run_id": lease.run_id.hex, "runmirror.attempt": lease.attempt}):
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
            if not isinstance(error, EXPECTED):
                log.exception("run %s could not be mirrored", lease.run_id.hex)
            await self._failed(target, lease, error)
        else:
            self._let_go(lease)
            self._run_outages.pop(lease.run_id, None)
            await self._note_contact(asked_at)
        finally:
            # Given back, the run may be in another's hands by now: in those of this lane, too.
            if self.running.get(lease.run_id) is asyncio.current_task():
                del self.running[lease.run_id]
            self._let_go(lease)
            self._wake.set()
            self._changed()

    async def _mirror_model(self, target: Target, lease: ModelLease, asked_at: float) -> None:
        """As `_mirror`, for a registered model."""
        try:
            outcome = await self._models.mirror(target, lease, asked_at=asked_at)
            if outcome.outage is not None:
                await self._note_outage(outcome.outage)
            elif outcome.answered:
                await self._note_contact(asked_at)
        finally:
            del self.running[lease.token]
            self._wake.set()
            self._changed()

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
        # It is about to be given back, which is no loss: what follows, as to note an outage, must not be disturbed.
        self._let_go(lease)
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
            self._unreleased.append(lease)
        except DATABASE_ERRORS:
            self._unreleased.append(lease)

    def _let_go(self, lease: Lease) -> None:
        if self._leases.get(lease.run_id) is lease:
            del self._leases[lease.run_id]

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
        is_news = self._outage.failed(wait)
        told, wait_s = describe(error), wait.total_seconds()
        if is_news:
            log.warning("%s cannot be used; next attempt in %.1f s: %s", self.link.name, wait_s, told)
        with suppress(*DATABASE_ERRORS):
            async with self._engine.begin() as connection:
                if is_news:
                    await status.note_outage(connection, told, link_id=self.link.link_id)
                throttled = isinstance(error, TargetThrottled)
                await throughput.record_setback(connection, self._tools.worker_id, throttled=throttled)

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
            log.info("%s answers again", self.link.name)
        elif self._outage or clock_s() - self._contact_noted_at < _CONTACT_EVERY_S:
            return
        with suppress(*DATABASE_ERRORS):
            async with self._engine.begin() as connection:
                await status.note_contact(connection, link_id=self.link.link_id)
            self._contact_noted_at = clock_s()

    async def _close_target(self) -> None:
        target, self._target = self._target, None
        if target is not None:
            await target.close()

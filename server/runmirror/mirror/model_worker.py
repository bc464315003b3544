"""What the worker does with a leased registered model: try, settle what went wrong, and say whose fault it was."""

import logging
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.db import DATABASE_ERRORS
from runmirror.mirror import model_queue
from runmirror.mirror.link_queries import Link
from runmirror.mirror.model_queue import ModelLease
from runmirror.mirror.one_model import OneModel
from runmirror.mirror.queue import LeaseLost
from runmirror.mirror.retry import Pause, Postpone, Quarantine, Release, decide, describe
from runmirror.mirror.target import Target, TargetOutage, TargetRejected, TargetThrottled
from runmirror.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the workspace answered, or why nobody can be mirrored now."""

    answered: bool = False
    outage: TargetOutage | None = None


class ModelWorker:
    """Of one workspace. Runs go on when the registry alone fails: a role may lack, or the service may not have it."""

    def __init__(self, settings: Settings, engine: AsyncEngine, link: Link) -> None:
        self._link = link
        self._settings = settings
        self._engine = engine
        self._outages: dict[int, int] = {}  # failures of the workspace in a row that each model met

    async def claim(self, debounce: timedelta) -> ModelLease | None:
        """One that is due, if any is."""
        ttl, settle = self._settings.mirror_lease, self._settings.mirror_settle
        async with self._engine.begin() as connection:
            claimed = await model_queue.claim(
                connection, workspace_id=self._link.workspace_id, most=1, ttl=ttl, debounce=debounce, settle=settle
            )  # fmt: skip
        return claimed[0] if claimed else None

    async def seconds_to_next(self, debounce: timedelta) -> float | None:
        """How long until `claim` can find one."""
        settle, workspace_id = self._settings.mirror_settle, self._link.workspace_id
        async with self._engine.connect() as connection:
            return await model_queue.seconds_to_next(
                connection, debounce=debounce, settle=settle, workspace_id=workspace_id
            )  # fmt: skip

    async def mirror(self, target: Target, lease: ModelLease, *, asked_at: float) -> Outcome:
        """Work under one lease; a model that cannot be given back is claimed again when its lease expires."""
        try:
            await OneModel(self._settings, self._engine, target, lease, asked_at=asked_at).mirror()
        except LeaseLost:
            log.info("registered model %d: the lease is lost", lease.model)
            return Outcome()
        except DATABASE_ERRORS as error:
            log.warning("registered model %d: %s: it will be tried again", lease.model, type(error).__name__)
            return Outcome()
        except Exception as error:
            if not isinstance(error, TargetOutage | TargetRejected):
                log.exception("registered model %d could not be mirrored", lease.model)
                await self._failed(lease, error)
                return Outcome()
            outage = await self._outage(target, error)
            await self._failed(lease, outage if outage is not None and isinstance(error, TargetRejected) else error)
            return Outcome(answered=outage is None, outage=outage)
        self._outages.pop(lease.model, None)
        return Outcome(answered=True)

    async def _outage(self, target: Target, error: TargetOutage | TargetRejected) -> TargetOutage | None:
        """None when the workspace is in its place and lets us in: then the fault is the model's, or the registry's."""
        if isinstance(error, TargetThrottled):
            return error
        try:
            await target.probe()
        except TargetOutage as outage:
            return outage
        return None

    async def _failed(self, lease: ModelLease, error: Exception) -> None:
        outages = self._outages.get(lease.model, 0)
        jitter = random.random()  # noqa: S311 - spreads load, hides nothing
        decision = decide(
            error, attempt=lease.attempt, outages=outages, run_outages=outages, jitter=jitter, settings=self._settings
        )
        if isinstance(decision, Pause | Release):
            self._outages[lease.model] = outages + 1
        else:
            self._outages.pop(lease.model, None)
        await self._settle(lease, decision, error)

    async def _settle(
        self, lease: ModelLease, decision: Quarantine | Postpone | Release | Pause, error: Exception
    ) -> None:
        """Write the decision down; if Postgres is away the lease expires."""
        told = describe(error)
        log.warning("registered model %d: %s: %s", lease.model, type(decision).__name__.lower(), told)
        with suppress(LeaseLost, *DATABASE_ERRORS):
            async with self._engine.begin() as connection:
                match decision:
                    case Quarantine(reason):
                        await model_queue.quarantine(connection, lease, reason=reason)
                    case Postpone(wait):
                        await model_queue.postpone(connection, lease, wait=wait, error=told)
                    case Release(wait) | Pause(run_wait=wait):
                        await model_queue.release(connection, lease, wait=wait, error=told)

"""What a worker does for deployments, beside mirroring: claim one, do a step, write down what it came to."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.db import DATABASE_ERRORS
from runmirror.deployments import queries
from runmirror.deployments.entities import Deployment
from runmirror.deployments.one_deployment import OneDeployment, failed
from runmirror.deployments.queries import Outcome
from runmirror.mirror import link as links
from runmirror.mirror.azureml import AzureMLTarget
from runmirror.mirror.keeper import clock_s
from runmirror.mirror.link_queries import Link, read_links
from runmirror.mirror.queue import LeaseLost
from runmirror.mirror.retry import backoff, describe
from runmirror.mirror.target import SourceUnavailable, TargetOutage, TargetRejected
from runmirror.settings import Settings

log = logging.getLogger(__name__)

_AT_ONCE = 4
_MOST_SURPRISES = 5

OpenTarget = Callable[[Settings, Link], Awaitable[tuple[AzureMLTarget, Link]]]


class Deployer:
    """Drives all deployments that are open, those that another worker began too."""

    def __init__(
        self, settings: Settings, engine: AsyncEngine, store: Store, open_target: OpenTarget = links.open_target
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._open_target = open_target
        self._targets: dict[str, AzureMLTarget] = {}
        self._opening = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled; nothing that goes wrong ends it before."""
        try:
            while True:
                found = 0
                try:
                    found = await self.round()
                except DATABASE_ERRORS as error:
                    log.warning("Postgres cannot be reached: %s", type(error).__name__)
                except Exception:
                    log.exception("deployments could not be looked after")
                if found == 0:
                    await asyncio.sleep(self._settings.mirror_poll.total_seconds())
        finally:
            await self.close()

    async def round(self) -> int:
        """One step of each that is due, a few at most; how many those were."""
        asked_at = clock_s()
        async with self._engine.begin() as connection:
            claimed = await queries.claim(
                connection, most=_AT_ONCE, ttl=self._settings.mirror_lease, settle=self._settings.mirror_settle
            )
        await asyncio.gather(*(self._advance(held, asked_at) for held in claimed))
        return len(claimed)

    async def close(self) -> None:
        targets = list(self._targets.values())
        self._targets.clear()
        for target in targets:
            await target.close()

    async def _advance(self, held: Deployment, asked_at: float) -> None:
        try:
            outcome = await self._step(held, asked_at)
            async with self._engine.begin() as connection:
                await queries.settle(connection, held, outcome)
        except LeaseLost:
            log.info("deployment %s: the lease is lost", held.deployment_id)
        except DATABASE_ERRORS as error:
            log.warning("deployment %s: %s: it will be tried again", held.deployment_id, type(error).__name__)
        except asyncio.CancelledError:
            with suppress(LeaseLost, *DATABASE_ERRORS):
                async with self._engine.begin() as connection:
                    await queries.release(connection, held, self._settings.mirror_settle)
            raise
        else:
            if outcome.state is not held.state:
                told = f": {outcome.reason}" if outcome.reason else ""
                log.info("deployment %s (%s): %s%s", held.deployment_id, held.name, outcome.state, told)

    async def _step(self, held: Deployment, asked_at: float) -> Outcome:
        try:
            target = await self._target(held)
            one = OneDeployment(self._settings, self._engine, self._store, held, asked_at=asked_at)
            return await one.step(target)
        except (TargetOutage, SourceUnavailable) as error:
            return self._held_up(held, error)
        except TargetRejected as error:
            return failed(held, str(error))
        except (LeaseLost, *DATABASE_ERRORS):
            raise
        except Exception as error:
            log.exception("deployment %s: unexpected", held.deployment_id)
            if held.attempt + 1 >= _MOST_SURPRISES:
                return failed(held, describe(error))
            return self._held_up(held, error)

    def _held_up(self, held: Deployment, error: Exception) -> Outcome:
        """Tried again until the deadline, which is checked before anything else is."""
        if held.is_late:
            return failed(held, f"given up after {self._settings.deploy_timeout}: {describe(error)}")
        wait = backoff(held.attempt, random.random(), self._settings)  # noqa: S311 - spreads load, hides nothing
        if isinstance(error, TargetOutage) and error.uncertain:
            wait = max(wait, self._settings.mirror_settle)
        return Outcome(
            held.state, held.message, wait=wait, last_error=describe(error), attempt=held.attempt + 1,
            remote_operation=held.remote_operation,
        )  # fmt: skip

    async def _target(self, held: Deployment) -> AzureMLTarget:
        """The workspace, which is asked for with its address if it is linked still. Raises `TargetOutage`."""
        key = held.workspace_id.lower()
        async with self._opening:
            if key not in self._targets:
                async with self._engine.connect() as connection:
                    linked = await read_links(connection)
                link = next((one for one in linked if one.workspace_id.lower() == key), Link(held.workspace_id))
                self._targets[key], _ = await self._open_target(self._settings, link)
            return self._targets[key]

"""What the worker does with a leased registered model: try, and settle what went wrong."""

import logging
from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.db import DATABASE_ERRORS
from runmirror.mirror import model_queue
from runmirror.mirror.model_queue import ModelLease
from runmirror.mirror.one_model import OneModel
from runmirror.mirror.queue import LeaseLost
from runmirror.mirror.retry import Pause, Postpone, Quarantine, Release, describe
from runmirror.mirror.target import Target, TargetError
from runmirror.settings import Settings

log = logging.getLogger(__name__)


async def attempt(
    settings: Settings, engine: AsyncEngine, target: Target, lease: ModelLease, *, asked_at: float
) -> Exception | None:
    """What went wrong and is to be settled; a model that is not given back is claimed again when its lease expires."""
    try:
        await OneModel(settings, engine, target, lease, asked_at=asked_at).mirror()
    except LeaseLost:
        log.info("registered model %d: the lease is lost", lease.model)
    except DATABASE_ERRORS as error:
        log.warning("registered model %d: %s: it will be tried again", lease.model, type(error).__name__)
    except Exception as error:
        if not isinstance(error, TargetError):
            log.exception("registered model %d could not be mirrored", lease.model)
        return error
    return None


async def settle(
    engine: AsyncEngine, lease: ModelLease, decision: Quarantine | Postpone | Release | Pause, error: Exception
) -> None:
    """Write the decision down; if Postgres is away the lease expires."""
    told = describe(error)
    log.warning("registered model %d: %s: %s", lease.model, type(decision).__name__.lower(), told)
    with suppress(LeaseLost, *DATABASE_ERRORS):
        async with engine.begin() as connection:
            match decision:
                case Quarantine(reason):
                    await model_queue.quarantine(connection, lease, reason=reason)
                case Postpone(wait):
                    await model_queue.postpone(connection, lease, wait=wait, error=told)
                case Release(wait) | Pause(run_wait=wait):
                    await model_queue.release(connection, lease, wait=wait, error=told)

"""Rules of scorers. Their text comes from clients and goes to clients: the server looks whether it is a JSON object
without source code in it, and takes nothing else from it."""

import json
import time
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.entities import LifecycleStage
from runmirror.errors import DoesNotExist, ExperimentNotFound, InvalidParameter
from runmirror.names import parse_experiment_id
from runmirror.scorers import queries

MAX_NAME_LENGTH = 256
MAX_SERIALIZED_LENGTH = 1 << 20  # characters
_SOURCE_CODE = "call_source"  # clients that load such a scorer run it


async def register(
    connection: AsyncConnection, experiment_id: str, name: str, serialized_scorer: str
) -> tuple[UUID, int, int]:
    """`(scorer_id, version, creation_time_ms)` of a new version; versions are numbered per name and experiment."""
    _check_name(name)
    _check_serialized(serialized_scorer)
    experiment = await active_experiment(connection, experiment_id)
    scorer_id = await queries.lock(connection, experiment, name, uuid4())
    now_ms = time.time_ns() // 1_000_000
    return scorer_id, await queries.add_version(connection, scorer_id, serialized_scorer, now_ms), now_ms


async def delete(connection: AsyncConnection, experiment_id: str, name: str, version: int | None) -> None:
    """Erase one version, or all; the numbers start again at 1 only after all were erased at once."""
    experiment = await active_experiment(connection, experiment_id)
    if not await queries.delete(connection, experiment, name, version):
        raise not_found(experiment, name, version)
    which = name if version is None else f"{name}/{version}"
    await audit.record(connection, "scorer.delete", f"{which} of experiment {experiment}")


async def active_experiment(connection: AsyncConnection, experiment_id: str) -> int:
    """Its id as stored. Raises when there is no such experiment, or it is deleted."""
    key = parse_experiment_id(experiment_id)
    stage = await queries.stage_of_experiment(connection, key)
    if stage is None:
        raise ExperimentNotFound(str(key))
    if stage != LifecycleStage.ACTIVE:
        raise InvalidParameter(f"The experiment {key} must be in the 'active' state. Current state is {stage}.")
    return key


def not_found(experiment_id: int, name: str, version: int | None = None) -> DoesNotExist:
    which = f"'{name[:80]}'" if version is None else f"'{name[:80]}' and version {version}"
    return DoesNotExist(f"Scorer with name {which} not found for experiment {experiment_id}.")


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidParameter("Scorer name cannot be empty or contain only whitespace.")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidParameter(f"'name' exceeds the maximum length of {MAX_NAME_LENGTH} characters")


def _check_serialized(text: str) -> None:
    if len(text) > MAX_SERIALIZED_LENGTH:
        raise InvalidParameter(f"'serialized_scorer' exceeds the maximum length of {MAX_SERIALIZED_LENGTH} characters")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidParameter("serialized_scorer must be valid JSON") from None
    if not isinstance(found, dict):
        raise InvalidParameter("serialized_scorer must be a JSON object")
    if _has_source_code(found):
        raise InvalidParameter(
            "A scorer made of Python source code (by the decorator @scorer) cannot be registered, as on `mlflow "
            "server` by default: whoever loads it would run that code. Keep it in a repository and import it."
        )


def _has_source_code(found: Any) -> bool:
    """Whether any object inside has it; without recursion, for the text may nest deep."""
    waiting = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get(_SOURCE_CODE) is not None:
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False

"""One function per write of a logged model, each a change of the run that made it: so the mirror hears of it."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit, names
from runmirror.entities import LifecycleStage, LoggedModelStatus, Param, Tag
from runmirror.errors import (
    BadRequest,
    DoesNotExist,
    ExperimentNotFound,
    InvalidParameter,
    LoggedModelNotFound,
    RunNotFound,
)
from runmirror.logged_models import queries
from runmirror.logged_models.wire import MAX_NAME_LENGTH
from runmirror.run_ids import is_foreign, stored_id
from runmirror.runs import writes

MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_FORBIDDEN_IN_NAMES = ("/", ":", ".", "%", '"', "'")


async def create(
    connection: AsyncConnection,
    *,
    experiment_id: str,
    name: str,
    model_type: str,
    source_run_id: str,
    params: Sequence[Param],
    tags: Sequence[Tag],
) -> str:
    """The id of a new pending logged model; without a name it gets one. The source run need not be of this server."""
    _check_name(name)
    source = _parse_source_run(source_run_id)
    params_by_key = _unique([(param.key, param.value) for param in params], "param")
    tags_by_key = _unique([(tag.key, tag.value) for tag in tags], "tag")
    key = names.parse_experiment_id(experiment_id)
    experiment = await queries.experiment(connection, key)
    if experiment is None:
        raise ExperimentNotFound(str(key))
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InvalidParameter(
            f"The experiment {key} must be in the 'active' state. Current state is {experiment.lifecycle_stage}."
        )
    if is_foreign(source_run_id):
        await writes.begin(connection, source_run_id, stage=None)  # to show its name again it has to be known
    else:
        await _touch_run(connection, source)
    number = uuid4()
    model_id = f"m-{number.hex}"
    await queries.create(
        connection,
        model_id=model_id,
        experiment_id=key,
        name=name or names.random_run_name(number),
        artifact_uri=f"{experiment.artifact_location}/models/{model_id}/artifacts",
        model_type=model_type,
        source_run_id=source,
        status=LoggedModelStatus.PENDING,
        now_ms=_now_ms(),
        params=params_by_key,
        tags=tags_by_key,
    )
    return model_id


async def finalize(connection: AsyncConnection, model_id: str, status: LoggedModelStatus) -> None:
    await _begin(connection, model_id)
    await queries.set_status(connection, model_id, status, _now_ms())


async def delete(connection: AsyncConnection, model_id: str) -> None:
    """Mark a logged model deleted; doing it again is fine, and nothing is erased."""
    await _begin(connection, model_id)
    await queries.delete(connection, model_id, _now_ms())
    await audit.record(connection, "logged_model.delete", model_id)


async def log_params(connection: AsyncConnection, model_id: str, params: Sequence[Param]) -> None:
    """Add params; the same value again is absorbed. Raises `BadRequest` at another value."""
    given = _unique([(param.key, param.value) for param in params], "param")
    await _begin(connection, model_id)
    stored = await queries.add_params(connection, model_id, given)
    for key, value in given.items():
        if stored[key] != value:
            raise BadRequest(f"Param '{key}' of logged model '{model_id}' already has another value.")


async def set_tags(connection: AsyncConnection, model_id: str, tags: Sequence[Tag]) -> None:
    """Set or overwrite tags; of a key given twice the last value counts."""
    await _begin(connection, model_id)
    await queries.set_tags(connection, model_id, {tag.key: tag.value for tag in tags})


async def delete_tag(connection: AsyncConnection, model_id: str, key: str) -> None:
    await _begin(connection, model_id)
    if not await queries.delete_tag(connection, model_id, key):
        raise DoesNotExist(f"No tag with key {key!r} found for model with ID {model_id!r}.")


def check_model_id(model_id: str) -> str:
    """Raises `LoggedModelNotFound`: what has not the shape of an id cannot exist."""
    if not MODEL_ID.fullmatch(model_id):
        raise LoggedModelNotFound(model_id[:80])
    return model_id


async def _begin(connection: AsyncConnection, model_id: str) -> None:
    """A write of an existing logged model, deleted ones included as in MLflow: its run first."""
    row = await queries.source_run(connection, check_model_id(model_id))
    if row is None:
        raise LoggedModelNotFound(model_id)
    await _touch_run(connection, row.source_run_id)


async def _touch_run(connection: AsyncConnection, run_id: UUID | None) -> None:
    if run_id is not None:
        with suppress(RunNotFound):  # a run of another server, or none: nothing of ours is behind
            await writes.begin(connection, run_id, stage=None)


def _parse_source_run(run_id: str) -> UUID | None:
    if not run_id:
        return None
    if (key := stored_id(run_id)) is None:
        raise InvalidParameter(f"Invalid value {run_id[:80]!r} for parameter 'source_run_id' supplied: not a run id.")
    return key


def _unique(pairs: Sequence[tuple[str, str]], what: str) -> dict[str, str]:
    """The pairs by key. Raises `BadRequest` when a key is there with two values."""
    by_key = dict(pairs)
    for key, value in pairs:
        if by_key[key] != value:
            raise BadRequest(f"The {what} '{key}' was given more than once, with different values.")
    return by_key


def _check_name(name: str) -> None:
    if any(char in name for char in _FORBIDDEN_IN_NAMES):
        raise InvalidParameter(
            f"Invalid model name ({name[:80]!r}) provided. Model name must be a non-empty string and cannot contain "
            f"the following characters: {_FORBIDDEN_IN_NAMES}"
        )
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidParameter(f"'name' exceeds the maximum length of {MAX_NAME_LENGTH} characters")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

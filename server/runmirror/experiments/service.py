"""One function per write of an experiment; the rules and their order."""

import time

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.artifacts.location import check_location
from runmirror.auth import permits
from runmirror.auth.levels import Kind
from runmirror.entities import LifecycleStage, Tag
from runmirror.errors import AlreadyExists, DoesNotExist, ExperimentNotFound, InvalidParameter, InvalidState
from runmirror.experiments import queries
from runmirror.mirror import queue
from runmirror.names import check_experiment_name, check_experiment_tag, parse_experiment_id


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def create(connection: AsyncConnection, name: str, artifact_location: str, tags: list[Tag]) -> int:
    check_experiment_name(name)
    for tag in tags:
        check_experiment_tag(tag.key, tag.value)
    location = check_location(artifact_location) if artifact_location else None
    if location is not None:
        await permits.current().require_place(connection, location)
    experiment_id = await queries.create(connection, name, location, now_ms())
    if experiment_id is None:
        raise AlreadyExists(f"Experiment(name={name}) already exists.")
    await permits.current().created(connection, Kind.EXPERIMENT, experiment_id)
    if tags:
        await queries.set_tags(connection, experiment_id, {tag.key: tag.value for tag in tags})
    return experiment_id


async def rename(connection: AsyncConnection, experiment_id: str, name: str) -> None:
    check_experiment_name(name)
    key = parse_experiment_id(experiment_id)
    if await _stage(connection, key) != LifecycleStage.ACTIVE:
        raise InvalidState("Cannot rename a non-active experiment.")
    try:
        if await queries.name_taken(connection, key, name):
            raise _taken(name)
        await queries.rename(connection, key, name, now_ms())
        await queue.mark_experiment_unrouted(connection, key)
    except IntegrityError as error:  # taken since we looked
        raise _taken(name) from error


async def move(connection: AsyncConnection, experiment_id: str, *, to: LifecycleStage) -> None:
    """Delete or restore an experiment together with its runs."""
    key = parse_experiment_id(experiment_id)
    if await _stage(connection, key) == to:
        raise ExperimentNotFound(str(key))  # MLflow looks for one in the other stage
    await queries.set_stage(connection, key, to, now_ms())
    await queue.mark_experiment_behind(connection, key)
    action = "experiment.delete" if to == LifecycleStage.DELETED else "experiment.restore"
    await audit.record(connection, action, str(key))


async def set_tag(connection: AsyncConnection, experiment_id: str, tag: Tag) -> None:
    check_experiment_tag(tag.key, tag.value)
    key = parse_experiment_id(experiment_id)
    await _require_active(connection, key)
    await queue.mark_experiment_unrouted(connection, key, (tag.key,))
    await queries.set_tags(connection, key, {tag.key: tag.value})


async def delete_tag(connection: AsyncConnection, experiment_id: str, tag_key: str) -> None:
    key = parse_experiment_id(experiment_id)
    await _require_active(connection, key)
    await queue.mark_experiment_unrouted(connection, key, (tag_key,))
    if not await queries.delete_tag(connection, key, tag_key):
        raise DoesNotExist(f"No tag with name: {tag_key} in experiment with id {key}")


async def _stage(connection: AsyncConnection, experiment_id: int) -> str:
    stage = await queries.lock(connection, experiment_id)
    if stage is None:
        raise ExperimentNotFound(str(experiment_id))
    return stage


async def _require_active(connection: AsyncConnection, experiment_id: int) -> None:
    stage = await _stage(connection, experiment_id)
    if stage != LifecycleStage.ACTIVE:
        raise InvalidParameter(
            f"The experiment {experiment_id} must be in the 'active' state. Current state is {stage}."
        )


def _taken(name: str) -> AlreadyExists:
    return AlreadyExists(f"Experiment(name={name}) already exists.")

"""One function per write of a run: the rules of MLflow and their order."""

import re
import secrets
import time
from uuid import UUID

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit, names
from runmirror.entities import Batch, LifecycleStage, Metric, Param, RunStatus, Tag
from runmirror.errors import DoesNotExist, ExperimentNotFound, InvalidParameter
from runmirror.logged_models.metrics import record_model_metrics
from runmirror.mirror import queue
from runmirror.runs import batch_queries, idempotency, idempotency_queries, queries, writes

RUN_NAME_TAG = "mlflow.runName"
NO_NAME = Tag(RUN_NAME_TAG, "")
_ANY_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")


async def create_run(
    connection: AsyncConnection, *, experiment_id: str, user_id: str, run_name: str, start_time_ms: int, tags: list[Tag]
) -> UUID:
    """A new running run, or the one that has this idempotency key; its name is also its tag `mlflow.runName`."""
    key = names.parse_experiment_id(experiment_id)
    experiment = await queries.experiment(connection, key)
    if experiment is None:
        raise ExperimentNotFound(str(key))
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InvalidParameter(
            f"The experiment {key} must be in the 'active' state. Current state is {experiment.lifecycle_stage}."
        )
    run_id = new_run_id()
    by_key = {tag.key: tag.value for tag in tags}
    name = agreed_name(run_name, by_key.get(RUN_NAME_TAG, "")) or names.random_run_name(run_id)
    if once := idempotency.key_of(by_key):
        holder = await idempotency_queries.claim(connection, key, once, run_id)
        if holder != run_id:
            return holder
    by_key[RUN_NAME_TAG] = name
    await queries.create(
        connection, run_id=run_id, experiment_id=key, name=name, user_id=user_id, start_time_ms=start_time_ms,
        artifact_uri=f"{experiment.artifact_location}/{run_id.hex}/artifacts", tags=by_key,
    )  # fmt: skip
    await queue.add(connection, run_id)
    return run_id


async def update_run(
    connection: AsyncConnection, run_id: str, *, status: RunStatus | None, end_time_ms: int | None, run_name: str
) -> Row[tuple[object, ...]]:
    """The run's row after the change; what is not given stays."""
    write = await writes.begin(connection, run_id)
    if run_name:
        await batch_queries.set_tags(connection, write.run_id, write.seq, {RUN_NAME_TAG: run_name})
    return await queries.update_info(
        connection, write.run_id, write.seq, name=run_name or None, status=status, end_time_ms=end_time_ms
    )


async def move_run(connection: AsyncConnection, run_id: str, *, to: LifecycleStage) -> None:
    """Delete or restore a run; doing it again is fine."""
    write = await writes.begin(connection, run_id, stage=None)
    deleted_ms = time.time_ns() // 1_000_000 if to == LifecycleStage.DELETED else None
    await queries.set_stage(connection, write.run_id, write.seq, to, deleted_ms)
    await audit.record(connection, "run.delete" if to == LifecycleStage.DELETED else "run.restore", write.named)


async def log_metric(connection: AsyncConnection, run_id: str, metric: Metric) -> None:
    await _write(connection, run_id, Batch(metrics=(metric,)))


async def log_param(connection: AsyncConnection, run_id: str, param: Param) -> None:
    await _write(connection, run_id, Batch(params=(param,)))


async def set_tag(connection: AsyncConnection, run_id: str, tag: Tag) -> None:
    await _write(connection, run_id, Batch(tags=(tag,)))


async def log_batch(connection: AsyncConnection, run_id: str, batch: Batch) -> None:
    if not _ANY_RUN_ID.fullmatch(run_id):
        raise InvalidParameter(f"Invalid value {run_id[:80]!r} for parameter 'run_id' supplied.")
    await _write(connection, run_id, batch)


async def delete_tag(connection: AsyncConnection, run_id: str, key: str) -> None:
    write = await writes.begin(connection, run_id)
    await queue.mark_unrouted(connection, write.run_id, (key,))
    if not await batch_queries.delete_tag(connection, write.run_id, write.seq, key):
        raise DoesNotExist(f"No tag with name: {key} in run with id {write.named}")


async def _write(connection: AsyncConnection, run_id: str, batch: Batch) -> None:
    write = await writes.begin(connection, run_id)
    if batch.params:
        await _insert_params(connection, write, batch.params)
    if batch.metrics:
        await batch_queries.insert_metrics(connection, write.run_id, write.seq, batch.metrics)
        if of_models := [metric for metric in batch.metrics if metric.model_id]:
            await record_model_metrics(connection, write.run_id, of_models)
    # Of a repeated key the last one counts; an empty name leaves the run the one it has.
    if tags := {tag.key: tag.value for tag in batch.tags if tag != NO_NAME}:
        await queue.mark_unrouted(connection, write.run_id, tags)
        await batch_queries.set_tags(connection, write.run_id, write.seq, tags)
        if name := tags.get(RUN_NAME_TAG):
            await queries.update_info(connection, write.run_id, write.seq, name=name)


async def _insert_params(connection: AsyncConnection, write: writes.RunWrite, params: tuple[Param, ...]) -> None:
    changed = await batch_queries.insert_params(connection, write.run_id, write.seq, params)
    if not changed:
        return
    if len(params) == 1:
        was = changed[0]
        raise InvalidParameter(
            f"Changing param values is not allowed. Param with key='{was.key}' was already logged with "
            f"value='{was.old_value}' for run ID='{write.named}'. Attempted logging new value '{was.new_value}'."
        )
    conflicts = [{"key": was.key, "old_value": was.old_value, "new_value": was.new_value} for was in changed]
    raise InvalidParameter(
        f"Changing param values is not allowed. Params were already logged='{conflicts}' for run ID='{write.named}'."
    )


def new_run_id() -> UUID:
    """A UUIDv7 (RFC 9562): its first 48 bits are the time, so rows of new runs lie together in every index."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds << 80) | secrets.randbits(80)
    number = number & ~(0xF << 76) | (0x7 << 76)
    number = number & ~(0x3 << 62) | (0x2 << 62)
    return UUID(int=number)


def agreed_name(run_name: str, tag: str) -> str:
    if run_name and tag and run_name != tag:
        raise InvalidParameter(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{run_name}', mlflow.runName='{tag}')."
        )
    return run_name or tag

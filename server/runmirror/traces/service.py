"""One function per write of a trace; the rules and their order."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit, names
from runmirror.entities import LifecycleStage
from runmirror.errors import DoesNotExist, ExperimentNotFound, InvalidParameter
from runmirror.traces import assessments_queries, keys, queries
from runmirror.traces.assessments import Assessment
from runmirror.traces.keys import TraceNotFound
from runmirror.traces.totals import PROMOTED, columns_of

MAX_LINKS = 100


@dataclass(frozen=True, slots=True)
class TraceIn:
    """A trace as a client describes it."""

    trace_id: str
    experiment_id: str
    request_time_ms: int
    execution_time_ms: int | None
    state: str
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    trace_metadata: Mapping[str, str] = field(default_factory=dict)
    assessments: Sequence[Assessment] = ()


async def start(connection: AsyncConnection, trace: TraceIn) -> None:
    """Create a trace; one that spans have made before is completed."""
    row, figures = await _row(connection, trace)
    await queries.start(connection, row, figures)
    assessments = {a.assessment_id: a.row(trace.trace_id) for a in trace.assessments}
    await assessments_queries.write(connection, list(assessments.values()))


async def start_v2(
    connection: AsyncConnection,
    experiment_id: str,
    request_time_ms: int,
    trace_metadata: Mapping[str, str],
    tags: Mapping[str, str],
) -> str:
    """The id of a new trace that its client will end, as clients before MLflow 3 do."""
    trace_id = uuid4().hex
    trace = TraceIn(
        trace_id, experiment_id, request_time_ms, None, "IN_PROGRESS", tags=tags, trace_metadata=trace_metadata
    )
    row, figures = await _row(connection, trace)
    await queries.create(connection, row, figures)
    return trace_id


async def end_v2(
    connection: AsyncConnection,
    trace_id: str,
    *,
    end_time_ms: int,
    state: str,
    trace_metadata: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    found = await queries.end(
        connection,
        keys.existing_id(trace_id),
        end_time_ms=end_time_ms,
        state=state,
        name=_name_in(tags),
        tags=_without(tags, {keys.TRACE_NAME}),
        trace_metadata=_without(trace_metadata, PROMOTED),
        figures=columns_of(trace_metadata),
    )
    if not found:
        raise TraceNotFound(trace_id)


async def set_tag(connection: AsyncConnection, trace_id: str, key: str, value: str) -> None:
    if key in keys.IMMUTABLE_TAGS:
        raise InvalidParameter(f"Tag '{key}' is immutable and cannot be set on a trace.")
    names.check_name(key, "key")
    value = names.cut(value, keys.MAX_TAG_VALUE_LENGTH)
    trace_id = keys.existing_id(trace_id)
    if key == keys.TRACE_NAME:
        keys.check_length("Trace name", value, keys.MAX_NAME_LENGTH)
        found = await queries.set_name(connection, trace_id, value)
    else:
        found = await queries.set_tag(connection, trace_id, key, value)
    if not found:
        raise TraceNotFound(trace_id)


async def delete_tag(connection: AsyncConnection, trace_id: str, key: str) -> None:
    if key in keys.IMMUTABLE_TAGS - {keys.ARCHIVAL_FAILURE}:
        raise InvalidParameter(f"Tag '{key}' is immutable and cannot be deleted on a trace.")
    if keys.ID.fullmatch(trace_id):
        if key == keys.TRACE_NAME and await queries.delete_name(connection, trace_id):
            return
        if await queries.delete_tag(connection, trace_id, key):
            return
    raise DoesNotExist(f"No trace tag with key '{key}' for trace with ID '{trace_id[:80]}'")


async def delete(
    connection: AsyncConnection,
    experiment_id: str,
    *,
    max_timestamp_ms: int | None,
    max_traces: int | None,
    trace_ids: Sequence[str],
) -> int:
    """How many traces were deleted, with their spans, assessments and links. Raises `InvalidParameter`."""
    if max_timestamp_ms is None and not trace_ids:
        raise InvalidParameter("Either `max_timestamp_millis` or `trace_ids` must be specified.")
    if max_timestamp_ms is not None and trace_ids:
        raise InvalidParameter("Only one of `max_timestamp_millis` and `trace_ids` can be specified.")
    if trace_ids and max_traces is not None:
        raise InvalidParameter("`max_traces` can't be specified if `trace_ids` is specified.")
    if max_traces is not None and max_traces <= 0:
        raise InvalidParameter(f"`max_traces` must be a positive integer, received {max_traces}.")
    key = names.parse_experiment_id(experiment_id)
    if max_timestamp_ms is None:
        count = await queries.delete(connection, key, trace_ids)
    else:
        count = await queries.delete_oldest(connection, key, max_timestamp_ms, max_traces)
    if count:
        await audit.record(connection, "traces.delete", f"{count} of experiment {key}")
    return count


async def link_to_run(connection: AsyncConnection, trace_ids: Sequence[str], run_id: str) -> None:
    """Link traces, which may arrive later, to a run. Nothing of the run changes, so the mirror need not hear of it."""
    if trace_ids:
        keys.new_id(run_id, "run_id")
    await queries.link(connection, "run", [(keys.new_id(t, "trace_ids"), run_id) for t in dict.fromkeys(trace_ids)])


async def link_to_prompts(connection: AsyncConnection, trace_id: str, versions: Sequence[tuple[str, str]]) -> None:
    """Link a trace to prompt versions `(name, version)`."""
    if not versions:
        return
    for _, version in versions:
        if not (version.isascii() and version.isdigit()):
            raise InvalidParameter(f"Invalid value {version[:80]!r} for parameter 'version' supplied: not a number.")
    if not await assessments_queries.hold_trace(connection, keys.existing_id(trace_id)):
        raise TraceNotFound(trace_id)
    await queries.link(connection, "prompt", [(trace_id, f"{name}/{int(version)}") for name, version in versions])


def artifact_root(experiment_location: str, trace_id: str) -> str:
    """Where the files of a trace lie."""
    return f"{experiment_location}/traces/{trace_id}/artifacts"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _row(connection: AsyncConnection, trace: TraceIn) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row of `traces` without the columns that metadata gives, and those. Raises when the experiment is not
    there, or deleted."""
    trace_id = keys.new_id(trace.trace_id, "trace_id")
    key = names.parse_experiment_id(trace.experiment_id)
    figures = columns_of(trace.trace_metadata)
    name = _name_in(trace.tags)
    experiment = await queries.experiment(connection, key)
    if experiment is None:
        raise ExperimentNotFound(str(key))
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InvalidParameter(
            f"The experiment {key} must be in the 'active' state. Current state is {experiment.lifecycle_stage}."
        )
    row = {
        "trace_id": trace_id,
        "experiment_id": key,
        "request_time_ms": trace.request_time_ms,
        "execution_time_ms": trace.execution_time_ms,
        "state": trace.state,
        "client_request_id": trace.client_request_id,
        "request_preview": trace.request_preview,
        "response_preview": trace.response_preview,
        "name": name,
        "tags": _without(trace.tags, {keys.TRACE_NAME})
        | {keys.ARTIFACT_LOCATION: artifact_root(experiment.artifact_location, trace_id)},
        "trace_metadata": _without(trace.trace_metadata, PROMOTED),
    }
    return row, figures


def _name_in(tags: Mapping[str, str]) -> str | None:
    name = tags.get(keys.TRACE_NAME)
    return None if name is None else keys.check_length("Trace name", name, keys.MAX_NAME_LENGTH)


def _without(pairs: Mapping[str, str], left_out: set[str] | frozenset[str]) -> dict[str, str]:
    return {key: value for key, value in pairs.items() if key not in left_out}

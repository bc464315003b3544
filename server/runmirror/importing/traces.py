"""Traces with their spans, assessments and links: some of them are one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.errors import RunmirrorError
from runmirror.importing import queries
from runmirror.importing.entities import OldTrace
from runmirror.importing.models import Written
from runmirror.importing.rules import Refused
from runmirror.traces import assessments_queries, keys, service, spans_queries
from runmirror.traces import queries as trace_queries

KIND = "trace"
# Told anew by where they are here, or of a place that nobody here knows.
_PLACES = (keys.ARTIFACT_LOCATION, keys.SPANS_LOCATION, "mlflow.trace.archiveLocation", keys.ARCHIVAL_FAILURE)


async def write(
    engine: AsyncEngine, source_id: int, traces: Sequence[OldTrace], experiments: Mapping[str, int]
) -> Written:
    """Bring what is new or has changed of these."""
    told = Written()
    by_id = {trace.info.trace_id: trace for trace in traces}
    async with engine.connect() as connection:
        known = await queries.known(connection, source_id, KIND, list(by_id))
    prints = {trace_id: trace.fingerprint for trace_id, trace in by_id.items()}
    todo = [
        trace for trace_id, trace in by_id.items()
        if trace_id not in known or known[trace_id].fingerprint != prints[trace_id]
    ]  # fmt: skip
    told.unchanged += len(by_id) - len(todo)
    if not todo:
        return told
    try:
        async with engine.begin() as connection:
            for trace in todo:
                await _write(connection, trace, experiments, is_known=trace.info.trace_id in known)
            notes: list[dict[str, Any]] = [
                {"key": t.info.trace_id, "target": t.info.trace_id, "fingerprint": prints[t.info.trace_id]}
                for t in todo
            ]
            await queries.note(connection, source_id, KIND, notes)
    except (Refused, RunmirrorError, DBAPIError) as error:
        if len(todo) == 1:
            told.refused.append((todo[0].info.trace_id, getattr(error, "message", str(error).splitlines()[0])))
            return told
        for trace in todo:
            told.add(await write(engine, source_id, [trace], experiments))
        return told
    told.new += sum(trace.info.trace_id not in known for trace in todo)
    told.changed += sum(trace.info.trace_id in known for trace in todo)
    for trace in todo:
        if trace.spans is None:
            told.refused.append(
                (trace.info.trace_id, "its spans are in a file that cannot be reached (--artifacts-from)")
            )
    return told


async def _write(
    connection: AsyncConnection, trace: OldTrace, experiments: Mapping[str, int], *, is_known: bool
) -> None:
    info = trace.info
    keys.new_id(info.trace_id, "trace_id")
    if info.experiment_id not in experiments:
        raise Refused(f"its experiment {info.experiment_id} was not imported")
    if not is_known and await trace_queries.load(connection, [info.trace_id]):
        raise Refused("a trace of this id is here already and did not come from this source")
    tags = {key: value for key, value in info.tags.items() if key not in _PLACES}
    if trace.spans is not None:
        tags[keys.SPANS_LOCATION] = keys.IN_TRACKING_STORE
    await service.start(connection, replace(info, experiment_id=str(experiments[info.experiment_id]), tags=tags))
    for assessment_id in trace.invalid:
        await assessments_queries.set_valid(connection, info.trace_id, assessment_id, valid=False)
    if trace.spans:
        await spans_queries.write(connection, [span.row() for span in trace.spans])
    if trace.run_ids:
        await trace_queries.link(connection, "run", [(info.trace_id, run_id) for run_id in trace.run_ids])
    if trace.prompts:
        await trace_queries.link(connection, "prompt", [(info.trace_id, prompt) for prompt in trace.prompts])

"""One function per write of an assessment; the rules and their order."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.errors import AlreadyExists, DoesNotExist, InvalidParameter
from runmirror.traces import assessments_queries, keys
from runmirror.traces.assessments import EXPECTATION, FEEDBACK, Assessment, aggregate
from runmirror.traces.keys import TraceNotFound
from runmirror.traces.service import now_ms


class AssessmentNotFound(DoesNotExist):
    def __init__(self, trace_id: str, assessment_id: str) -> None:
        super().__init__(f"Assessment with ID '{assessment_id[:80]}' not found for trace '{trace_id}'")


@dataclass(frozen=True, slots=True)
class Change:
    """What an update gives; None stays as it is, metadata is merged."""

    name: str | None = None
    rationale: str | None = None
    metadata: Mapping[str, str] | None = None
    kind: str | None = None  # of the value that is given: feedback or expectation
    value: Any = None
    error: Mapping[str, Any] | None = None


async def create(connection: AsyncConnection, trace_id: str, assessment: Assessment) -> None:
    """Add an assessment; the one that it overrides is no longer valid."""
    if not await assessments_queries.hold_trace(connection, keys.existing_id(trace_id)):
        raise TraceNotFound(trace_id)
    if assessment.overrides and not await assessments_queries.set_valid(
        connection, trace_id, assessment.overrides, valid=False
    ):
        raise AssessmentNotFound(trace_id, assessment.overrides)
    if not await assessments_queries.create(connection, assessment.row(trace_id)):
        raise AlreadyExists(f"Trace '{trace_id}' already has an assessment with ID '{assessment.assessment_id}'.")


async def get(connection: AsyncConnection, trace_id: str, assessment_id: str, *, lock: bool = False) -> Row[Any]:
    """Raises `DoesNotExist`."""
    row = await assessments_queries.get(connection, trace_id, assessment_id, lock=lock)
    if row is None:
        if not await assessments_queries.hold_trace(connection, trace_id):
            raise DoesNotExist(f"Trace with request_id '{trace_id[:80]}' not found")
        raise AssessmentNotFound(trace_id, assessment_id)
    return row


async def update(connection: AsyncConnection, trace_id: str, assessment_id: str, change: Change) -> None:
    """Change name, value, rationale or metadata of an assessment; its value keeps its kind."""
    old = await get(connection, trace_id, assessment_id, lock=True)
    if change.kind is not None and change.kind != old.kind:
        wanted, found = _TITLES[change.kind], _TITLES.get(old.kind, "issue reference")
        article = "an" if found[0] in "Ei" else "a"
        raise InvalidParameter(f"Cannot update {wanted.lower()} value on {article} {found} assessment.")
    value, error = json.loads(old.value), old.error
    if change.kind is not None:
        value, error = change.value, change.error
    number, is_number = aggregate(value)
    metadata = {**(old.assessment_metadata or {}), **(change.metadata or {})}
    await assessments_queries.update(
        connection,
        {
            "trace_id": trace_id,
            "assessment_id": assessment_id,
            "name": old.name if change.name is None else change.name,
            "value": json.dumps(value),
            "error": error,
            "updated_ms": now_ms(),
            # An expectation needs no reason.
            "rationale": old.rationale if change.rationale is None or old.kind == EXPECTATION else change.rationale,
            "assessment_metadata": metadata or None,
            "number": number,
            "is_number": is_number,
        },
    )


async def delete(connection: AsyncConnection, trace_id: str, assessment_id: str) -> None:
    """Delete an assessment, if it is there; the one that it overrode is valid again."""
    overridden = await assessments_queries.delete(connection, trace_id, assessment_id)
    if overridden is not None:
        await assessments_queries.set_valid(connection, trace_id, overridden, valid=True)


_TITLES = {FEEDBACK: "Feedback", EXPECTATION: "Expectation"}

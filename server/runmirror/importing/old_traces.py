"""Traces as a source tells them, in our words."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from runmirror.importing.source import SourceError
from runmirror.traces import keys
from runmirror.traces.assessments import Assessment
from runmirror.traces.service import TraceIn

_STATES = ("STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS")


def trace_of_row(
    row: Mapping[str, Any], tags: Mapping[str, str], metadata: Mapping[str, str], assessments: Sequence[Assessment]
) -> TraceIn:
    """A row of MLflow's `trace_info`: what newer versions keep in columns goes back to tags and metadata."""
    tags, metadata = dict(tags), dict(metadata)
    if row["trace_name"] is not None:
        tags[keys.TRACE_NAME] = row["trace_name"]
    if row["session_id"] is not None:
        metadata[keys.SESSION] = row["session_id"]
    for key, columns in ((keys.TOKEN_USAGE, keys.TOKEN_COLUMNS), (keys.COST, keys.COST_COLUMNS)):
        if figures := {name: row[name] for name in columns if row[name] is not None}:
            metadata[key] = json.dumps(figures)
    return TraceIn(
        trace_id=row["request_id"],
        experiment_id=str(row["experiment_id"]),
        request_time_ms=row["timestamp_ms"],
        execution_time_ms=row["execution_time_ms"],
        state=row["status"] if row["status"] in _STATES else _STATES[0],
        client_request_id=row["client_request_id"],
        request_preview=row["request_preview"],
        response_preview=row["response_preview"],
        tags=tags,
        trace_metadata=metadata,
        assessments=assessments,
    )


def assessment_of_row(row: Mapping[str, Any]) -> Assessment:
    """Raises `SourceError`."""
    try:
        metadata = json.loads(row["assessment_metadata"]) if row["assessment_metadata"] else None
        return Assessment(
            assessment_id=row["assessment_id"],
            kind=row["assessment_type"],
            name=row["name"],
            value=json.loads(row["value"]),
            source_type=row["source_type"],
            source_id=row["source_id"],
            created_ms=row["created_timestamp"],
            updated_ms=row["last_updated_timestamp"],
            error=json.loads(row["error"]) if row["error"] else None,
            span_id=row["span_id"],
            rationale=row["rationale"],
            overrides=row["overrides"],
            metadata={str(key): str(value) for key, value in metadata.items()} if metadata else None,
        )
    except (ValueError, AttributeError) as error:
        raise SourceError(f"assessment {row['assessment_id']} cannot be read: {error}") from error

"""Requests and responses about assessments."""

import json
from collections.abc import Mapping
from typing import Any, Self
from uuid import uuid4

from pydantic import Field, field_validator, model_validator

from runmirror.errors import InvalidParameter
from runmirror.traces import keys
from runmirror.traces.assessments import EXPECTATION, FEEDBACK, ISSUE, Assessment, as_protobuf_value
from runmirror.traces.assessments_service import Change
from runmirror.traces.service import now_ms
from runmirror.traces.times import format_timestamp, parse_timestamp
from runmirror.wire import Wire, missing

_SOURCE_TYPES = ("SOURCE_TYPE_UNSPECIFIED", "HUMAN", "LLM_JUDGE", "CODE")  # by their numbers
_JSON_FORMAT = "JSON_FORMAT"
_MAX_STACK_TRACE = 10_000
_CUT = "[Stack trace is truncated]\n...\n"


class SourceIn(Wire):
    source_type: str = _SOURCE_TYPES[0]
    source_id: str = ""

    @field_validator("source_type", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if value == "AI_JUDGE":  # what LLM_JUDGE was called first
            return "LLM_JUDGE"
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(_SOURCE_TYPES):
            return _SOURCE_TYPES[value]
        if value not in _SOURCE_TYPES:
            raise ValueError(f"expected one of {', '.join(_SOURCE_TYPES)}")
        return value


class ErrorWire(Wire):
    error_code: str = ""
    error_message: str | None = None
    stack_trace: str | None = None

    @field_validator("stack_trace")
    @classmethod
    def _its_end(cls, value: str | None) -> str | None:
        if value is not None and len(value) > _MAX_STACK_TRACE:
            return _CUT + value[-(_MAX_STACK_TRACE - len(_CUT)) :]
        return value


class FeedbackIn(Wire):
    value: Any = None
    error: ErrorWire | None = None

    @field_validator("value")
    @classmethod
    def _protobuf(cls, value: Any) -> Any:
        return as_protobuf_value(value)


class SerializedValue(Wire):
    serialization_format: str = ""
    value: str = ""


class ExpectationIn(Wire):
    """The value itself, or as JSON text when it is neither text, number nor truth."""

    value: Any = None
    serialized_value: SerializedValue | None = None

    @property
    def the_value(self) -> Any:
        if self.serialized_value is None:
            return as_protobuf_value(self.value)
        if self.serialized_value.serialization_format != _JSON_FORMAT:
            raise InvalidParameter(
                f"Unknown serialization format: {self.serialized_value.serialization_format[:80]}. "
                "Only JSON_FORMAT is supported."
            )
        return json.loads(self.serialized_value.value)

    @model_validator(mode="after")
    def _has_value(self) -> Self:
        try:
            if self.the_value is None:
                raise InvalidParameter("The `value` field must be specified.")
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return self


class IssueIn(Wire):
    issue_name: str = ""


class AssessmentIn(Wire):
    assessment_id: str = ""
    assessment_name: str = ""
    span_id: str = ""
    source: SourceIn = SourceIn()
    create_time: str | None = None
    last_update_time: str | None = None
    feedback: FeedbackIn | None = None
    expectation: ExpectationIn | None = None
    issue: IssueIn | None = None
    rationale: str = ""
    metadata: dict[str, str] = {}
    overrides: str = ""

    @field_validator("create_time", "last_update_time")
    @classmethod
    def _a_time(cls, value: str | None) -> str | None:
        if value is not None:
            parse_timestamp(value)
        return value

    def to_assessment(self) -> Assessment:
        """Raises `InvalidParameter` unless it says exactly one thing."""
        if sum(part is not None for part in (self.feedback, self.expectation, self.issue)) != 1:
            raise InvalidParameter("Exactly one of `expectation`, `feedback`, or `issue` should be specified.")
        kind, value = ISSUE, None
        if self.feedback is not None:
            kind, value = FEEDBACK, self.feedback.value
        elif self.expectation is not None:
            kind, value = EXPECTATION, self.expectation.the_value
        elif self.issue is not None:
            value = {"issue_name": self.issue.issue_name}
        error = self.feedback.error if self.feedback else None
        now = now_ms()
        return Assessment(
            assessment_id=keys.new_id(self.assessment_id, "assessment_id")
            if self.assessment_id
            else f"a-{uuid4().hex}",
            kind=kind,
            name=self.assessment_name,
            value=value,
            source_type=self.source.source_type,
            source_id=self.source.source_id or None,
            created_ms=parse_timestamp(self.create_time) if self.create_time else now,
            updated_ms=parse_timestamp(self.last_update_time) if self.last_update_time else now,
            error=error.model_dump(exclude_none=True) if error else None,
            span_id=self.span_id or None,
            # An expectation needs no reason and replaces nothing.
            rationale=None if kind == EXPECTATION else self.rationale or None,
            overrides=self.overrides or None if kind == FEEDBACK else None,
            metadata=self.metadata or None,
        )


class CreateAssessment(Wire):
    assessment: AssessmentIn


class UpdateAssessment(Wire):
    """`update_mask` names, with commas between them, the fields of `assessment` that are meant."""

    assessment: AssessmentIn
    update_mask: str = Field(min_length=1)

    def to_change(self) -> Change:
        given = self.assessment
        paths = {path.strip() for path in self.update_mask.split(",")}
        if "valid" in paths:
            raise InvalidParameter(
                "An assessment becomes invalid when another one overrides it; 'valid' cannot be set."
            )
        feedback, expectation = "feedback" in paths, "expectation" in paths
        if feedback and expectation:
            raise InvalidParameter("Cannot specify both `expectation` and `feedback` parameters.")
        if expectation and given.expectation is None:
            raise InvalidParameter(missing("assessment.expectation"))
        value = given.expectation.the_value if expectation and given.expectation else None
        error = None
        if feedback and given.feedback:
            value = given.feedback.value
            error = given.feedback.error.model_dump(exclude_none=True) if given.feedback.error else None
        return Change(
            name=given.assessment_name if {"assessmentName", "assessment_name"} & paths else None,
            rationale=given.rationale if "rationale" in paths else None,
            metadata=given.metadata if "metadata" in paths else None,
            kind=FEEDBACK if feedback else EXPECTATION if expectation else None,
            value=value,
            error=error,
        )


class AssessmentAnswer(Wire):
    assessment: dict[str, Any] = Field(default_factory=dict)


def to_wire(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `assessments` as protobuf's JSON; what is not there is left out."""
    value = json.loads(row["value"])
    match row["kind"]:
        case "feedback":
            said: dict[str, Any] = {"value": value}
            if row["error"]:
                said["error"] = row["error"]
        case "expectation" if isinstance(value, list | dict):
            said = {"serialized_value": {"serialization_format": _JSON_FORMAT, "value": json.dumps(value)}}
        case "expectation":
            said = {"value": value}
        case _:
            said = value
    source = {"source_type": row["source_type"], "source_id": row["source_id"]}
    fields = {
        "assessment_id": row["assessment_id"],
        "assessment_name": row["name"],
        "trace_id": row["trace_id"],
        "span_id": row["span_id"],
        "source": {name: text for name, text in source.items() if text is not None},
        "create_time": format_timestamp(row["created_ms"]),
        "last_update_time": format_timestamp(row["updated_ms"]),
        row["kind"]: said,
        "rationale": row["rationale"],
        "metadata": row["assessment_metadata"],
        "overrides": row["overrides"],
        "valid": row["valid"],
    }
    return {name: field for name, field in fields.items() if field is not None}

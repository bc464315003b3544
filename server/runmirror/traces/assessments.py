"""An assessment: feedback on a trace, what was expected of it, or an issue it belongs to."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runmirror.traces.totals import finite

FEEDBACK, EXPECTATION, ISSUE = "feedback", "expectation", "issue"


@dataclass(frozen=True, slots=True)
class Assessment:
    """`value` is what JSON can say; of an issue it is `{"issue_name": …}`."""

    assessment_id: str
    kind: str
    name: str
    value: Any
    source_type: str
    source_id: str | None
    created_ms: int
    updated_ms: int
    error: Mapping[str, Any] | None = None
    span_id: str | None = None
    rationale: str | None = None
    overrides: str | None = None
    metadata: Mapping[str, str] | None = None

    def row(self, trace_id: str) -> dict[str, Any]:
        """The columns of `assessments`."""
        number, is_number = aggregate(self.value)
        return {
            "trace_id": trace_id,
            "assessment_id": self.assessment_id,
            "kind": self.kind,
            "name": self.name,
            "value": json.dumps(self.value),
            "error": self.error,
            "source_type": self.source_type,
            "source_id": self.source_id,
            "created_ms": self.created_ms,
            "updated_ms": self.updated_ms,
            "span_id": self.span_id,
            "rationale": self.rationale,
            "overrides": self.overrides,
            "valid": True,
            "assessment_metadata": dict(self.metadata) if self.metadata else None,
            "number": number,
            "is_number": is_number,
        }


def aggregate(value: Any) -> tuple[float | None, bool]:
    """What of a value can be averaged (yes and true count as 1, no and false as 0), and whether it is a number."""
    if isinstance(value, bool):
        return float(value), False
    if isinstance(value, int | float):
        number = finite(value)
        return number, number is not None
    if isinstance(value, str) and value.strip().lower() in {"yes", "no"}:
        return float(value.strip().lower() == "yes"), False
    return None, False


def as_protobuf_value(value: Any) -> Any:
    """What JSON says, as protobuf's Value holds it: every number is a double. Raises `ValueError` at NaN."""
    match value:
        case bool() | str() | None:
            return value
        case int() | float():
            number = float(value)
            if not math.isfinite(number):
                raise ValueError("NaN and infinities cannot be sent")
            return number
        case list():
            return [as_protobuf_value(item) for item in value]
        case dict():
            return {str(key): as_protobuf_value(item) for key, item in value.items()}
    raise ValueError("not made of JSON")

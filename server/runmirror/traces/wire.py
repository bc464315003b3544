"""Requests and responses about traces, in the words of MLflow 3 and of MLflow 2."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from sqlalchemy.engine import Row

from runmirror.errors import InvalidParameter
from runmirror.traces import assessments_wire, keys
from runmirror.traces.assessments_wire import AssessmentIn
from runmirror.traces.service import TraceIn
from runmirror.traces.times import format_duration, format_timestamp, parse_duration, parse_timestamp
from runmirror.traces.totals import metadata_of
from runmirror.wire import Int64, Wire, missing

STATES = ("STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS")  # by their numbers
MAX_PAGE = 500
_MAX_METADATA, _MAX_TAG_KEY, _MAX_TAG_VALUE = 250, 250, 4096  # of what is answered; more is stored


class ExperimentLocation(Wire):
    experiment_id: str = ""


class Location(Wire):
    mlflow_experiment: ExperimentLocation | None = None


class TraceInfoIn(Wire):
    trace_id: str = ""
    client_request_id: str | None = None
    trace_location: Location = Location()
    request_preview: str | None = None
    response_preview: str | None = None
    request_time: str = "1970-01-01T00:00:00Z"
    execution_duration: str | None = None
    state: str = STATES[0]
    trace_metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    assessments: list[AssessmentIn] = []

    @field_validator("state", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(STATES):
            return STATES[value]
        if value not in STATES:
            raise ValueError(f"expected one of {', '.join(STATES)}")
        return value

    @field_validator("request_time")
    @classmethod
    def _a_time(cls, value: str) -> str:
        parse_timestamp(value)
        return value

    @field_validator("execution_duration")
    @classmethod
    def _a_duration(cls, value: str | None) -> str | None:
        if value is not None:
            parse_duration(value)
        return value

    def to_trace(self) -> TraceIn:
        """Raises `InvalidParameter` when it does not lie in an experiment."""
        location = self.trace_location.mlflow_experiment
        if location is None or not location.experiment_id:
            raise InvalidParameter(missing("trace.trace_info.trace_location.mlflow_experiment.experiment_id"))
        return TraceIn(
            trace_id=self.trace_id,
            experiment_id=location.experiment_id,
            request_time_ms=parse_timestamp(self.request_time),
            execution_time_ms=parse_duration(self.execution_duration) if self.execution_duration else None,
            state=self.state,
            client_request_id=self.client_request_id,
            request_preview=self.request_preview,
            response_preview=self.response_preview,
            tags=self.tags,
            trace_metadata=self.trace_metadata,
            assessments=[assessment.to_assessment() for assessment in self.assessments],
        )


class TraceWithInfo(Wire):
    trace_info: TraceInfoIn = TraceInfoIn()


class StartTrace(Wire):
    trace: TraceWithInfo


class TraceIds(Wire):
    trace_ids: list[str]
    experiment_ids: list[str] = []


class SearchTraces(Wire):
    locations: list[Location]
    filter: str = ""
    max_results: Int64 = Field(100, le=MAX_PAGE)
    order_by: list[str] = []
    page_token: str = ""

    @property
    def experiment_ids(self) -> list[str]:
        return [place.mlflow_experiment.experiment_id for place in self.locations if place.mlflow_experiment]


class SearchTracesV2(Wire):
    experiment_ids: list[str]
    filter: str = ""
    max_results: Int64 = Field(100, le=MAX_PAGE)
    order_by: list[str] = []
    page_token: str = ""


class SetTag(Wire):
    key: str = Field(min_length=1)
    value: str = ""


class DeleteTag(Wire):
    key: str = Field(min_length=1)


class DeleteTraces(Wire):
    experiment_id: str = Field(min_length=1)
    max_timestamp_millis: Int64 | None = None
    max_traces: Int64 | None = None
    request_ids: list[str] = []


class TracesDeleted(Wire):
    traces_deleted: int


class LinkTraces(Wire):
    trace_ids: list[str]
    run_id: str = Field(min_length=1)


class PromptVersion(Wire):
    name: str
    version: str


class LinkPrompts(Wire):
    trace_id: str = Field(min_length=1)
    prompt_versions: list[PromptVersion]


class Aggregation(Wire):
    aggregation_type: str
    percentile_value: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)

    @model_validator(mode="after")
    def _percentile_only(self) -> "Aggregation":
        if (self.aggregation_type == "PERCENTILE") != (self.percentile_value is not None):
            raise ValueError("PERCENTILE, and nothing else, needs a percentile_value")
        return self

    @property
    def label(self) -> str:
        """The key of its values in the answer."""
        return self.aggregation_type if self.percentile_value is None else f"P{self.percentile_value}"


class QueryMetrics(Wire):
    experiment_ids: list[str]
    view_type: Literal["TRACES", "SPANS", "ASSESSMENTS"]
    metric_name: str = Field(min_length=1)
    aggregations: list[Aggregation] = Field(min_length=1, max_length=20)
    dimensions: list[str] = []
    filters: list[str] = Field([], max_length=50)
    time_interval_seconds: Int64 = Field(0, ge=0, le=10**12)
    start_time_ms: Int64 | None = None
    end_time_ms: Int64 | None = None
    max_results: Int64 = Field(1000, ge=0)

    @field_validator("view_type", mode="before")
    @classmethod
    def _by_number(cls, value: Any) -> Any:
        return {1: "TRACES", 2: "SPANS", 3: "ASSESSMENTS"}.get(value, value) if isinstance(value, int) else value


class Correlate(Wire):
    experiment_ids: list[str]
    filter_string1: str = Field(min_length=1)
    filter_string2: str = Field(min_length=1)
    base_filter: str = ""


class PairV2(Wire):
    key: str = Field(min_length=1)
    value: str = ""


class StartTraceV2(Wire):
    experiment_id: str = Field(min_length=1)
    timestamp_ms: Int64 = 0
    request_metadata: list[PairV2] = []
    tags: list[PairV2] = []


class EndTraceV2(Wire):
    timestamp_ms: Int64 = 0
    status: str
    request_metadata: list[PairV2] = []
    tags: list[PairV2] = []

    @model_validator(mode="after")
    def _an_end(self) -> "EndTraceV2":
        if self.status not in STATES[1:]:
            raise ValueError(f"status: expected one of {', '.join(STATES[1:])}")
        return self


def pairs(given: list[PairV2]) -> dict[str, str]:
    return {pair.key: pair.value for pair in given}


def info(row: Row[Any]) -> dict[str, Any]:
    """A trace as MLflow 3 describes it; what is not there is left out."""
    fields = {
        "trace_id": row.trace_id,
        "client_request_id": row.client_request_id,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": str(row.experiment_id)},
        },
        "request_preview": row.request_preview,
        "response_preview": row.response_preview,
        "request_time": format_timestamp(row.request_time_ms),
        "execution_duration": None if row.execution_time_ms is None else format_duration(row.execution_time_ms),
        "state": row.state,
        "trace_metadata": _metadata(row) or None,
        "tags": _tags(row) or None,
        "assessments": [assessments_wire.to_wire(found) for found in row.assessments or ()] or None,
    }
    return {name: field for name, field in fields.items() if field is not None}


def info_v2(row: Row[Any]) -> dict[str, Any]:
    """A trace as MLflow 2 described it."""
    return {
        "request_id": row.trace_id,
        "experiment_id": str(row.experiment_id),
        "timestamp_ms": row.request_time_ms,
        "execution_time_ms": row.execution_time_ms or 0,
        "status": "TRACE_STATUS_UNSPECIFIED" if row.state == STATES[0] else row.state,
        "request_metadata": _pairs_of(_metadata(row)),
        "tags": _pairs_of(_tags(row)),
    }


def _metadata(row: Row[Any]) -> dict[str, str]:
    found = {**row.trace_metadata, **metadata_of(row._asdict())}
    return {key[:_MAX_METADATA]: value[:_MAX_METADATA] for key, value in found.items()}


def _tags(row: Row[Any]) -> dict[str, str]:
    found = row.tags if row.name is None else {**row.tags, keys.TRACE_NAME: row.name}
    return {key[:_MAX_TAG_KEY]: value[:_MAX_TAG_VALUE] for key, value in found.items()}


def _pairs_of(found: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in found.items()]

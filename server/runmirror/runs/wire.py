"""Requests and responses about runs, except inputs and outputs (see `inputs_wire`)."""

from typing import Any

from pydantic import Field, field_validator

from runmirror import names
from runmirror.entities import Batch, Metric, Param, RunStatus, Tag, ViewType
from runmirror.errors import InvalidParameter
from runmirror.wire import Int64, MetricValue, RunIdWire, Wire

_STATUS_NUMBERS = dict(enumerate(("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"), start=1))
_VIEW_NUMBERS = dict(enumerate(("ACTIVE_ONLY", "DELETED_ONLY", "ALL"), start=1))


class MetricIn(Wire):
    """A point of a metric; `value` is a number or "NaN", "Infinity", "-Infinity"."""

    key: str
    value: MetricValue
    timestamp: Int64
    step: Int64 = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""

    def to_metric(self, path: str = "") -> Metric:
        names.check_name(self.key, f"{path}name")
        if self.timestamp < 0:
            raise InvalidParameter(
                f"Invalid value {self.timestamp} for parameter '{path}timestamp' supplied: metric '{self.key}' "
                f"(value={self.value}). Timestamp must be a nonnegative long (64-bit integer) "
            )
        if bool(self.dataset_name) != bool(self.dataset_digest):
            raise InvalidParameter(
                f"'{path}dataset_name' and '{path}dataset_digest' go together: give both or neither."
            )
        return Metric(
            self.key, self.value, self.timestamp, self.step,
            self.model_id or None, self.dataset_name or None, self.dataset_digest or None,
        )  # fmt: skip


class ParamIn(Wire):
    key: str
    value: str = ""

    def to_param(self, path: str = "") -> Param:
        names.check_name(self.key, f"{path}key")
        return Param(self.key, names.cut(self.value, names.MAX_PARAM_VALUE_LENGTH))


class TagIn(Wire):
    key: str
    value: str = ""

    def to_tag(self, path: str = "") -> Tag:
        names.check_name(self.key, f"{path}key")
        return Tag(self.key, names.cut(self.value, names.MAX_TAG_VALUE_LENGTH))


class NewRunTag(Wire):
    """A tag given at creation: MLflow looks at neither its name nor the length of its value there."""

    key: str = Field(max_length=names.MAX_KEY_LENGTH)
    value: str = ""

    def to_tag(self) -> Tag:
        return Tag(self.key, self.value)


class CreateRun(Wire):
    experiment_id: str = Field(min_length=1)
    user_id: str = ""
    run_name: str = ""
    start_time: Int64 = 0
    tags: list[NewRunTag] = []


class GetRun(RunIdWire):
    """`{run_id}`"""


class UpdateRun(RunIdWire):
    status: RunStatus | None = None
    end_time: Int64 | None = None
    run_name: str = ""

    @field_validator("status", mode="before")
    @classmethod
    def _enum_number(cls, value: Any) -> Any:
        return _STATUS_NUMBERS.get(value, value) if isinstance(value, int) else value


class LogMetric(RunIdWire, MetricIn):
    """`{run_id, key, value, timestamp, step, model_id, dataset_name, dataset_digest}`"""


class LogParam(RunIdWire, ParamIn):
    """`{run_id, key, value}`"""


class SetTag(RunIdWire, TagIn):
    """`{run_id, key, value}`"""


class DeleteTag(RunIdWire):
    key: str = Field(min_length=1)


class LogBatch(Wire):
    """At most 1,000 metrics, 100 params, 100 tags and 1,000 of them together; all of it is written or nothing."""

    run_id: str = Field(min_length=1)
    metrics: list[MetricIn] = []
    params: list[ParamIn] = []
    tags: list[TagIn] = []

    def to_batch(self) -> Batch:
        metrics, params, tags = self.metrics, self.params, self.tags
        names.check_batch_size("metrics", len(metrics), names.MAX_METRICS_PER_BATCH)
        names.check_batch_size("params", len(params), names.MAX_PARAMS_PER_BATCH)
        names.check_batch_size("tags", len(tags), names.MAX_TAGS_PER_BATCH)
        together = len(metrics) + len(params) + len(tags)
        names.check_batch_size("metrics, params, and tags", together, names.MAX_ENTITIES_PER_BATCH)
        names.check_unique_params(param.key for param in params)
        return Batch(
            metrics=tuple(metric.to_metric(f"metrics[{i}].") for i, metric in enumerate(metrics)),
            params=tuple(param.to_param(f"params[{i}].") for i, param in enumerate(params)),
            tags=tuple(tag.to_tag(f"tags[{i}].") for i, tag in enumerate(tags)),
        )


class SearchRuns(Wire):
    experiment_ids: list[str] = []
    filter: str = ""
    run_view_type: ViewType = ViewType.ACTIVE_ONLY
    max_results: Int64 = 1000
    order_by: list[str] = []
    page_token: str = ""

    @field_validator("run_view_type", mode="before")
    @classmethod
    def _enum_number(cls, value: Any) -> Any:
        return _VIEW_NUMBERS.get(value, value) if isinstance(value, int) else value


class GetHistory(RunIdWire):
    metric_key: str = Field(min_length=1)
    max_results: Int64 | None = None
    page_token: str = ""


class RunInfoWire(Wire):
    run_uuid: str
    experiment_id: str
    run_name: str
    user_id: str
    status: str
    start_time: int
    end_time: int | None = None
    artifact_uri: str
    lifecycle_stage: str
    run_id: str


class MetricOut(Wire):
    key: str
    value: float
    timestamp: int
    step: int


class PairOut(Wire):
    """A param or a tag."""

    key: str
    value: str


class RunDataWire(Wire):
    metrics: list[MetricOut] | None = None
    params: list[PairOut] | None = None
    tags: list[PairOut] | None = None


class RunWire(Wire):
    info: RunInfoWire
    data: RunDataWire
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] | None = None


class RunAnswer(Wire):
    run: RunWire


class RunInfoAnswer(Wire):
    run_info: RunInfoWire


class RunsPage(Wire):
    runs: list[RunWire] | None = None
    next_page_token: str | None = None


class HistoryPage(Wire):
    metrics: list[MetricOut] | None = None
    next_page_token: str | None = None

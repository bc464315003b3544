"""Requests and responses about logged models."""

from typing import Any

from pydantic import Field, field_validator

from runmirror.entities import LoggedModelStatus, Param, Tag
from runmirror.wire import Int64, MetricValue, Wire

MAX_NAME_LENGTH = 500
MAX_KEY_LENGTH = 255


class PairIn(Wire):
    """A param or a tag of a logged model."""

    key: str = Field(min_length=1, max_length=MAX_KEY_LENGTH)
    value: str = ""

    def to_param(self) -> Param:
        return Param(self.key, self.value)

    def to_tag(self) -> Tag:
        return Tag(self.key, self.value)


class CreateLoggedModel(Wire):
    experiment_id: str = Field(min_length=1)
    name: str = ""
    model_type: str = Field("", max_length=MAX_NAME_LENGTH)
    source_run_id: str = ""
    params: list[PairIn] = []
    tags: list[PairIn] = []


class FinalizeLoggedModel(Wire):
    """`status` is a name such as LOGGED_MODEL_READY, or its number."""

    model_id: str = Field(min_length=1)
    status: LoggedModelStatus

    @field_validator("status", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a boolean is not a status")
        if not isinstance(value, str):
            return value
        return _STATUS_NUMBERS.get(value, int(value) if value in {"0", "1", "2", "3"} else value)


class LogParams(Wire):
    model_id: str = Field(min_length=1)
    params: list[PairIn] = []


class SetTags(Wire):
    tags: list[PairIn] = []


class DatasetFilter(Wire):
    dataset_name: str = ""
    dataset_digest: str = ""


class OrderBy(DatasetFilter):
    field_name: str = Field(min_length=1)
    ascending: bool = True


class SearchLoggedModels(Wire):
    experiment_ids: list[str]
    filter: str = ""
    datasets: list[DatasetFilter] = []
    max_results: Int64 = 0
    order_by: list[OrderBy] = []
    page_token: str = ""


class PairOut(Wire):
    key: str
    value: str


class MetricOut(Wire):
    key: str
    value: MetricValue
    timestamp: int
    step: int
    dataset_name: str | None = None
    dataset_digest: str | None = None
    model_id: str
    run_id: str


class LoggedModelInfo(Wire):
    model_id: str
    experiment_id: str
    name: str
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    artifact_uri: str
    status: str
    model_type: str
    source_run_id: str
    status_message: str | None = None
    tags: list[PairOut] | None = None


class LoggedModelData(Wire):
    params: list[PairOut] | None = None
    metrics: list[MetricOut] | None = None


class LoggedModelWire(Wire):
    info: LoggedModelInfo
    data: LoggedModelData


class LoggedModelAnswer(Wire):
    model: LoggedModelWire


class LoggedModelsPage(Wire):
    models: list[LoggedModelWire] | None = None
    next_page_token: str | None = None


STATUS_NAMES = {
    LoggedModelStatus.UNSPECIFIED: "LOGGED_MODEL_STATUS_UNSPECIFIED",
    LoggedModelStatus.PENDING: "LOGGED_MODEL_PENDING",
    LoggedModelStatus.READY: "LOGGED_MODEL_READY",
    LoggedModelStatus.FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}
_STATUS_NUMBERS = {name: number for number, name in STATUS_NAMES.items()}

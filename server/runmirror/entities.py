"""What a write consists of, in MLflow's words: frozen values, free of wire and storage."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class RunStatus(StrEnum):
    RUNNING = "RUNNING"
    SCHEDULED = "SCHEDULED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def is_terminal(self) -> bool:
        return self in {RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED}


class LifecycleStage(StrEnum):
    ACTIVE = "active"
    DELETED = "deleted"


class ViewType(StrEnum):
    ACTIVE_ONLY = "ACTIVE_ONLY"
    DELETED_ONLY = "DELETED_ONLY"
    ALL = "ALL"


class LoggedModelStatus(IntEnum):
    UNSPECIFIED = 0
    PENDING = 1
    READY = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Metric:
    """One point of a metric: `timestamp_ms` since the epoch, `value` finite or NaN (see `runmirror.wire`)."""

    key: str
    value: float
    timestamp_ms: int
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Param:
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Tag:
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one log-batch call writes, all of it or nothing."""

    metrics: tuple[Metric, ...] = ()
    params: tuple[Param, ...] = ()
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset as logged, identified within its experiment by name and digest."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetInput:
    dataset: Dataset
    tags: tuple[Tag, ...] = ()

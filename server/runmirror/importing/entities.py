"""What a source tells: plain values, in MLflow's words, as they stand there."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from runmirror.entities import DatasetInput
from runmirror.traces.service import TraceIn
from runmirror.traces.spans import SpanIn

_pack = msgspec.msgpack.Encoder(order="sorted").encode


def fingerprint(*told: object) -> str:
    """The same for the same content, in whatever order its tags were told."""
    return hashlib.blake2b(_pack(told), digest_size=16).hexdigest()


class OldExperiment(msgspec.Struct, frozen=True):
    experiment_id: str
    name: str
    lifecycle_stage: str
    creation_time_ms: int
    last_update_time_ms: int
    tags: dict[str, str]


class OldRun(msgspec.Struct, frozen=True):
    """A run without the points of its metrics; `latest` is `(value, timestamp_ms, step)` by key.

    `points`: how many points there are, if that is cheap to tell. `mark` is another one after every change, where the
    source has something like that.
    """

    run_id: str
    experiment_id: str
    name: str
    user_id: str
    status: str
    start_time_ms: int
    end_time_ms: int | None
    lifecycle_stage: str
    artifact_uri: str
    deleted_time_ms: int | None = None
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    latest: dict[str, tuple[float, int, int]] = {}
    datasets: tuple[DatasetInput, ...] = ()
    model_inputs: tuple[str, ...] = ()
    model_outputs: tuple[tuple[str, int], ...] = ()
    points: int | None = None
    mark: str = ""


class OldModelMetric(msgspec.Struct, frozen=True):
    key: str
    value: float
    timestamp_ms: int
    step: int
    run_id: str
    dataset_name: str | None = None
    dataset_digest: str | None = None


class OldModel(msgspec.Struct, frozen=True):
    """A logged model."""

    model_id: str
    experiment_id: str
    name: str
    artifact_uri: str
    creation_time_ms: int
    last_updated_time_ms: int
    status: int
    lifecycle_stage: str = "active"
    model_type: str = ""
    source_run_id: str = ""
    status_message: str = ""
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: tuple[OldModelMetric, ...] = ()


class OldVersion(msgspec.Struct, frozen=True):
    version: int
    creation_time_ms: int
    last_updated_time_ms: int
    description: str | None
    stage: str
    source: str
    run_id: str
    run_link: str
    storage_location: str = ""  # where a client downloads, if the source says more than `source` does
    tags: dict[str, str] = {}


class OldRegisteredModel(msgspec.Struct, frozen=True):
    name: str
    creation_time_ms: int
    last_updated_time_ms: int
    description: str
    tags: dict[str, str] = {}
    aliases: dict[str, int] = {}
    versions: tuple[OldVersion, ...] = ()
    last_version: int = 0  # the highest number given out, where the source tells that of deleted ones too


@dataclass(frozen=True, slots=True)
class OldTrace:
    """`spans` is None when the source cannot give them."""

    info: TraceIn
    spans: Sequence[SpanIn] | None
    run_ids: Sequence[str] = ()
    prompts: Sequence[str] = ()  # name/version
    invalid: Sequence[str] = ()  # assessments that others replaced

    @property
    def fingerprint(self) -> str:
        spans = None if self.spans is None else sorted(self.spans, key=lambda span: span.span_id)
        return fingerprint(self.info, spans, sorted(self.run_ids), sorted(self.prompts), sorted(self.invalid))


@dataclass(frozen=True, slots=True)
class OldFile:
    """A file below an artifact root; `mark` tells one content from another where size alone does not, `md5` which."""

    path: str
    size_bytes: int | None
    mark: str = ""
    md5: str | None = None

"""Everything the workspace remembers, in memory; only blob contents are on disk."""

import secrets
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azureml_emulator.long_running import LongRunning
from azureml_emulator.workspace import new_guid


def now_ms() -> int:
    """The time as MLflow writes it."""
    return time.time_ns() // 1_000_000


@dataclass
class Tag:
    """A tag remembers when it came, because search may lag behind writes."""

    value: str
    written: float = field(default_factory=time.monotonic)


@dataclass
class MetricPoint:
    """One value exactly as it arrived."""

    key: str
    value: float
    timestamp: int
    step: int
    metric_id: str = field(default_factory=new_guid)
    written: float = field(default_factory=time.monotonic)


@dataclass
class MetricRow:
    """One row of a metric that is more than a number: azureml-core's tables and lists."""

    name: str
    columns: dict[str, str]
    properties: dict[str, Any]
    values: dict[str, Any]
    step: int | None
    created_ms: int
    metric_id: str = field(default_factory=new_guid)


@dataclass
class Experiment:
    experiment_id: str
    name: str
    artifact_location: str = ""
    lifecycle_stage: str = "active"
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    created_ms: int = field(default_factory=now_ms)
    updated_ms: int = field(default_factory=now_ms)
    written: float = field(default_factory=time.monotonic)


@dataclass
class Run:
    """A run in MLflow's words; history.py translates."""

    run_id: str
    experiment_id: str
    name: str
    number: int
    user_id: str = ""
    status: str = "RUNNING"
    start_ms: int | None = None
    end_ms: int | None = None
    lifecycle_stage: str = "active"
    hidden: bool = False
    parent_run_id: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, Tag] = field(default_factory=dict)
    points: list[MetricPoint] = field(default_factory=list)
    rows: list[MetricRow] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    created_ms: int = field(default_factory=now_ms)
    written: float = field(default_factory=time.monotonic)

    # Both follow from points and save reading them all at every request.
    point_counts: Counter[str] = field(default_factory=Counter)
    latest: dict[str, MetricPoint] = field(default_factory=dict)

    @property
    def container(self) -> str:
        return f"dcid.{self.run_id}"

    def add_points(self, points: list[MetricPoint]) -> None:
        """Keep points as they come: what is sent twice stands here twice."""
        self.points.extend(points)
        self.point_counts.update(point.key for point in points)
        for point in points:
            held = self.latest.get(point.key)
            if held is None or (point.step, point.timestamp) >= (held.step, held.timestamp):
                self.latest[point.key] = point


@dataclass
class Artifact:
    """A path that was registered: the blob behind it may not have come yet."""

    origin: str
    container: str
    path: str
    etag: str
    created_ms: int = field(default_factory=now_ms)

    @property
    def artifact_id(self) -> str:
        return f"{self.origin}/{self.container}/{self.path}"


@dataclass
class Blob:
    """A committed blob: its file and what was computed while its bytes came in."""

    file: Path
    size: int
    sha256: str
    md5: str
    shown_md5: str | None  # what the blob's own property says: storage computes none for a blob of blocks
    content_type: str
    etag: str
    modified: float = field(default_factory=time.time)


@dataclass
class ModelVersion:
    name: str
    version: int
    source: str
    run_id: str | None = None
    description: str | None = None
    stage: str = "None"
    status: str = "READY"
    tags: dict[str, str] = field(default_factory=dict)
    # What only azureml-core sets and reads: url, mimeType, framework and the like.
    extra: dict[str, Any] = field(default_factory=dict)
    created_ms: int = field(default_factory=now_ms)
    updated_ms: int = field(default_factory=now_ms)


@dataclass
class RegisteredModel:
    name: str
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    versions: dict[int, ModelVersion] = field(default_factory=dict)
    next_version: int = 1
    created_ms: int = field(default_factory=now_ms)
    updated_ms: int = field(default_factory=now_ms)


def _keys() -> tuple[str, str]:
    return secrets.token_hex(16), secrets.token_hex(16)


@dataclass
class WebService:
    """On a container instance or AKS; `asked` is the body of the request that made it."""

    name: str
    asked: dict[str, Any]
    operation: LongRunning
    scoring_uri: str
    keys: tuple[str, str] = field(default_factory=_keys)
    created_ms: int = field(default_factory=now_ms)


@dataclass
class OnlineDeployment:
    """A model behind a managed online endpoint."""

    name: str
    location: str
    tags: dict[str, str]
    sku: dict[str, Any]
    properties: dict[str, Any]
    operation: LongRunning


@dataclass
class OnlineEndpoint:
    name: str
    operation: LongRunning
    location: str = ""
    auth_mode: str = "Key"
    tags: dict[str, str] = field(default_factory=dict)
    traffic: dict[str, int] = field(default_factory=dict)
    deployments: dict[str, OnlineDeployment] = field(default_factory=dict)
    keys: tuple[str, str] = field(default_factory=_keys)
    token: str = field(default_factory=lambda: secrets.token_hex(32))


@dataclass
class State:
    """One workspace's contents."""

    experiments: dict[str, Experiment] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    blobs: dict[str, Blob] = field(default_factory=dict)
    # blob name -> block id -> file; blocks are no blob until a block list commits them
    blocks: dict[str, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))
    models: dict[str, RegisteredModel] = field(default_factory=dict)
    assets: dict[str, dict[str, Any]] = field(default_factory=dict)
    services: dict[str, WebService] = field(default_factory=dict)
    endpoints: dict[str, OnlineEndpoint] = field(default_factory=dict)
    operations: dict[str, LongRunning] = field(default_factory=dict)

    def experiment_named(self, name: str) -> Experiment | None:
        return next((e for e in self.experiments.values() if e.name == name), None)

    def artifacts_of(self, origin: str, container: str, prefix: str = "") -> list[Artifact]:
        """The artifacts of one container at or below a path, in order of path."""
        found = [a for a in self.artifacts.values() if (a.origin, a.container) == (origin, container)]
        below = prefix.rstrip("/") + "/"
        if prefix.strip("/"):
            found = [a for a in found if a.path == prefix or a.path.startswith(below)]
        return sorted(found, key=lambda a: a.path)

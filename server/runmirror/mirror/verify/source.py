"""What should stand in the workspace: read by the very pages that the mirror sends, so that both mean the same."""

import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.mirror import overflow_queries, queries, source_files
from runmirror.mirror.queries import Page, Point
from runmirror.mirror.queue import Lease
from runmirror.mirror.target import RemoteFile, RemoteRun, RunState
from runmirror.mirror.verify.series import Series

_NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Stand:
    """How far the run and its mirror are; whatever happens to either of them makes another stand."""

    run_id: UUID
    seq: int
    state: str
    watermark: int
    mirrored_at: datetime | None
    last_error_at: datetime | None
    remote_experiment_id: str | None
    remote_run_id: str | None
    remote_experiment_name: str | None
    workspace_id: str | None  # in small letters
    is_born_there: bool = False  # adopted: the job that it belongs to writes to it as well

    @property
    def is_settled(self) -> bool:
        """Nothing more is on its way: the copy is complete, or was given up."""
        return self.state == "quarantined" or (self.state == "current" and self.watermark == self.seq)

    @property
    def remote(self) -> RemoteRun | None:
        if self.remote_experiment_id is None or self.remote_run_id is None:
            return None
        return RemoteRun(self.remote_experiment_id, self.remote_run_id)


@dataclass(frozen=True, slots=True)
class Overflows:
    """What the mirror decided to put into the overflow file: kind and key, and the write from which on.

    `divided`: of such a write, the first point that is in the file; those before it are in the run.
    """

    decided: Mapping[tuple[str, str], int]
    divided: Mapping[tuple[str, str, int], tuple[int, int, float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.decided)

    def has(self, kind: str, key: str) -> bool:
        return (kind, key) in self.decided

    def has_point(self, point: Point) -> bool:
        kinds = ("metric", "points", "nan") if point.metric.value != point.metric.value else ("metric", "points")
        return any(self._begins_by(kind, point) for kind in kinds)

    def _begins_by(self, kind: str, point: Point) -> bool:
        metric = point.metric
        since = self.decided.get((kind, metric.key))
        if since is None or point.seq < since:
            return False
        first = self.divided.get((kind, metric.key, point.seq))
        if first is None:
            return True
        # As Postgres orders them: NaN after every number.
        return (metric.step, metric.timestamp_ms, *_rank(metric.value)) >= (*first[:2], *_rank(first[2]))


def _rank(value: float) -> tuple[bool, float]:
    return (True, 0.0) if math.isnan(value) else (False, value)


@dataclass(slots=True)
class Points:
    """Of one metric: what belongs into the run, what into the overflow file, and its first write."""

    first_seq: int
    native: Series = field(default_factory=Series)
    overflow: Series = field(default_factory=Series)


@dataclass(slots=True)
class Expected:
    """A run as the workspace should have it. Beside each thing: the write from which on to send to send it again."""

    overflows: Overflows
    parent_remote_id: str | None = None
    state: RunState | None = None
    info_seq: int = 0
    params: dict[str, tuple[str, int]] = field(default_factory=dict)
    tags: dict[str, tuple[str | None, int]] = field(default_factory=dict)  # None: deleted, and so to be absent
    metrics: dict[str, Points] = field(default_factory=dict)
    inputs: dict[str, tuple[tuple[str, str], int]] = field(default_factory=dict)  # by id: name and digest
    files: dict[tuple[str, str], tuple[RemoteFile, int]] = field(default_factory=dict)  # by logged model and path
    deleted_files: dict[str, int] = field(default_factory=dict)  # by the place they had: they may stand there still

    def add(self, page: Page, store: Store, from_seq: int) -> None:
        self.state, self.info_seq = page.source.state, page.source.info_seq
        self.params.update({param.key: (param.value, from_seq) for param in page.params})
        self.tags.update({tag.key: (tag.value, from_seq) for tag in page.tags})
        self.tags.update(dict.fromkeys(page.deleted_tags, (None, from_seq)))
        for point in page.points:
            held = self.metrics.setdefault(point.metric.key, Points(point.seq))
            (held.overflow if self.overflows.has_point(point) else held.native).add(point.metric)
        for read in page.inputs:
            self.inputs[read.dataset_id] = (read.given.dataset.name, read.given.dataset.digest), from_seq
        for row, file in source_files.placed(store, page).items():
            self.files[row.model_id, row.path] = file, from_seq
        self.deleted_files.update({row.place: from_seq for row in page.deleted_files})


_STAND = text("""
    SELECT run_id, seq, state, watermark, mirrored_at, mirrors.last_error_at, mirrors.remote_experiment_id,
        remote_run_id, remote_name, lower(mirror_links.workspace_id) AS workspace_id,
        COALESCE(azure_run_id = remote_run_id, false) AS is_born_there
    FROM runs JOIN mirrors USING (run_id) LEFT JOIN mirrored_experiments USING (experiment_id, link_id)
        LEFT JOIN mirror_links USING (link_id)
    WHERE run_id = :run_id
""")

_PARENT = text("""
    SELECT remote_run_id FROM mirrors
    WHERE link_id = (SELECT link_id FROM mirrors WHERE run_id = :run_id) AND run_id = (
        SELECT CAST(CASE WHEN value ~ '^[0-9a-f]{32}$' THEN value END AS uuid)
        FROM tags WHERE run_id = :run_id AND key = 'mlflow.parentRunId')
""")


async def read_stand(engine: AsyncEngine, run_id: UUID) -> Stand | None:
    """None when there is no such run."""
    async with engine.connect() as connection:
        row = (await connection.execute(_STAND, {"run_id": run_id})).one_or_none()
    return None if row is None else Stand(*row)


async def pages(engine: AsyncEngine, run_id: UUID, most: int) -> AsyncIterator[tuple[int, Page]]:
    """All that was ever written to the run, with the first write of each page."""
    watermark = 0
    while True:
        everything = Lease(run_id, _NOBODY, watermark, 0, 0, 0, None, None, 0, backfill=False)
        async with engine.connect() as connection:
            page = await queries.read_page(connection, everything, most)
        if page is None:
            return
        yield watermark + 1, page
        if page.is_last:
            return
        watermark = page.upto


async def read_expected(engine: AsyncEngine, store: Store, run_id: UUID, most: int) -> Expected:
    """All but the single points."""
    async with engine.connect() as connection:
        overflows = Overflows(
            await overflow_queries.decided(connection, run_id), await overflow_queries.divided(connection, run_id)
        )
        expected = Expected(overflows, await connection.scalar(_PARENT, {"run_id": run_id}))
    async for from_seq, page in pages(engine, run_id, most):
        expected.add(page, store, from_seq)
    return expected

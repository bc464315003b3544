"""What the target has not seen yet of one run, read in pages."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import Dataset, DatasetInput, LifecycleStage, Metric, Param, RunStatus, Tag
from runmirror.mirror.queue import Lease
from runmirror.mirror.target import RunState


@dataclass(frozen=True, slots=True)
class Source:
    """A run as it stands at the source; `seq` is the newest write of which a page can tell."""

    run_id: UUID
    seq: int
    info_seq: int
    state: RunState
    user_id: str
    start_time_ms: int
    artifact_uri: str
    experiment_id: int
    experiment_name: str
    remote_experiment_id: str | None
    parent_run_id: str | None  # what the tag mlflow.parentRunId says
    overflow: "OverflowState"
    azure_run_id: str | None = None  # of a run that was born in a workspace


@dataclass(frozen=True, slots=True)
class OverflowState:
    """The run's overflow file: to be written while `told` is below `seq`; last written `age_s` ago, if it ever was.

    `points` has counted, up to the write `points_upto`, the points of each metric that are meant for the target itself.
    """

    seq: int = 0
    told: int = 0
    age_s: float | None = None
    points: Mapping[str, int] = field(default_factory=dict)
    points_upto: int = 0


@dataclass(frozen=True, slots=True)
class Input:
    """A dataset that the run read."""

    seq: int
    dataset_id: str
    given: DatasetInput


@dataclass(frozen=True, slots=True)
class Point:
    """A metric point and the write it came with."""

    seq: int
    metric: Metric


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the run, or of a logged model it made (`model_id` then); it is mirrored into `folder` ("": the top)."""

    model_id: str
    path: str
    size_bytes: int
    md5: str | None
    seq: int
    artifact_uri: str | None
    folder: str
    deleted: bool = False

    @property
    def place(self) -> str:
        """Its path in the target: no two files of a run have the same, in whatever order they came."""
        return f"{self.folder}/{self.path}" if self.folder else self.path


@dataclass(frozen=True, slots=True)
class Counts:
    """How much of each kind the whole run has; tags without the mirror's own."""

    params: int = 0
    metrics: int = 0
    inputs: int = 0
    tags: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """Everything whose last write is above the watermark and not above `upto`; always whole writes.

    With it comes what is decided already: what of the run goes to the overflow file (from which write on), and the
    limits that the workspace was heard to have.
    """

    source: Source
    upto: int
    points: tuple[Point, ...]
    params: tuple[Param, ...]
    tags: tuple[Tag, ...]
    deleted_tags: tuple[str, ...]
    files: tuple[SourceFile, ...]
    deleted_files: tuple[SourceFile, ...] = ()
    inputs: tuple[Input, ...] = ()
    held: Counts = Counts()
    overflowing: Mapping[tuple[str, str], int] = field(default_factory=dict)
    learned_limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        return self.upto == self.source.seq


# Rows of the other kinds tell where in the write `from_seq` a metric's points begin to overflow.
IS_THING = "kind NOT IN ('points_since', 'nan_since')"

# One statement, so that a page is one round trip and one moment. Columns come as arrays: thousands of rows of their own
# would cost more than all the rest. The first row that does not fit ends the page before its write; a write larger than
# a page is a page of its own. Tags under `runmirror.` are the mirror's own, on both sides.
_NEWS = "run_id = :run_id AND seq > :watermark"
_PAGE = text(f"""
    WITH run AS MATERIALIZED (SELECT * FROM runs WHERE run_id = :run_id),
    touched AS (
        (SELECT seq FROM metrics WHERE {_NEWS} ORDER BY seq LIMIT :most)
        UNION ALL
        -- A chunk counts as its points. No more chunks are looked at than could fill the page.
        (SELECT seq FROM (
            SELECT seq, points, sum(points) OVER (ORDER BY seq, metric_id, newest_ms, last_step) - points AS before
            FROM (SELECT * FROM metric_chunks WHERE {_NEWS} ORDER BY seq LIMIT :most) AS first
         ) AS counted, generate_series(1, points)
         WHERE before < :most)
        UNION ALL
        (SELECT seq FROM params WHERE {_NEWS} ORDER BY seq LIMIT :most)
        UNION ALL
        (SELECT seq FROM tags WHERE {_NEWS} ORDER BY seq LIMIT :most)
        UNION ALL
        (SELECT seq FROM artifacts WHERE {_NEWS} ORDER BY seq LIMIT :most)
        UNION ALL
        (SELECT seq FROM dataset_inputs WHERE {_NEWS} ORDER BY seq LIMIT :most)),
    cut AS MATERIALIZED (
        SELECT COALESCE(
            (SELECT GREATEST(seq - 1, :watermark + 1) FROM touched ORDER BY seq OFFSET :most - 1 LIMIT 1),
            (SELECT GREATEST(seq, :watermark) FROM run)) AS upto)
    SELECT run.run_id, run.seq, info_seq, run.name, status, end_time_ms, run.lifecycle_stage, user_id, start_time_ms,
        run.artifact_uri, run.azure_run_id, run.experiment_id, experiments.name AS experiment_name,
        mirrored_experiments.remote_experiment_id, overflow_seq, overflow_told,
        CAST(extract(epoch FROM now() - overflow_at) AS double precision) AS overflow_age_s,
        mirrors.points, points_upto,
        (SELECT value FROM tags WHERE tags.run_id = :run_id AND key = 'mlflow.parentRunId') AS parent_run_id,
        cut.upto, point.*, param.*, tag.*, file.*, input.*, decided.*,
        (SELECT array_agg(name ORDER BY name) FROM mirror_limits WHERE link_id = :link_id) AS learned_names,
        (SELECT array_agg(value ORDER BY name) FROM mirror_limits WHERE link_id = :link_id) AS learned_values,
        (SELECT count(*) FROM params WHERE run_id = :run_id) AS params_held,
        (SELECT count(*) FROM latest_metrics WHERE run_id = :run_id) AS metrics_held,
        (SELECT count(*) FROM dataset_inputs WHERE run_id = :run_id) AS inputs_held,
        (SELECT count(*) FROM tags
         WHERE run_id = :run_id AND value IS NOT NULL AND NOT starts_with(key, 'runmirror.')) AS tags_held
    FROM run CROSS JOIN cut JOIN mirrors ON mirrors.run_id = run.run_id
        JOIN experiments ON experiments.experiment_id = run.experiment_id
        LEFT JOIN mirrored_experiments ON mirrored_experiments.experiment_id = run.experiment_id
            AND mirrored_experiments.link_id = :link_id
        CROSS JOIN LATERAL (
            SELECT array_agg(seq) AS point_seqs, array_agg(key) AS point_keys, array_agg(value) AS point_values,
                array_agg(timestamp_ms) AS point_times, array_agg(step) AS point_steps
            FROM (
                SELECT m.seq, key, m.value, m.timestamp_ms, m.step
                FROM metric_points m JOIN latest_metrics USING (run_id, metric_id)
                WHERE run_id = :run_id AND m.seq > :watermark AND m.seq <= cut.upto
                ORDER BY m.seq, metric_id, m.step, m.timestamp_ms, m.value) AS ordered) AS point
        CROSS JOIN LATERAL (
            SELECT array_agg(key ORDER BY seq, key) AS param_keys, array_agg(value ORDER BY seq, key) AS param_values
            FROM params WHERE {_NEWS} AND seq <= cut.upto) AS param
        CROSS JOIN LATERAL (
            SELECT array_agg(key ORDER BY seq, key) AS tag_keys, array_agg(value ORDER BY seq, key) AS tag_values
            FROM tags
            WHERE {_NEWS} AND seq <= cut.upto AND NOT starts_with(key, 'runmirror.')
        ) AS tag
        CROSS JOIN LATERAL (
            SELECT count(*) AS files FROM artifacts
            WHERE {_NEWS} AND seq <= cut.upto) AS file
        CROSS JOIN LATERAL (
            SELECT count(*) AS inputs FROM dataset_inputs
            WHERE {_NEWS} AND seq <= cut.upto) AS input
        CROSS JOIN LATERAL (
            SELECT array_agg(kind) AS out_kinds, array_agg(key) AS out_keys, array_agg(from_seq) AS out_seqs
            FROM mirror_overflows WHERE run_id = :run_id AND {IS_THING}) AS decided
""").columns(points=JSONB)

# A logged model's files lie in its folder of the run; a model from before there was `mirror_folder` has the folder of
# its name, if it is the first of that name. What the run itself has there, or below `runmirror/`, came later.
FOLDER = """
    CASE
        WHEN files.model_id <> '' THEN coalesce(
            model.mirror_folder,
            CASE WHEN NOT EXISTS (
                SELECT FROM logged_models AS earlier
                WHERE earlier.source_run_id = model.source_run_id AND earlier.name = model.name
                    AND (earlier.creation_timestamp_ms, earlier.model_id)
                        < (model.creation_timestamp_ms, model.model_id)
            ) THEN model.name END,
            'runmirror/models/' || files.model_id)
        WHEN first.segment = 'runmirror' OR EXISTS (
            SELECT FROM logged_models AS owner
            WHERE owner.source_run_id = files.run_id AND owner.name = first.segment
                AND coalesce(owner.mirror_folder, owner.name) = first.segment
        ) THEN 'runmirror/run'
        ELSE '' END
"""

_FILES = text(f"""
    SELECT files.model_id, files.path, files.size_bytes, files.md5, files.seq, model.artifact_uri, {FOLDER} AS folder,
        files.deleted
    FROM artifacts AS files CROSS JOIN LATERAL (SELECT split_part(files.path, '/', 1)) AS first (segment)
        LEFT JOIN logged_models AS model ON model.model_id = files.model_id
    WHERE files.run_id = :run_id AND files.seq > :watermark AND files.seq <= :upto
    ORDER BY files.seq, files.model_id, files.path
""")

_INPUTS = text("""
    SELECT i.seq, dataset_id, d.name, d.digest, d.source_type, d.source, d.schema, d.profile, i.tags
    FROM dataset_inputs i JOIN datasets d USING (dataset_id)
    WHERE i.run_id = :run_id AND i.seq > :watermark AND i.seq <= :upto ORDER BY i.seq, d.name, d.digest
""").columns(tags=JSONB)

_IS_SUPERSEDED = text("""
    SELECT NOT EXISTS (
        SELECT FROM artifacts
        WHERE run_id = :run_id AND model_id = :model_id AND path = :path AND seq = :seq AND NOT deleted)
""")

_SAVE_EXPERIMENT = text("""
    INSERT INTO mirrored_experiments (experiment_id, link_id, remote_experiment_id, remote_name)
    VALUES (:experiment_id, :link_id, :remote_experiment_id, :remote_name)
    ON CONFLICT (experiment_id, link_id) DO NOTHING
""")


async def read_page(connection: AsyncConnection, lease: Lease, most: int) -> Page | None:
    """The next page of at most `most` rows (more only if one write has more); None when the run is gone.

    A row that is overwritten while this reads has a higher seq by then: it stands in a later page.
    """
    wanted = {
        "run_id": lease.run_id, "watermark": lease.watermark, "most": most + 1, "link_id": lease.link_id,
    }  # fmt: skip
    row = (await connection.execute(_PAGE, wanted)).one_or_none()
    if row is None:
        return None
    part = {"run_id": lease.run_id, "watermark": lease.watermark, "upto": row.upto}
    files = [SourceFile(*file) for file in await connection.execute(_FILES, part)] if row.files else []
    inputs = (await connection.execute(_INPUTS, part)).all() if row.inputs else ()
    tags = _zip(row.tag_keys, row.tag_values)
    return Page(
        _source(row),
        row.upto,
        points=_points(row),
        params=tuple(itertools.starmap(Param, _zip(row.param_keys, row.param_values))),
        tags=tuple(Tag(key, value) for key, value in tags if value is not None),
        deleted_tags=tuple(key for key, value in tags if value is None),
        files=tuple(file for file in files if not file.deleted),
        deleted_files=tuple(file for file in files if file.deleted),
        inputs=tuple(Input(read.seq, read.dataset_id.hex, dataset_input(read)) for read in inputs),
        held=Counts(row.params_held, row.metrics_held, row.inputs_held, row.tags_held),
        overflowing={
            (kind, key): seq for kind, key, seq in _zip(row.out_kinds, row.out_keys, row.out_seqs)
        },
        learned_limits=dict(_zip(row.learned_names, row.learned_values)),
    )  # fmt: skip


def _source(row: Row[Any]) -> Source:
    state = RunState(row.name, RunStatus(row.status), row.end_time_ms, LifecycleStage(row.lifecycle_stage))
    return Source(
        row.run_id, row.seq, row.info_seq, state, row.user_id, row.start_time_ms, row.artifact_uri,
        row.experiment_id, row.experiment_name, row.remote_experiment_id, row.parent_run_id,
        OverflowState(row.overflow_seq, row.overflow_told, row.overflow_age_s, row.points, row.points_upto),
        row.azure_run_id,
    )  # fmt: skip


def _points(row: Row[Any]) -> tuple[Point, ...]:
    if row.point_seqs is None:
        return ()
    metrics = map(Metric, row.point_keys, row.point_values, row.point_times, row.point_steps)
    return tuple(map(Point, row.point_seqs, metrics))


def _zip(*columns: list[Any] | None) -> list[tuple[Any, ...]]:
    """Rows of columns, which are NULL when there are none."""
    return [] if columns[0] is None else list(zip(*(column or () for column in columns), strict=True))


def dataset_input(row: Row[Any]) -> DatasetInput:
    """From the columns of a dataset and the tags of the run's use of it."""
    dataset = Dataset(row.name, row.digest, row.source_type, row.source, row.schema, row.profile)
    return DatasetInput(dataset, tuple(Tag(key, value) for key, value in row.tags.items()))


async def is_superseded(connection: AsyncConnection, run_id: UUID, file: SourceFile) -> bool:
    """Whether a later write has replaced or deleted the file: then a later page tells what became of it."""
    same = {"run_id": run_id, "model_id": file.model_id, "path": file.path, "seq": file.seq}
    return bool(await connection.scalar(_IS_SUPERSEDED, same))


async def save_experiment(
    connection: AsyncConnection, experiment_id: int, *, link_id: int, remote_experiment_id: str, remote_name: str
) -> None:
    """Remember which experiment of the workspace is ours."""
    named = {"remote_experiment_id": remote_experiment_id, "remote_name": remote_name}
    await connection.execute(_SAVE_EXPERIMENT, {"experiment_id": experiment_id, "link_id": link_id, **named})

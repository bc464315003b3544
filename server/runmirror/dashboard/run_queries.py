"""What the page of one run shows."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.overflow import Overflowing

MOST_COUNTED = 250_000  # points of a run that are counted: beyond, the page says "more than"


@dataclass(frozen=True, slots=True)
class Count:
    """What the run holds of a kind; `waiting` has not been mirrored, `overflowed` stands in the overflow file only."""

    what: str
    logged: int
    waiting: int
    overflowed: int = 0

    @property
    def native(self) -> int:
        """What stands in the workspace's run itself."""
        return max(self.logged - self.waiting - self.overflowed, 0)

    @property
    def is_bounded(self) -> bool:
        """Whether nobody counted to the end."""
        return self.what == POINTS and self.logged > MOST_COUNTED


@dataclass(frozen=True, slots=True)
class RunPage:
    """Everything about one run and its row in the queue, by the database's clock."""

    now: datetime
    run_id: UUID
    name: str
    experiment_id: int
    experiment: str
    status: str
    lifecycle_stage: str
    seq: int
    state: str
    partial: bool
    watermark: int
    attempt: int
    behind_since: datetime | None
    due_at: datetime
    mirrored_at: datetime | None
    remote_run_id: str | None
    portal_url: str | None
    last_error: str | None
    last_error_at: datetime | None
    overflow_at: datetime | None
    overflow_is_told: bool
    counts: tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class NotNative:
    """What of a run stands in its overflow file: how many of each kind, and the first of them one by one."""

    counts: dict[str, int]
    first: tuple[Overflowing, ...]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


POINTS = "metric points"

_RUN = text("""
    SELECT now() AS now, run_id, runs.name, runs.experiment_id, experiments.name AS experiment, status,
        runs.lifecycle_stage, runs.seq, state, partial, watermark, attempt, behind_since, due_at, mirrored_at,
        remote_run_id, portal_url, last_error, last_error_at, overflow_at,
        overflow_told >= overflow_seq AS overflow_is_told
    FROM mirrors JOIN runs USING (run_id) JOIN experiments USING (experiment_id)
    WHERE run_id = :run_id
""")

# Points are many: no more are counted than can be shown, and those that overflowed only where there are any.
_COUNTS = text("""
    SELECT
        (SELECT count(*) FROM (SELECT FROM metric_points WHERE run_id = :run_id LIMIT :most) AS counted) AS points,
        (SELECT count(*) FROM (
            SELECT FROM metric_points WHERE run_id = :run_id AND seq > :watermark LIMIT :most
        ) AS counted) AS points_waiting,
        (SELECT count(*) FROM (
            SELECT FROM (
                    SELECT metric_id, min(from_seq) FILTER (WHERE kind <> 'nan') AS since,
                        min(from_seq) FILTER (WHERE kind = 'nan') AS nan_since
                    FROM mirror_overflows JOIN latest_metrics USING (run_id, key)
                    WHERE run_id = :run_id AND kind IN ('metric', 'points', 'nan') AND :partial
                    GROUP BY metric_id) AS away
                JOIN metric_points m ON run_id = :run_id AND m.metric_id = away.metric_id AND seq <= :watermark
                    AND (seq >= since OR (value = 'NaN' AND seq >= nan_since))
            LIMIT :most) AS counted) AS points_away,
        params.*, tags.*, datasets.*, files.*
    FROM (
            SELECT count(*) AS params, count(*) FILTER (WHERE seq > :watermark) AS params_waiting,
                count(kind) FILTER (WHERE seq <= :watermark) AS params_away
            FROM params LEFT JOIN mirror_overflows o ON o.run_id = :run_id AND o.kind = 'param' AND o.key = params.key
            WHERE params.run_id = :run_id) AS params,
        (
            SELECT count(*) AS tags, count(*) FILTER (WHERE seq > :watermark) AS tags_waiting,
                count(kind) FILTER (WHERE seq <= :watermark) AS tags_away
            FROM tags LEFT JOIN mirror_overflows o ON o.run_id = :run_id AND o.kind = 'tag' AND o.key = tags.key
            WHERE tags.run_id = :run_id AND value IS NOT NULL AND NOT starts_with(tags.key, 'runmirror.')) AS tags,
        (
            SELECT count(*) AS datasets, count(*) FILTER (WHERE seq > :watermark) AS datasets_waiting,
                count(kind) FILTER (WHERE seq <= :watermark) AS datasets_away
            FROM dataset_inputs i LEFT JOIN mirror_overflows o ON o.run_id = :run_id AND o.kind = 'dataset'
                AND o.key = replace(CAST(i.dataset_id AS text), '-', '')
            WHERE i.run_id = :run_id) AS datasets,
        (
            SELECT count(*) AS files, count(*) FILTER (WHERE seq > :watermark) AS files_waiting,
                COALESCE(sum(size_bytes), 0)::bigint AS bytes,
                COALESCE(sum(size_bytes) FILTER (WHERE seq > :watermark), 0)::bigint AS bytes_waiting
            FROM artifacts WHERE run_id = :run_id AND NOT deleted) AS files
""")

# The first of each kind, so that thousands of params do not hide the one tag.
_NOT_NATIVE = text("""
    SELECT kind, COALESCE(datasets.name, placed.key) AS key, from_seq, reason, number
    FROM (
            SELECT kind, key, from_seq, reason, count(*) OVER (PARTITION BY kind) AS number,
                row_number() OVER (PARTITION BY kind ORDER BY from_seq, key) AS place
            FROM mirror_overflows WHERE run_id = :run_id) AS placed
        LEFT JOIN datasets ON dataset_id = CASE WHEN kind = 'dataset' THEN CAST(placed.key AS uuid) END
    WHERE place <= :most ORDER BY kind, place
""")


async def run(connection: AsyncConnection, run_id: UUID) -> RunPage | None:
    """One run; None when there is none."""
    row = (await connection.execute(_RUN, {"run_id": run_id})).one_or_none()
    if row is None:
        return None
    wanted = {"run_id": run_id, "watermark": row.watermark, "partial": row.partial, "most": MOST_COUNTED + 1}
    found = (await connection.execute(_COUNTS, wanted)).one()
    counts = (
        Count(POINTS, found.points, found.points_waiting, found.points_away),
        Count("params", found.params, found.params_waiting, found.params_away),
        Count("tags", found.tags, found.tags_waiting, found.tags_away),
        Count("datasets", found.datasets, found.datasets_waiting, found.datasets_away),
        Count("files", found.files, found.files_waiting),
        Count("bytes", found.bytes, found.bytes_waiting),
    )
    return RunPage(**row._asdict(), counts=counts)


async def not_native(connection: AsyncConnection, run_id: UUID, most: int) -> NotNative:
    """What overflowed, the first `most` of each kind by write; a dataset by its name."""
    rows = (await connection.execute(_NOT_NATIVE, {"run_id": run_id, "most": most})).all()
    counts = {row.kind: row.number for row in rows}
    return NotNative(counts, tuple(Overflowing(*row[:4]) for row in rows))

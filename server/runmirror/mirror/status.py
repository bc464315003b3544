"""How the mirror is doing: for the status routes and `runmirror status`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.model_status import ModelCounts, ModelMirror, model_counts, model_mirrors

NOT_LINKED = "not_linked"
OK = "ok"
OUTAGE = "outage"
_MOST_IN_TROUBLE = 5


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """`lag_s`: for how long the run that waits longest has been behind; rates are means over five minutes.

    Models are registered ones.
    """

    state: str
    workspace_id: str | None
    portal_base: str | None
    linked_at: datetime | None
    last_contact_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    runs_behind: int
    runs_quarantined: int
    runs_partial: int
    models: ModelCounts
    models_in_trouble: Sequence[ModelMirror]
    learned_limits: dict[str, int]
    lag_s: float | None
    points_per_s: float
    bytes_per_s: float
    runs_per_minute: float


@dataclass(frozen=True, slots=True)
class RunMirrorStatus:
    """How far one run is copied: complete when `watermark` is `seq` and the state is current."""

    run_id: UUID
    state: str
    seq: int
    watermark: int
    attempt: int
    behind_since: datetime | None
    due_at: datetime
    mirrored_at: datetime | None
    remote_experiment_id: str | None
    remote_run_id: str | None
    portal_url: str | None
    last_error: str | None
    last_error_at: datetime | None
    partial: bool
    overflow_at: datetime | None
    overflow_is_told: bool


# Quarantined runs stay behind, so the index on behind_since finds them too.
_STATUS = text("""
    SELECT link.workspace_id, link.portal_base, link.linked_at, link.last_contact_at, link.last_error,
        link.last_error_at, behind.runs, behind.quarantined, behind.lag_s,
        sent.points, sent.bytes, sent.runs AS sent_runs,
        (SELECT count(*) FROM mirrors WHERE partial) AS partial,
        (SELECT jsonb_object_agg(name, value) FROM mirror_limits) AS learned
    FROM (
            SELECT count(*) FILTER (WHERE state <> 'quarantined') AS runs,
                count(*) FILTER (WHERE state = 'quarantined') AS quarantined,
                extract(epoch FROM now() - min(behind_since) FILTER (WHERE state <> 'quarantined')) AS lag_s
            FROM mirrors WHERE behind_since IS NOT NULL) AS behind
        CROSS JOIN (
            SELECT COALESCE(sum(points), 0) AS points, COALESCE(sum(bytes), 0) AS bytes, COALESCE(sum(runs), 0) AS runs
            FROM mirror_throughput WHERE minute > now() - interval '5 minutes') AS sent
        LEFT JOIN mirror_links AS link ON link.link_id = 1
""").columns(learned=JSONB)

_RUN_STATUS = text("""
    SELECT run_id, state, seq, watermark, attempt, behind_since, due_at, mirrored_at, remote_experiment_id,
        remote_run_id, portal_url, last_error, last_error_at, partial, overflow_at,
        overflow_told >= overflow_seq AS overflow_is_told
    FROM mirrors JOIN runs USING (run_id) WHERE run_id = :run_id
""")

_NOTE_OUTAGE = text("UPDATE mirror_links SET last_error = :error, last_error_at = now() WHERE link_id = 1")

_NOTE_CONTACT = text("""
    UPDATE mirror_links SET last_contact_at = now(), last_error = NULL, last_error_at = NULL WHERE link_id = 1
""")


async def mirror_status(connection: AsyncConnection) -> MirrorStatus:
    """The mirror as a whole, in three statements."""
    row = (await connection.execute(_STATUS)).one()
    models = await model_counts(connection)
    in_trouble = await model_mirrors(connection, in_trouble=True, most=_MOST_IN_TROUBLE)
    state = NOT_LINKED if row.workspace_id is None else OUTAGE if row.last_error is not None else OK
    return MirrorStatus(
        state=state,
        workspace_id=row.workspace_id,
        portal_base=row.portal_base,
        linked_at=row.linked_at,
        last_contact_at=row.last_contact_at,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
        runs_behind=row.runs,
        runs_quarantined=row.quarantined,
        runs_partial=row.partial,
        models=models,
        models_in_trouble=in_trouble,
        learned_limits=row.learned or {},
        lag_s=None if row.lag_s is None else float(row.lag_s),
        points_per_s=float(row.points) / 300,
        bytes_per_s=float(row.bytes) / 300,
        runs_per_minute=float(row.sent_runs) / 5,
    )


async def run_status(connection: AsyncConnection, run_id: UUID) -> RunMirrorStatus | None:
    """One run's mirror; None when there is no such run."""
    row = (await connection.execute(_RUN_STATUS, {"run_id": run_id})).one_or_none()
    return None if row is None else RunMirrorStatus(*row)


async def note_outage(connection: AsyncConnection, error: str) -> None:
    """Show why nothing can be mirrored."""
    await connection.execute(_NOTE_OUTAGE, {"error": error})


async def note_contact(connection: AsyncConnection) -> None:
    """Show that the workspace answers."""
    await connection.execute(_NOTE_CONTACT)

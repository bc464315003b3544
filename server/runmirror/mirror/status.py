"""How the mirror is doing: for the status routes and `runmirror status`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.model_status import ModelCounts, ModelMirror, model_counts, model_mirrors

NOT_LINKED = "not_linked"
OK = "ok"
OUTAGE = "outage"
_MOST_IN_TROUBLE = 5


@dataclass(frozen=True, slots=True)
class WorkspaceStatus:
    """One linked workspace. `backfill_s`: at least so long until its past is mirrored; None while that is paused."""

    name: str
    state: str
    workspace_id: str
    portal_base: str | None
    experiments: tuple[str, ...]
    is_default: bool
    linked_at: datetime
    last_contact_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    runs_behind: int
    runs_quarantined: int
    runs_partial: int
    learned_limits: dict[str, int]
    lag_s: float | None
    backfill_runs: int
    backfill_s: float | None


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """The counts are of all workspaces together; what describes one is of the default workspace, else of the first.

    `state` is that of the worst. `lag_s`: for how long the run that waits longest has been behind; rates are means over
    five minutes. Models are registered ones.
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
    runs_off: int
    runs_unrouted: int
    models: ModelCounts
    models_in_trouble: Sequence[ModelMirror]
    learned_limits: dict[str, int]
    lag_s: float | None
    points_per_s: float
    bytes_per_s: float
    runs_per_minute: float
    workspaces: tuple[WorkspaceStatus, ...] = ()


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
    workspace: str | None
    backfill: bool
    azure_run_id: str | None = None  # of a run that was born in a workspace


# Quarantined runs stay behind, so the index on behind_since finds them too.
_STATUS = text("""
    SELECT behind.runs, behind.quarantined, behind.lag_s, behind.unrouted,
        sent.points, sent.bytes, sent.runs AS sent_runs,
        (SELECT count(*) FROM mirrors WHERE partial) AS partial,
        (SELECT count(*) FROM mirrors WHERE state = 'off') AS off
    FROM (
            SELECT count(*) FILTER (WHERE state <> 'quarantined') AS runs,
                count(*) FILTER (WHERE state = 'quarantined') AS quarantined,
                count(*) FILTER (WHERE link_id IS NULL) AS unrouted,
                extract(epoch FROM now() - min(behind_since) FILTER (WHERE state <> 'quarantined')) AS lag_s
            FROM mirrors WHERE behind_since IS NOT NULL) AS behind
        CROSS JOIN (
            SELECT COALESCE(sum(points), 0) AS points, COALESCE(sum(bytes), 0) AS bytes, COALESCE(sum(runs), 0) AS runs
            FROM mirror_throughput WHERE minute > now() - interval '5 minutes') AS sent
""")

_WORKSPACES = text("""
    SELECT link.name, link.workspace_id, link.portal_base, link.experiments, link.is_default, link.linked_at,
        link.last_contact_at, link.last_error, link.last_error_at, behind.lag_s,
        COALESCE(behind.runs, 0) AS runs, COALESCE(behind.quarantined, 0) AS quarantined,
        COALESCE(behind.past, 0) AS past, COALESCE(partly.runs, 0) AS partial, limits.learned
    FROM mirror_links AS link
        LEFT JOIN (
            SELECT link_id, count(*) FILTER (WHERE state <> 'quarantined') AS runs,
                count(*) FILTER (WHERE state = 'quarantined') AS quarantined,
                count(*) FILTER (WHERE backfill AND state IN ('due', 'leased')) AS past,
                extract(epoch FROM now() - min(behind_since) FILTER (WHERE state <> 'quarantined')) AS lag_s
            FROM mirrors WHERE behind_since IS NOT NULL GROUP BY link_id) AS behind USING (link_id)
        LEFT JOIN (
            SELECT link_id, count(*) AS runs FROM mirrors WHERE partial GROUP BY link_id) AS partly USING (link_id)
        LEFT JOIN (
            SELECT link_id, jsonb_object_agg(name, value) AS learned FROM mirror_limits GROUP BY link_id
        ) AS limits USING (link_id)
    ORDER BY position, link_id
""").columns(learned=JSONB)

_RUN_STATUS = text("""
    SELECT run_id, state, seq, watermark, attempt, behind_since, due_at, mirrored_at, remote_experiment_id,
        remote_run_id, portal_url, last_error, last_error_at, partial, overflow_at,
        overflow_told >= overflow_seq AS overflow_is_told,
        (SELECT name FROM mirror_links WHERE mirror_links.link_id = mirrors.link_id) AS workspace, backfill,
        azure_run_id
    FROM mirrors JOIN runs USING (run_id) WHERE run_id = :run_id
""")

_OF_LINK = "link_id = COALESCE(CAST(:link_id AS integer), link_id)"

_NOTE_OUTAGE = text(f"UPDATE mirror_links SET last_error = :error, last_error_at = now() WHERE {_OF_LINK}")  # noqa: S608

_NOTE_CONTACT = text(f"""
    UPDATE mirror_links SET last_contact_at = now(), last_error = NULL, last_error_at = NULL WHERE {_OF_LINK}
""")  # noqa: S608 - a constant of ours


async def mirror_status(connection: AsyncConnection, backfill_rate: float = 10) -> MirrorStatus:
    """The mirror as a whole and by workspace, in four statements; `backfill_rate` as in the settings."""
    row = (await connection.execute(_STATUS)).one()
    models = await model_counts(connection)
    in_trouble = await model_mirrors(connection, in_trouble=True, most=_MOST_IN_TROUBLE)
    linked = [_workspace(link, backfill_rate) for link in await connection.execute(_WORKSPACES)]
    shown = next((link for link in linked if link.is_default), linked[0] if linked else None)
    failing = next((link for link in (shown, *linked) if link is not None and link.state == OUTAGE), None)
    return MirrorStatus(
        state=NOT_LINKED if shown is None else OK if failing is None else OUTAGE,
        workspace_id=shown.workspace_id if shown else None,
        portal_base=shown.portal_base if shown else None,
        linked_at=shown.linked_at if shown else None,
        last_contact_at=shown.last_contact_at if shown else None,
        last_error=failing.last_error if failing else None,
        last_error_at=failing.last_error_at if failing else None,
        runs_behind=row.runs,
        runs_quarantined=row.quarantined,
        runs_partial=row.partial,
        runs_off=row.off,
        runs_unrouted=row.unrouted,
        models=models,
        models_in_trouble=in_trouble,
        learned_limits=shown.learned_limits if shown else {},
        lag_s=None if row.lag_s is None else float(row.lag_s),
        points_per_s=float(row.points) / 300,
        bytes_per_s=float(row.bytes) / 300,
        runs_per_minute=float(row.sent_runs) / 5,
        workspaces=tuple(linked),
    )


def _workspace(row: Row[Any], backfill_rate: float) -> WorkspaceStatus:
    return WorkspaceStatus(
        name=row.name,
        state=OK if row.last_error is None else OUTAGE,
        workspace_id=row.workspace_id,
        portal_base=row.portal_base,
        experiments=tuple(row.experiments),
        is_default=row.is_default,
        linked_at=row.linked_at,
        last_contact_at=row.last_contact_at,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
        runs_behind=row.runs,
        runs_quarantined=row.quarantined,
        runs_partial=row.partial,
        learned_limits=row.learned or {},
        lag_s=None if row.lag_s is None else float(row.lag_s),
        backfill_runs=row.past,
        backfill_s=row.past / backfill_rate if backfill_rate > 0 else 0 if row.past == 0 else None,
    )


async def run_status(connection: AsyncConnection, run_id: UUID) -> RunMirrorStatus | None:
    """One run's mirror; None when there is no such run."""
    row = (await connection.execute(_RUN_STATUS, {"run_id": run_id})).one_or_none()
    return None if row is None else RunMirrorStatus(*row)


async def note_outage(connection: AsyncConnection, error: str, *, link_id: int | None = None) -> None:
    """Show why nothing can be mirrored into a workspace, or into any."""
    await connection.execute(_NOTE_OUTAGE, {"error": error, "link_id": link_id})


async def note_contact(connection: AsyncConnection, *, link_id: int | None = None) -> None:
    """Show that a workspace, or every one, answers."""
    await connection.execute(_NOTE_CONTACT, {"link_id": link_id})

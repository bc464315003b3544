"""What the status routes answer."""

from datetime import datetime
from typing import Self

from runmirror.mirror.model_wire import ModelMirrorAnswer
from runmirror.mirror.overflow import PATH, Overflowing
from runmirror.mirror.overflow_queries import Report
from runmirror.mirror.status import MirrorStatus, RunMirrorStatus, WorkspaceStatus
from runmirror.mirror.verify.wire import RunVerificationAnswer, VerificationAnswer
from runmirror.run_ids import shown_id
from runmirror.wire import Wire


class WorkspaceAnswer(Wire):
    """One linked workspace. `backfill_seconds`: so long at least until its past is mirrored; null while paused."""

    name: str
    state: str
    workspace_id: str
    portal_url: str | None = None
    experiments: list[str]
    is_default: bool
    linked_at: datetime
    last_contact_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    runs_behind: int
    runs_quarantined: int
    runs_partial: int
    learned_limits: dict[str, int]
    lag_seconds: float | None = None
    backfill_runs: int
    backfill_seconds: float | None = None

    @classmethod
    def of(cls, status: WorkspaceStatus) -> Self:
        return cls(
            name=status.name,
            state=status.state,
            workspace_id=status.workspace_id,
            portal_url=status.portal_base,
            experiments=list(status.experiments),
            is_default=status.is_default,
            linked_at=status.linked_at,
            last_contact_at=status.last_contact_at,
            last_error=status.last_error,
            last_error_at=status.last_error_at,
            runs_behind=status.runs_behind,
            runs_quarantined=status.runs_quarantined,
            runs_partial=status.runs_partial,
            learned_limits=status.learned_limits,
            lag_seconds=status.lag_s,
            backfill_runs=status.backfill_runs,
            backfill_seconds=status.backfill_s,
        )


class MirrorStatusAnswer(Wire):
    """`state` is `not_linked`, `ok` or `outage`; times are UTC; rates are means over the last five minutes.

    Counts are of all workspaces together, what describes a workspace is of the default one; `workspaces` tells of each.
    `runs_unrouted` are behind and have no workspace to go to; `runs_off` were told to stay out.
    Models are registered ones; the first in trouble are told in full.
    """

    state: str
    workspace_id: str | None = None
    portal_url: str | None = None
    linked_at: datetime | None = None
    last_contact_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    runs_behind: int
    runs_quarantined: int
    runs_partial: int
    runs_off: int
    runs_unrouted: int
    models_behind: int
    models_quarantined: int
    models_partial: int
    models_in_trouble: list[ModelMirrorAnswer]
    learned_limits: dict[str, int]
    lag_seconds: float | None = None
    points_per_second: float
    bytes_per_second: float
    runs_per_minute: float
    workspaces: list[WorkspaceAnswer]
    verification: VerificationAnswer | None = None

    @classmethod
    def of(cls, status: MirrorStatus) -> Self:
        return cls(
            state=status.state,
            workspace_id=status.workspace_id,
            portal_url=status.portal_base,
            linked_at=status.linked_at,
            last_contact_at=status.last_contact_at,
            last_error=status.last_error,
            last_error_at=status.last_error_at,
            runs_behind=status.runs_behind,
            runs_quarantined=status.runs_quarantined,
            runs_partial=status.runs_partial,
            runs_off=status.runs_off,
            runs_unrouted=status.runs_unrouted,
            models_behind=status.models.behind,
            models_quarantined=status.models.quarantined,
            models_partial=status.models.partial,
            models_in_trouble=[ModelMirrorAnswer.of(model) for model in status.models_in_trouble],
            learned_limits=status.learned_limits,
            lag_seconds=status.lag_s,
            points_per_second=status.points_per_s,
            bytes_per_second=status.bytes_per_s,
            runs_per_minute=status.runs_per_minute,
            workspaces=[WorkspaceAnswer.of(workspace) for workspace in status.workspaces],
        )


class OverflowingAnswer(Wire):
    """`reason` is the name of a limit, or Azure's own words; of a metric, its points from the write `from_seq` on."""

    kind: str
    key: str
    from_seq: int
    reason: str

    @classmethod
    def of(cls, entry: Overflowing) -> Self:
        return cls(kind=entry.kind, key=entry.key, from_seq=entry.from_seq, reason=entry.reason)


class OverflowAnswer(Wire):
    """What of a run stands in the artifact `path` and not in the run itself; `first` lists no more than a thousand.

    `is_written`: the artifact tells of all writes up to the run's watermark.
    """

    path: str
    written_at: datetime | None = None
    is_written: bool
    counts: dict[str, int]
    first: list[OverflowingAnswer]


class RunMirrorAnswer(Wire):
    """`state` is `current`, `due`, `leased`, `quarantined` or `off`; `watermark` of `seq` writes are in the workspace.

    `workspace` is the name of the link that it goes to; `backfill`: it waits behind live runs.

    `overflow` is there when the workspace holds the run only in part (`partial`).
    """

    run_id: str
    state: str
    seq: int
    watermark: int
    attempt: int
    behind_since: datetime | None = None
    due_at: datetime
    mirrored_at: datetime | None = None
    remote_experiment_id: str | None = None
    remote_run_id: str | None = None
    portal_url: str | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    partial: bool
    workspace: str | None = None
    backfill: bool
    overflow: OverflowAnswer | None = None
    verification: RunVerificationAnswer | None = None  # what was found when the copy was last read back

    @classmethod
    def of(cls, status: RunMirrorStatus, report: Report | None = None) -> Self:
        return cls(
            run_id=shown_id(status.run_id, status.azure_run_id),
            state=status.state,
            seq=status.seq,
            watermark=status.watermark,
            attempt=status.attempt,
            behind_since=status.behind_since,
            due_at=status.due_at,
            mirrored_at=status.mirrored_at,
            remote_experiment_id=status.remote_experiment_id,
            remote_run_id=status.remote_run_id,
            portal_url=status.portal_url,
            last_error=status.last_error,
            last_error_at=status.last_error_at,
            partial=status.partial,
            workspace=status.workspace,
            backfill=status.backfill,
            overflow=None
            if report is None
            else OverflowAnswer(
                path=PATH,
                written_at=status.overflow_at,
                is_written=status.overflow_is_told,
                counts=report.counts,
                first=[OverflowingAnswer.of(entry) for entry in report.first],
            ),
        )

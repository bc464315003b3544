"""The mirror queue is one row per run: a run is behind or it is not.

    current ──write──▶ due ──claim──▶ leased ──finish──▶ current (or due: written meanwhile)
                        ▲               ├──postpone, release, or the lease expires──▶ due
                        └──replay── quarantined ◀──quarantine──┘

A run is due from its creation, linked or not: linking a workspace later finds the past in the queue. Whoever holds a
lease names its token in every change; with the token gone to another, nothing changes and `LeaseLost` is raised. Only
the database's clock is asked. Whoever changes rows of several tables does so in the order runs, mirrors, tags.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

CHANNEL = "runmirror_due"

STATUS_TAG = "runmirror.status"
REMOTE_RUN_TAG = "runmirror.azureml.run_id"
PORTAL_TAG = "runmirror.azureml.portal_url"


class LeaseLost(Exception):
    """The run belongs to another worker by now: stop, and say nothing."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One run, held: `sent_upto` above `watermark` says that metrics up to there were sent, perhaps.

    `may_exist`: somebody may have created its remote run before, without living to write down which one it is.
    """

    run_id: UUID
    token: UUID
    watermark: int
    info_watermark: int
    sent_upto: int
    attempt: int
    remote_experiment_id: str | None
    remote_run_id: str | None
    may_exist: bool = True


# A run with this token was never held by anybody; whoever lets go of a run, or starts it anew, leaves none at all. It
# is the number of Postgres' timeline, which is another one after a failover or the restoring of a backup: either may
# have forgotten that somebody held the run.
_NEVER_HELD = "CAST(lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 32, '0') AS uuid)"

_CREATE = text(f"INSERT INTO mirrors (run_id, lease_token) VALUES (:run_id, {_NEVER_HELD})")  # noqa: S608

# A statement of its own, after the one that locked the run: its snapshot sees a `finish` that came in between.
_MARK_BEHIND = text(f"""
    WITH woken AS (
        UPDATE mirrors SET state = 'due', waiting = false, due_at = now(), behind_since = COALESCE(behind_since, now())
        WHERE run_id = :run_id AND (state = 'current' OR (state = 'due' AND waiting))
        RETURNING run_id),
    shown AS (
        UPDATE tags SET value = 'pending' FROM woken
        WHERE tags.run_id = woken.run_id AND tags.key = '{STATUS_TAG}' AND tags.seq = 0)
    SELECT pg_notify('{CHANNEL}', '') FROM woken
""")  # noqa: S608 - constants of ours

_MARK_EXPERIMENT_BEHIND = text(f"""
    WITH woken AS (
        UPDATE mirrors m
        SET state = 'due', waiting = false, due_at = now(), behind_since = COALESCE(behind_since, now())
        FROM runs r
        WHERE r.experiment_id = :experiment_id AND m.run_id = r.run_id
            AND (m.state = 'current' OR (m.state = 'due' AND m.waiting))
        RETURNING m.run_id),
    shown AS (
        UPDATE tags SET value = 'pending' FROM woken
        WHERE tags.run_id = woken.run_id AND tags.key = '{STATUS_TAG}' AND tags.seq = 0)
    SELECT pg_notify('{CHANNEL}', '') FROM woken LIMIT 1
""")  # noqa: S608

_NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', '')")

# What a crashed worker held comes first. It waits out `settle` as well: its last request may still be taking effect.
# A worker that serves another workspace than the linked one finds nothing. The new token says for good that somebody
# may have created a remote run, before anybody can try to: only who comes first may leave out the search for it.
_CLAIM = text(f"""
    WITH expired AS (
        SELECT run_id, true AS may_exist FROM mirrors
        WHERE state = 'leased' AND lease_expires_at <= now() - CAST(:settle AS interval)
        ORDER BY lease_expires_at LIMIT :most
        FOR UPDATE SKIP LOCKED),
    due AS (
        SELECT run_id, lease_token IS DISTINCT FROM {_NEVER_HELD} AS may_exist FROM mirrors
        WHERE state = 'due' AND due_at <= now() - CAST(:debounce AS interval)
        ORDER BY due_at LIMIT (SELECT GREATEST(:most - count(*), 0) FROM expired)
        FOR UPDATE SKIP LOCKED),
    taken AS (SELECT run_id, may_exist FROM expired UNION ALL SELECT run_id, may_exist FROM due)
    UPDATE mirrors m
    SET state = 'leased', waiting = false, lease_token = gen_random_uuid(),
        lease_expires_at = now() + CAST(:ttl AS interval)
    FROM taken
    WHERE m.run_id = taken.run_id
        AND EXISTS (SELECT FROM mirror_links WHERE lower(workspace_id) = lower(:workspace_id))
    RETURNING m.run_id, lease_token, watermark, info_watermark, sent_upto, attempt, remote_experiment_id,
        remote_run_id, may_exist
""")  # noqa: S608

_NEXT = text("""
    SELECT extract(epoch FROM LEAST(
        (SELECT min(due_at) + CAST(:debounce AS interval) FROM mirrors WHERE state = 'due'),
        (SELECT min(lease_expires_at) + CAST(:settle AS interval) FROM mirrors WHERE state = 'leased')) - now())
""")


def _fenced(changes: str) -> TextClause:
    return text(f"""
        UPDATE mirrors SET {changes}
        WHERE run_id = :run_id AND lease_token = :token AND state = 'leased'
        RETURNING state
    """)  # noqa: S608 - `changes` are constants of this module


def _fenced_and_shown(changes: str, shown: str) -> TextClause:
    """Both in one statement, which locks as everybody does: runs, mirrors, tags; `run.seq` is that of the locked row.

    The tags have seq 0: they never start a new round of mirroring.
    """
    return text(f"""
        WITH run AS MATERIALIZED (SELECT run_id, seq FROM runs WHERE run_id = :run_id FOR NO KEY UPDATE),
        held AS (
            UPDATE mirrors m SET {changes} FROM run
            WHERE m.run_id = run.run_id AND lease_token = :token AND state = 'leased'
            RETURNING m.run_id, state, partial),
        shown AS (
            INSERT INTO tags (run_id, key, value, seq) SELECT run_id, key, value, 0 FROM ({shown}) AS new
            ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value, seq = 0
            WHERE tags.value IS DISTINCT FROM excluded.value)
        SELECT state FROM held
    """)  # noqa: S608 - constants of this module


_LET_GO = "lease_token = NULL, lease_expires_at = NULL"
_FAILED = """
    last_error = COALESCE(CAST(:error AS text), last_error),
    last_error_at = CASE WHEN CAST(:error AS text) IS NULL THEN last_error_at ELSE now() END"""
_RENEW = _fenced("lease_expires_at = now() + CAST(:ttl AS interval)")
_NOTED = """
    sent_upto = GREATEST(sent_upto, :sent_upto), overflow_seq = GREATEST(overflow_seq, :overflow_seq),
    points = COALESCE(CAST(:points AS jsonb), points), points_upto = GREATEST(points_upto, :points_upto)"""
_BIND = _fenced_and_shown(
    f"""remote_experiment_id = :experiment_id, remote_run_id = CAST(:remote_run_id AS text), portal_url = :portal_url,
    {_NOTED}""",
    "SELECT run_id, key, value FROM held, unnest(CAST(:keys AS text[]), CAST(:values AS text[])) AS tag (key, value)",
)
_NOTE = _fenced(_NOTED)
_OVERFLOW_TOLD = _fenced("overflow_told = GREATEST(overflow_told, :overflow_seq), overflow_at = now()")
_ADVANCE = _fenced("""
    watermark = :watermark, sent_upto = GREATEST(sent_upto, :watermark), attempt = 0,
    lease_expires_at = now() + CAST(:ttl AS interval)
""")
_IS_CURRENT = "run.seq = :watermark AND CAST(:wait AS interval) IS NULL"
_IS_WAITING = "run.seq = :watermark AND CAST(:wait AS interval) IS NOT NULL"
_FINISH = _fenced_and_shown(
    f"""watermark = :watermark, info_watermark = :info_watermark, sent_upto = :watermark, attempt = 0,
    last_error = NULL, last_error_at = NULL, state = CASE WHEN {_IS_CURRENT} THEN 'current' ELSE 'due' END,
    waiting = {_IS_WAITING}, partial = :partial,
    due_at = now() + CASE WHEN {_IS_WAITING} THEN CAST(:wait AS interval) ELSE interval '0' END,
    behind_since = CASE WHEN {_IS_CURRENT} THEN NULL ELSE behind_since END,
    mirrored_at = CASE WHEN {_IS_CURRENT} THEN now() ELSE mirrored_at END, {_LET_GO}""",
    f"""SELECT run_id, '{STATUS_TAG}' AS key,
        CASE WHEN state <> 'current' THEN 'pending' WHEN partial THEN 'partial' ELSE 'mirrored' END AS value
        FROM held""",  # noqa: S608
)
_RELEASE = _fenced(f"state = 'due', due_at = now() + CAST(:wait AS interval), {_FAILED}, {_LET_GO}")
_POSTPONE = _fenced(
    f"state = 'due', due_at = now() + CAST(:wait AS interval), attempt = attempt + 1, {_FAILED}, {_LET_GO}"
)
_QUARANTINE = _fenced_and_shown(
    f"state = 'quarantined', {_FAILED}, {_LET_GO}",
    f"SELECT run_id, '{STATUS_TAG}' AS key, 'quarantined' AS value FROM held",  # noqa: S608
)


async def add(connection: AsyncConnection, run_id: UUID) -> None:
    """A new run is behind: the workspace does not have it."""
    await connection.execute(_CREATE, {"run_id": run_id})
    await connection.execute(_NOTIFY)


async def mark_behind(connection: AsyncConnection, run_id: UUID) -> None:
    """Ask for a run to be mirrored, in the transaction of the write and under the run's row lock."""
    await connection.execute(_MARK_BEHIND, {"run_id": run_id})


async def mark_experiment_behind(connection: AsyncConnection, experiment_id: int) -> None:
    """`mark_behind` for all runs of an experiment, whose rows the caller has locked."""
    await connection.execute(_MARK_EXPERIMENT_BEHIND, {"experiment_id": experiment_id})


async def claim(
    connection: AsyncConnection,
    *,
    workspace_id: str,
    most: int,
    ttl: timedelta,
    debounce: timedelta,
    settle: timedelta,
) -> list[Lease]:
    """Lease up to `most` runs that nobody holds, the longest waiting first; writes younger than `debounce` wait."""
    rows = await connection.execute(
        _CLAIM, {"workspace_id": workspace_id, "most": most, "ttl": ttl, "debounce": debounce, "settle": settle}
    )
    return [Lease(*row) for row in rows]


async def seconds_to_next(connection: AsyncConnection, *, debounce: timedelta, settle: timedelta) -> float | None:
    """How long until `claim` can find something; None when nothing waits."""
    seconds = await connection.scalar(_NEXT, {"debounce": debounce, "settle": settle})
    return None if seconds is None else float(seconds)


async def renew(connection: AsyncConnection, lease: Lease, ttl: timedelta) -> None:
    """Hold the lease for another `ttl`."""
    await _if_held(connection, lease, _RENEW, ttl=ttl)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is about to be done.

    Metrics up to `sent_upto` are about to be sent: after a crash nobody can tell which of them arrived. The overflow
    file has to tell of the writes up to `overflow_seq`; `points`, if they changed, are counted up to `points_upto`.
    """

    sent_upto: int = 0
    overflow_seq: int = 0
    points: Mapping[str, int] | None = None
    points_upto: int = 0

    def values(self) -> dict[str, object]:
        points = None if self.points is None else json.dumps(dict(self.points))
        return {
            "sent_upto": self.sent_upto, "overflow_seq": self.overflow_seq, "points": points,
            "points_upto": self.points_upto,
        }  # fmt: skip


async def bind(
    connection: AsyncConnection,
    lease: Lease,
    plan: Plan,
    *,
    experiment_id: str,
    remote_run_id: str,
    portal_url: str | None,
) -> Lease:
    """Remember which run of the workspace is ours, and the plan, before more is sent."""
    values = {"experiment_id": experiment_id, "remote_run_id": remote_run_id, "portal_url": portal_url}
    tags = {STATUS_TAG: "pending", REMOTE_RUN_TAG: remote_run_id} | ({PORTAL_TAG: portal_url} if portal_url else {})
    await _if_held(
        connection, lease, _BIND, **values, **plan.values(), keys=list(tags), values=list(tags.values())
    )  # fmt: skip
    return replace(
        lease,
        remote_experiment_id=experiment_id,
        remote_run_id=remote_run_id,
        sent_upto=max(lease.sent_upto, plan.sent_upto),
    )


async def note(connection: AsyncConnection, lease: Lease, plan: Plan) -> Lease:
    """Write the plan down."""
    await _if_held(connection, lease, _NOTE, **plan.values())
    return replace(lease, sent_upto=max(lease.sent_upto, plan.sent_upto))


async def note_overflow_told(connection: AsyncConnection, lease: Lease, *, overflow_seq: int) -> None:
    """The overflow file is in the target, as of that write."""
    await _if_held(connection, lease, _OVERFLOW_TOLD, overflow_seq=overflow_seq)


async def advance(connection: AsyncConnection, lease: Lease, *, watermark: int, ttl: timedelta) -> Lease:
    """The target has everything up to `watermark`; the lease begins anew."""
    await _if_held(connection, lease, _ADVANCE, watermark=watermark, ttl=ttl)
    return replace(lease, watermark=watermark, sent_upto=max(lease.sent_upto, watermark), attempt=0)


async def finish(
    connection: AsyncConnection,
    lease: Lease,
    *,
    watermark: int,
    info_watermark: int,
    partial: bool = False,
    wait: timedelta | None = None,
) -> bool:
    """Let go of a run whose writes up to `watermark` are mirrored: current, or due again if it was written meanwhile.

    The run's lock makes the two cases exclude each other: a write that has bumped seq is seen here, and one that comes
    after finds the run current and marks it behind. `partial`: some of it stands in the overflow file only. `wait`:
    that file is not up to date, and is looked at again after so long.
    """
    state = await _if_held(
        connection, lease, _FINISH, watermark=watermark, info_watermark=info_watermark, wait=wait, partial=partial
    )
    return state == "current"


async def release(connection: AsyncConnection, lease: Lease, *, wait: timedelta, error: str | None = None) -> None:
    """Give the run back, due after `wait`, without blaming it."""
    await _if_held(connection, lease, _RELEASE, wait=wait, error=error)


async def postpone(connection: AsyncConnection, lease: Lease, *, wait: timedelta, error: str) -> None:
    """Give the run back, due after `wait`, one attempt poorer."""
    await _if_held(connection, lease, _POSTPONE, wait=wait, error=error)


async def quarantine(connection: AsyncConnection, lease: Lease, *, reason: str) -> None:
    """Set the run aside: nobody claims it until it is replayed."""
    await _if_held(connection, lease, _QUARANTINE, error=reason)


async def _if_held(connection: AsyncConnection, lease: Lease, change: TextClause, **values: object) -> str:
    """The fence: a worker whose lease has passed to another changes nothing. The state the run has now."""
    held = {"run_id": lease.run_id, "token": lease.token}
    state: str | None = await connection.scalar(change, {**held, **values})
    if state is None:
        raise LeaseLost(lease.run_id.hex)
    return state

"""The mirror queue is one row per run: a run is behind or it is not.

    current ──write──▶ due ──claim──▶ leased ──finish──▶ current (or due: written meanwhile)
                        ▲               ├──postpone, release, or the lease expires──▶ due
                        └──replay── quarantined ◀──quarantine──┘
    any ──told to stay out──▶ off ──told to come back──▶ due

A run is due from its creation, linked or not: linking a workspace later finds the past in the queue, where it waits
behind live runs (`backfill`). Before a run can be claimed it is decided for which workspace, see
`runmirror.mirror.destinations`: only that changes what is `unrouted`, and makes a run `off` or takes it back. Whoever
holds a lease names its token in every change; with the token gone to another, nothing changes and `LeaseLost` is
raised. Only the database's clock is asked. Whoever changes rows of several tables does so in the order runs, mirrors,
tags.

How a worker takes runs is in `runmirror.mirror.claims`, `replay` in `runmirror.mirror.quarantine`. A current run whose
copy lacks something becomes due again by a repair: see `runmirror.mirror.verify.records`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ARRAY, TextClause, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.own_tags import PORTAL_TAG, REMOTE_RUN_TAG, ROUTING_TAGS, STATUS_TAG

CHANNEL = "runmirror_due"


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
    link_id: int
    backfill: bool
    may_exist: bool = True


ADOPTION_SEQ = 1
"""The write with which an adopted run begins: what stood in the workspace already, so it is never sent there."""

# A run with this token was never held by anybody; whoever lets go of a run, or starts it anew, leaves none at all. It
# is the number of Postgres' timeline, which is another one after a failover or the restoring of a backup: either may
# have forgotten that somebody held the run.
NEVER_HELD = "CAST(lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 32, '0') AS uuid)"

_CREATE = text(f"INSERT INTO mirrors (run_id, lease_token) VALUES (:run_id, {NEVER_HELD})")  # noqa: S608

# Due all the same: the workspace has yet to hear which server adopted the run.
_ADOPT = text(f"""
    INSERT INTO mirrors (
        run_id, link_id, watermark, info_watermark, sent_upto, remote_experiment_id, remote_run_id, portal_url, points,
        points_upto)
    VALUES (
        :run_id, :link_id, {ADOPTION_SEQ}, {ADOPTION_SEQ}, {ADOPTION_SEQ}, :experiment_id, :remote_run_id, :portal_url,
        CAST(:points AS jsonb), {ADOPTION_SEQ})
""")  # noqa: S608 - a constant of ours

_SET_TAGS = text("""
    INSERT INTO tags (run_id, key, value, seq)
    SELECT :run_id, key, value, 0 FROM unnest(CAST(:keys AS text[]), CAST(:values AS text[])) AS new (key, value)
    ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value, seq = 0
    WHERE tags.value IS DISTINCT FROM excluded.value
""")

# What wakes a run is a function of Postgres, see migration 0013: hot writes call it as well, from functions of theirs.
# A statement of its own, after the one that locked the run: it sees a `finish` that came in between.
_MARK_BEHIND = text("SELECT runmirror_mark_behind_1(ARRAY[CAST(:run_id AS uuid)])")

_MARK_EXPERIMENT_BEHIND = text("""
    SELECT runmirror_mark_behind_1(ARRAY(SELECT run_id FROM runs WHERE experiment_id = :experiment_id))
""")

_MARK_UNROUTED = text(f"""
    WITH marked AS (
        UPDATE mirrors SET
            unrouted = 'live',
            due_at = CASE WHEN link_id IS NULL AND state = 'due' THEN GREATEST(due_at, now()) ELSE due_at END
        WHERE run_id = :run_id RETURNING run_id)
    SELECT pg_notify('{CHANNEL}', '') FROM marked
""")  # noqa: S608

# A run that is to be decided as a live one stays so.
_MARK_EXPERIMENT_UNROUTED = text(f"""
    WITH marked AS (
        UPDATE mirrors SET unrouted = COALESCE(unrouted, 'past')
        WHERE run_id IN (SELECT run_id FROM runs WHERE experiment_id = :experiment_id) RETURNING run_id)
    SELECT pg_notify('{CHANNEL}', '') FROM marked LIMIT 1
""")  # noqa: S608

_NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', '')")

_LOST = text("""
    SELECT held.run_id FROM unnest(:run_ids, :tokens) AS held (run_id, token)
    WHERE NOT EXISTS (
        SELECT FROM mirrors
        WHERE run_id = held.run_id AND lease_token = held.token AND state = 'leased' AND unrouted IS NULL)
""").bindparams(bindparam("run_ids", type_=ARRAY(Uuid)), bindparam("tokens", type_=ARRAY(Uuid)))

# A run that was told to stay out, or to go elsewhere, is not worked on until that is decided.
_FENCE = "state = 'leased' AND unrouted IS NULL"


def _fenced(changes: str, *, fence: str = _FENCE) -> TextClause:
    return text(f"""
        UPDATE mirrors SET {changes}
        WHERE run_id = :run_id AND lease_token = :token AND {fence}
        RETURNING state
    """)  # noqa: S608 - both are constants of this module


def _fenced_and_shown(changes: str, shown: str) -> TextClause:
    """Both in one statement, which locks as everybody does: runs, mirrors, tags; `run.seq` is that of the locked row.

    The tags have seq 0: they never start a new round of mirroring.
    """
    return text(f"""
        WITH run AS MATERIALIZED (SELECT run_id, seq FROM runs WHERE run_id = :run_id FOR NO KEY UPDATE),
        held AS (
            UPDATE mirrors m SET {changes} FROM run
            WHERE m.run_id = run.run_id AND lease_token = :token AND {_FENCE}
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
    behind_since = CASE WHEN {_IS_CURRENT} THEN NULL ELSE behind_since END, backfill = backfill AND NOT ({_IS_CURRENT}),
    mirrored_at = CASE WHEN {_IS_CURRENT} THEN now() ELSE mirrored_at END, {_LET_GO}""",
    f"""SELECT run_id, '{STATUS_TAG}' AS key,
        CASE WHEN state <> 'current' THEN 'pending' WHEN partial THEN 'partial' ELSE 'mirrored' END AS value
        FROM held""",  # noqa: S608
)
# Letting go is always possible: of a run that is off by now as well.
_RELEASE = _fenced(
    f"""
    state = CASE WHEN state = 'leased' THEN 'due' ELSE state END, due_at = now() + CAST(:wait AS interval), {_FAILED},
    {_LET_GO}""",
    fence="state IN ('leased', 'off')",
)
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


async def adopt(
    connection: AsyncConnection, run_id: UUID, *, link_id: int, remote_experiment_id: str, remote_run_id: str,
    portal_url: str | None, points: str,
) -> None:  # fmt: skip
    """A new run that the workspace has, and has all of; `points`, as JSON, is how many of each metric."""
    await connection.execute(
        _ADOPT,
        {
            "run_id": run_id, "link_id": link_id, "experiment_id": remote_experiment_id,
            "remote_run_id": remote_run_id, "portal_url": portal_url, "points": points,
        },
    )  # fmt: skip
    await _set_tags(connection, run_id, _bound(remote_run_id, portal_url))
    await connection.execute(_NOTIFY)


async def mark_behind(connection: AsyncConnection, run_id: UUID) -> None:
    """Ask for a run to be mirrored, in the transaction of the write and under the run's row lock."""
    await connection.execute(_MARK_BEHIND, {"run_id": run_id})


async def mark_experiment_behind(connection: AsyncConnection, experiment_id: int) -> None:
    """`mark_behind` for all runs of an experiment, whose rows the caller has locked."""
    await connection.execute(_MARK_EXPERIMENT_BEHIND, {"experiment_id": experiment_id})


async def mark_unrouted(connection: AsyncConnection, run_id: UUID, tags: Iterable[str]) -> None:
    """Before the run's `tags` change, under its lock: if they say where it goes, that is decided anew."""
    if not ROUTING_TAGS.isdisjoint(tags):
        await connection.execute(_MARK_UNROUTED, {"run_id": run_id})


async def mark_experiment_unrouted(
    connection: AsyncConnection, experiment_id: int, tags: Iterable[str] = ROUTING_TAGS
) -> None:
    """`mark_unrouted` for all runs of an experiment, whose row the caller has locked."""
    if not ROUTING_TAGS.isdisjoint(tags):
        await connection.execute(_MARK_EXPERIMENT_UNROUTED, {"experiment_id": experiment_id})


async def lost(connection: AsyncConnection, leases: Sequence[Lease]) -> set[UUID]:
    """The runs of leases that passed to another, or that nobody may hold."""
    held = {"run_ids": [lease.run_id for lease in leases], "tokens": [lease.token for lease in leases]}
    return set(await connection.scalars(_LOST, held))


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
    tags = _bound(remote_run_id, portal_url)
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


def _bound(remote_run_id: str, portal_url: str | None) -> dict[str, str]:
    shown = {STATUS_TAG: "pending", REMOTE_RUN_TAG: remote_run_id}
    return shown | ({PORTAL_TAG: portal_url} if portal_url else {})


async def _set_tags(connection: AsyncConnection, run_id: UUID, tags: dict[str, str]) -> None:
    """Show the state at the run itself. These writes have seq 0: they never start a new round of mirroring."""
    await connection.execute(_SET_TAGS, {"run_id": run_id, "keys": list(tags), "values": list(tags.values())})

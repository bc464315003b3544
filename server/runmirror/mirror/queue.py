"""The mirror queue is one row per run: a run is behind or it is not.

    current ──write──▶ due ──claim──▶ leased ──finish──▶ current (or due: written meanwhile)
                        ▲               ├──postpone, release, or the lease expires──▶ due
                        └──replay── quarantined ◀──quarantine──┘

A run is due from its creation, linked or not: linking a workspace later finds the past in the queue. Whoever holds a
lease names its token in every change; with the token gone to another, nothing changes and `LeaseLost` is raised. Only
the database's clock is asked. Whoever changes rows of several tables does so in the order runs, mirrors, tags.
"""

import json
from collections.abc import Mapping, Sequence
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
    """One run, held: `sent_upto` above `watermark` says that metrics up to there were sent, perhaps."""

    run_id: UUID
    token: UUID
    watermark: int
    info_watermark: int
    sent_upto: int
    attempt: int
    remote_experiment_id: str | None
    remote_run_id: str | None


_CREATE = text("INSERT INTO mirrors (run_id) VALUES (:run_id)")

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
# A worker that serves another workspace than the linked one finds nothing.
_CLAIM = text("""
    WITH expired AS (
        SELECT run_id FROM mirrors
        WHERE state = 'leased' AND lease_expires_at <= now() - CAST(:settle AS interval)
        ORDER BY lease_expires_at LIMIT :most
        FOR UPDATE SKIP LOCKED),
    turns AS (
        SELECT run_id FROM mirrors
        WHERE run_id = ANY(CAST(:turns AS uuid[]))
            AND state = 'due' AND due_at <= now() - CAST(:debounce AS interval)
        LIMIT (SELECT GREATEST(:most - count(*), 0) FROM expired)
        FOR UPDATE SKIP LOCKED),
    due AS (
        SELECT run_id FROM mirrors
        WHERE state = 'due' AND due_at <= now() - CAST(:debounce AS interval)
            AND run_id <> ALL(CAST(:turns AS uuid[]))
        ORDER BY due_at
        LIMIT (SELECT GREATEST(:most - (SELECT count(*) FROM expired) - (SELECT count(*) FROM turns), 0))
        FOR UPDATE SKIP LOCKED)
    UPDATE mirrors
    SET state = 'leased', waiting = false, lease_token = gen_random_uuid(),
        lease_expires_at = now() + CAST(:ttl AS interval)
    WHERE run_id IN (SELECT run_id FROM expired UNION ALL SELECT run_id FROM turns UNION ALL SELECT run_id FROM due)
        AND EXISTS (SELECT FROM mirror_links WHERE lower(workspace_id) = lower(:workspace_id))
    RETURNING run_id, lease_token, watermark, info_watermark, sent_upto, attempt, remote_experiment_id, remote_run_id
""")

_OLDEST_OF_EACH = text("""
    SELECT run_id FROM (
        SELECT DISTINCT ON (experiment_id) run_id, due_at FROM mirrors JOIN runs USING (run_id)
        WHERE state = 'due' AND due_at <= now() - CAST(:debounce AS interval)
        ORDER BY experiment_id, due_at) AS oldest
    ORDER BY due_at
""")

_NEXT = text("""
    SELECT extract(epoch FROM LEAST(
        (SELECT min(due_at) + CAST(:debounce AS interval) FROM mirrors WHERE state = 'due'),
        (SELECT min(lease_expires_at) + CAST(:settle AS interval) FROM mirrors WHERE state = 'leased')) - now())
""")

_LOCK_RUN = text("SELECT seq FROM runs WHERE run_id = :run_id FOR NO KEY UPDATE")

_SET_TAGS = text("""
    INSERT INTO tags (run_id, key, value, seq)
    SELECT :run_id, key, value, 0 FROM unnest(CAST(:keys AS text[]), CAST(:values AS text[])) AS new (key, value)
    ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value, seq = 0
    WHERE tags.value IS DISTINCT FROM excluded.value
""")


def _fenced(changes: str) -> TextClause:
    return text(f"""
        UPDATE mirrors SET {changes}
        WHERE run_id = :run_id AND lease_token = :token AND state = 'leased'
        RETURNING state
    """)  # noqa: S608 - `changes` are constants of this module


_LET_GO = "lease_token = NULL, lease_expires_at = NULL"
_FAILED = """
    last_error = COALESCE(CAST(:error AS text), last_error),
    last_error_at = CASE WHEN CAST(:error AS text) IS NULL THEN last_error_at ELSE now() END"""
_RENEW = _fenced("lease_expires_at = now() + CAST(:ttl AS interval)")
_BIND = _fenced("""
    remote_experiment_id = :experiment_id, remote_run_id = :remote_run_id, portal_url = :portal_url,
    sent_upto = GREATEST(sent_upto, :sent_upto)
""")
_NOTE = _fenced("""
    sent_upto = GREATEST(sent_upto, :sent_upto), overflow_seq = GREATEST(overflow_seq, :overflow_seq),
    points = CAST(:points AS jsonb), points_upto = GREATEST(points_upto, :points_upto)
""")
_OVERFLOW_TOLD = _fenced("overflow_told = GREATEST(overflow_told, :overflow_seq), overflow_at = now()")
_ADVANCE = _fenced("""
    watermark = :watermark, sent_upto = GREATEST(sent_upto, :watermark), attempt = 0,
    lease_expires_at = now() + CAST(:ttl AS interval)
""")
_FINISH = _fenced(f"""
    watermark = :watermark, info_watermark = :info_watermark, sent_upto = :watermark, attempt = 0, last_error = NULL,
    last_error_at = NULL, state = CASE WHEN :current THEN 'current' ELSE 'due' END,
    waiting = :waiting, due_at = now() + CAST(:wait AS interval), partial = :partial,
    behind_since = CASE WHEN :current THEN NULL ELSE behind_since END,
    mirrored_at = CASE WHEN :current THEN now() ELSE mirrored_at END, {_LET_GO}
""")
_RELEASE = _fenced(f"state = 'due', due_at = now() + CAST(:wait AS interval), {_FAILED}, {_LET_GO}")
_POSTPONE = _fenced(
    f"state = 'due', due_at = now() + CAST(:wait AS interval), attempt = attempt + 1, {_FAILED}, {_LET_GO}"
)
_QUARANTINE = _fenced(f"state = 'quarantined', {_FAILED}, {_LET_GO}")


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
    turns: Sequence[UUID] = (),
) -> list[Lease]:
    """Lease up to `most` runs that nobody holds; writes younger than `debounce` wait.

    Those whose turn it is come before the others, of which the longest waiting come first.
    """
    values = {"workspace_id": workspace_id, "most": most, "ttl": ttl, "debounce": debounce, "settle": settle}
    rows = await connection.execute(_CLAIM, values | {"turns": list(turns)})
    return [Lease(*row) for row in rows]


async def oldest_of_each_experiment(connection: AsyncConnection, *, debounce: timedelta) -> list[UUID]:
    """Of each experiment the run that has been due for longest, the longest of them first."""
    return list(await connection.scalars(_OLDEST_OF_EACH, {"debounce": debounce}))


async def seconds_to_next(connection: AsyncConnection, *, debounce: timedelta, settle: timedelta) -> float | None:
    """How long until `claim` can find something; None when nothing waits."""
    seconds = await connection.scalar(_NEXT, {"debounce": debounce, "settle": settle})
    return None if seconds is None else float(seconds)


async def renew(connection: AsyncConnection, lease: Lease, ttl: timedelta) -> None:
    """Hold the lease for another `ttl`."""
    await _if_held(connection, lease, _RENEW, ttl=ttl)


async def bind(
    connection: AsyncConnection,
    lease: Lease,
    *,
    experiment_id: str,
    remote_run_id: str,
    portal_url: str | None,
    sent_upto: int,
) -> Lease:
    """Remember which run of the workspace is ours, and up to where it may have our metrics, before more is sent."""
    await _lock_run(connection, lease)
    values = {"experiment_id": experiment_id, "remote_run_id": remote_run_id, "portal_url": portal_url}
    await _if_held(connection, lease, _BIND, **values, sent_upto=sent_upto)
    shown = {STATUS_TAG: "pending", REMOTE_RUN_TAG: remote_run_id}
    await _set_tags(connection, lease, shown | ({PORTAL_TAG: portal_url} if portal_url else {}))
    return replace(
        lease,
        remote_experiment_id=experiment_id,
        remote_run_id=remote_run_id,
        sent_upto=max(lease.sent_upto, sent_upto),
    )


async def note(
    connection: AsyncConnection,
    lease: Lease,
    *,
    sent_upto: int,
    overflow_seq: int,
    points: Mapping[str, int],
    points_upto: int,
) -> Lease:
    """Write down what is about to be done.

    Metrics up to `sent_upto` are about to be sent: after a crash nobody can tell which of them arrived. The overflow
    file has to tell of the writes up to `overflow_seq`; `points` are counted up to `points_upto`.
    """
    values = {"sent_upto": sent_upto, "overflow_seq": overflow_seq, "points_upto": points_upto}
    await _if_held(connection, lease, _NOTE, **values, points=json.dumps(dict(points)))
    return replace(lease, sent_upto=max(lease.sent_upto, sent_upto))


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
    is_caught_up = await _lock_run(connection, lease) == watermark
    current, waiting = is_caught_up and wait is None, is_caught_up and wait is not None
    await _if_held(
        connection, lease, _FINISH, watermark=watermark, info_watermark=info_watermark, current=current,
        waiting=waiting, wait=wait if waiting else timedelta(0), partial=partial,
    )  # fmt: skip
    shown = "pending" if not current else "partial" if partial else "mirrored"
    await _set_tags(connection, lease, {STATUS_TAG: shown})
    return current


async def release(connection: AsyncConnection, lease: Lease, *, wait: timedelta, error: str | None = None) -> None:
    """Give the run back, due after `wait`, without blaming it."""
    await _if_held(connection, lease, _RELEASE, wait=wait, error=error)


async def postpone(connection: AsyncConnection, lease: Lease, *, wait: timedelta, error: str) -> None:
    """Give the run back, due after `wait`, one attempt poorer."""
    await _if_held(connection, lease, _POSTPONE, wait=wait, error=error)


async def quarantine(connection: AsyncConnection, lease: Lease, *, reason: str) -> None:
    """Set the run aside: nobody claims it until it is replayed."""
    await _lock_run(connection, lease)
    await _if_held(connection, lease, _QUARANTINE, error=reason)
    await _set_tags(connection, lease, {STATUS_TAG: "quarantined"})


async def _lock_run(connection: AsyncConnection, lease: Lease) -> int:
    seq: int | None = await connection.scalar(_LOCK_RUN, {"run_id": lease.run_id})
    if seq is None:
        raise LeaseLost(lease.run_id.hex)
    return seq


async def _if_held(connection: AsyncConnection, lease: Lease, change: TextClause, **values: object) -> None:
    """The fence: a worker whose lease has passed to another changes nothing."""
    held = {"run_id": lease.run_id, "token": lease.token}
    if await connection.scalar(change, {**held, **values}) is None:
        raise LeaseLost(lease.run_id.hex)


async def _set_tags(connection: AsyncConnection, lease: Lease, tags: dict[str, str]) -> None:
    """Show the state at the run itself. These writes have seq 0: they never start a new round of mirroring."""
    await connection.execute(_SET_TAGS, {"run_id": lease.run_id, "keys": list(tags), "values": list(tags.values())})

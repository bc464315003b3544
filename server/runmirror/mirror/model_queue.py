"""The mirror queue of registered models: one row each, in the states of `runmirror.mirror.queue`.

A registered model is behind until the workspace has its versions, tags, aliases, stages and descriptions; one that is
deleted here stays as a row, because what it became in the workspace is still there. A model whose version waits for the
files of a run is not claimed until the run's own mirror is that far. Where it goes, and whether it is `off`, is decided
before it is claimed: see `runmirror.mirror.model_places`.

Whoever changes rows of several tables does so in the order registered_models, mirrored_models.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.queue import CHANNEL, LeaseLost


@dataclass(frozen=True, slots=True)
class ModelLease:
    """One registered model, held."""

    model: int
    link_id: int
    token: UUID
    attempt: int
    remote_name: str | None
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """A version waits until the workspace has the run's writes up to `seq`.

    The versions after it wait as well, so that numbers there are those here, unless nobody mirrors the run now
    (`is_aside`), as one in quarantine.
    """

    run_id: UUID
    seq: int
    is_aside: bool


_MARK_BEHIND = text(f"""
    WITH behind AS (
        INSERT INTO mirrored_models AS mirror (registered_model_id) VALUES (:model)
        ON CONFLICT (registered_model_id) DO UPDATE
        SET state = 'due', due_at = now(), behind_since = COALESCE(mirror.behind_since, now()), waits_run_id = NULL,
            waits_seq = NULL, attempt = 0
        WHERE mirror.state IN ('current', 'quarantined') OR (mirror.state = 'due' AND mirror.waits_run_id IS NOT NULL)
        RETURNING mirror.registered_model_id)
    SELECT pg_notify('{CHANNEL}', '') FROM behind
""")  # noqa: S608 - constants of ours

_MARK_DELETED = text(f"""
    WITH behind AS (
        UPDATE mirrored_models SET
            deleted = true, waits_run_id = NULL, waits_seq = NULL,
            state = CASE WHEN state IN ('leased', 'off') THEN state ELSE 'due' END, due_at = now(),
            behind_since = CASE WHEN state <> 'off' THEN COALESCE(behind_since, now()) END
        WHERE registered_model_id = :model
        RETURNING registered_model_id)
    SELECT pg_notify('{CHANNEL}', '') FROM behind
""")  # noqa: S608

_ADOPT = text("""
    INSERT INTO mirrored_models (registered_model_id) SELECT registered_model_id FROM registered_models
    ON CONFLICT (registered_model_id) DO NOTHING
""")

_IS_LINKED = """
    mirror.link_id IN (
        SELECT link_id FROM mirror_links
        WHERE CAST(:workspace_id AS text) IS NULL OR lower(workspace_id) = lower(CAST(:workspace_id AS text)))
"""

# A run that is gone for good, or to another workspace, is waited for by nobody: then the version is told to have no
# files here.
_IS_READY = """
    (waits_run_id IS NULL OR NOT EXISTS (SELECT FROM mirrors WHERE run_id = waits_run_id) OR EXISTS (
        SELECT FROM mirrors AS run
        WHERE run.run_id = waits_run_id AND run.unrouted IS NULL AND (
            (run.remote_run_id IS NOT NULL AND run.watermark >= waits_seq)
            OR run.link_id <> mirror.link_id
            OR ((run.state NOT IN ('current', 'due', 'leased') OR run.link_id IS NULL) AND NOT waits_aside))))
"""

_CLAIM = text(f"""
    WITH found AS (
        SELECT registered_model_id FROM mirrored_models AS mirror
        WHERE {_IS_LINKED} AND (
            (state = 'due' AND due_at <= now() - CAST(:debounce AS interval) AND {_IS_READY})
            OR (state = 'leased' AND lease_expires_at <= now() - CAST(:settle AS interval)))
        ORDER BY due_at LIMIT :most
        FOR UPDATE SKIP LOCKED)
    UPDATE mirrored_models
    SET state = 'leased', lease_token = gen_random_uuid(), lease_expires_at = now() + CAST(:ttl AS interval)
    WHERE registered_model_id IN (SELECT registered_model_id FROM found)
    RETURNING registered_model_id, link_id, lease_token, attempt, remote_name, told
""").columns(told=JSONB)  # noqa: S608

_NEXT = text(f"""
    SELECT extract(epoch FROM LEAST(
        (SELECT min(due_at) + CAST(:debounce AS interval) FROM mirrored_models AS mirror
         WHERE state = 'due' AND {_IS_LINKED} AND {_IS_READY}),
        (SELECT min(lease_expires_at) + CAST(:settle AS interval) FROM mirrored_models AS mirror
         WHERE state = 'leased' AND {_IS_LINKED})) - now())
""")  # noqa: S608

_LOCK_MODEL = text("SELECT seq FROM registered_models WHERE registered_model_id = :model FOR NO KEY UPDATE")


def _fenced(changes: str, where: str = "true") -> TextClause:
    return text(f"""
        UPDATE mirrored_models AS mirror SET {changes}
        WHERE registered_model_id = :model AND lease_token = :token AND state = 'leased' AND {where}
        RETURNING registered_model_id
    """)  # noqa: S608 - constants of this module


_LET_GO = "lease_token = NULL, lease_expires_at = NULL"
_FAILED = "last_error = COALESCE(CAST(:error AS text), last_error), last_error_at = now()"
_RENEW = _fenced("lease_expires_at = now() + CAST(:ttl AS interval)")
_BIND = _fenced(
    "remote_name = :name",
    """NOT EXISTS (
        SELECT FROM mirrored_models AS other
        WHERE other.link_id = mirror.link_id AND other.remote_name = :name AND NOT other.deleted
            AND other.registered_model_id <> :model)""",
)
_TELL = _fenced("told = CAST(:told AS jsonb), lease_expires_at = now() + CAST(:ttl AS interval)")
_FINISH = _fenced(f"""
    watermark = :seq, told = CAST(:told AS jsonb), problems = CAST(:problems AS jsonb), attempt = 0,
    last_error = NULL, last_error_at = NULL,
    waits_run_id = :waits_run_id, waits_seq = :waits_seq, waits_aside = :waits_aside, due_at = now(),
    state = CASE WHEN :current THEN 'current' ELSE 'due' END,
    behind_since = CASE WHEN :current THEN NULL ELSE behind_since END,
    mirrored_at = CASE WHEN :current THEN now() ELSE mirrored_at END, {_LET_GO}
""")
_RELEASE = _fenced(f"state = 'due', due_at = now() + CAST(:wait AS interval), {_FAILED}, {_LET_GO}")
_POSTPONE = _fenced(
    f"state = 'due', due_at = now() + CAST(:wait AS interval), attempt = attempt + 1, {_FAILED}, {_LET_GO}"
)
_QUARANTINE = _fenced(f"state = 'quarantined', {_FAILED}, {_LET_GO}")

_REPLAY = text(f"""
    WITH replayed AS (
        UPDATE mirrored_models AS mirror
        SET state = 'due', due_at = now(), behind_since = COALESCE(behind_since, now()), attempt = 0
        WHERE (
                state = 'quarantined'
                OR (state = 'current' AND (problems <> '[]' OR EXISTS (
                    SELECT FROM mirrored_versions AS version
                    WHERE version.registered_model_id = mirror.registered_model_id AND problem IS NOT NULL))))
            AND (CAST(:name AS text) IS NULL OR registered_model_id = (
                SELECT registered_model_id FROM registered_models WHERE name = :name))
        RETURNING registered_model_id)
    SELECT registered_model_id, pg_notify('{CHANNEL}', '') FROM replayed
""")  # noqa: S608

_SAVE_VERSION = text("""
    INSERT INTO mirrored_versions AS known (registered_model_id, version, remote_version, problem)
    VALUES (:model, :version, :remote_version, :problem)
    ON CONFLICT (registered_model_id, version) DO UPDATE
    SET remote_version = excluded.remote_version, problem = excluded.problem
""")


async def mark_behind(connection: AsyncConnection, model: int) -> None:
    """Ask for a registered model to be mirrored, in the transaction of the write and under the model's row lock.

    One that was set aside gets another chance: the write may be what cures it.
    """
    await connection.execute(_MARK_BEHIND, {"model": model})


async def mark_deleted(connection: AsyncConnection, model: int) -> None:
    """Note that it is gone here, in the transaction that erases it."""
    await connection.execute(_MARK_DELETED, {"model": model})


async def adopt(connection: AsyncConnection) -> None:
    """Queue the registered models from before there was this queue."""
    await connection.execute(_ADOPT)


async def claim(
    connection: AsyncConnection, *, workspace_id: str, most: int, ttl: timedelta, debounce: timedelta, settle: timedelta
) -> list[ModelLease]:
    """Lease up to `most` registered models of a workspace that nobody holds and that wait for nothing."""
    values = {"workspace_id": workspace_id, "most": most, "ttl": ttl, "debounce": debounce, "settle": settle}
    return [ModelLease(*row) for row in await connection.execute(_CLAIM, values)]


async def seconds_to_next(
    connection: AsyncConnection, *, debounce: timedelta, settle: timedelta, workspace_id: str | None = None
) -> float | None:
    """How long until `claim` can find something, for one workspace or any; None when nothing waits for the clock."""
    seconds = await connection.scalar(_NEXT, {"debounce": debounce, "settle": settle, "workspace_id": workspace_id})
    return None if seconds is None else float(seconds)


async def renew(connection: AsyncConnection, lease: ModelLease, ttl: timedelta) -> None:
    await _if_held(connection, lease, _RENEW, ttl=ttl)


async def bind(connection: AsyncConnection, lease: ModelLease, name: str) -> ModelLease | None:
    """Take a name in the workspace; None if another registered model of ours has it."""
    held = {"model": lease.model, "token": lease.token, "name": name}
    if await connection.scalar(_BIND, held) is None:
        return None
    return replace(lease, remote_name=name)


async def tell(connection: AsyncConnection, lease: ModelLease, told: Mapping[str, Any], ttl: timedelta) -> ModelLease:
    """Note what is about to be set there, so that it can be taken away again."""
    await _if_held(connection, lease, _TELL, told=json.dumps(told), ttl=ttl)
    return replace(lease, told=told)


async def save_version(
    connection: AsyncConnection,
    lease: ModelLease,
    version: int,
    *,
    ttl: timedelta,
    remote_version: str | None,
    problem: str | None = None,
) -> None:
    """Remember which version there is ours, or why none is."""
    await renew(connection, lease, ttl)
    values = {"model": lease.model, "version": version, "remote_version": remote_version, "problem": problem}
    await connection.execute(_SAVE_VERSION, values)


async def finish(
    connection: AsyncConnection,
    lease: ModelLease,
    *,
    seq: int,
    told: Mapping[str, Any],
    wait: Wait | None = None,
    problems: Sequence[str] = (),
) -> None:
    """Let go of a model mirrored up to `seq`: current, or due again if it was written meanwhile or has to wait.

    `seq` 0: it was found deleted here. `problems`: what of it the workspace refuses, in its words.
    """
    current = (await connection.scalar(_LOCK_MODEL, {"model": lease.model}) or 0) == seq and wait is None
    await _if_held(
        connection, lease, _FINISH, seq=seq, told=json.dumps(told), current=current, problems=json.dumps([*problems]),
        waits_run_id=wait.run_id if wait else None, waits_seq=wait.seq if wait else None,
        waits_aside=wait is not None and wait.is_aside,
    )  # fmt: skip


async def release(connection: AsyncConnection, lease: ModelLease, *, wait: timedelta, error: str | None) -> None:
    """Give the model back, due after `wait`, without blaming it."""
    await _if_held(connection, lease, _RELEASE, wait=wait, error=error)


async def postpone(connection: AsyncConnection, lease: ModelLease, *, wait: timedelta, error: str) -> None:
    """Give the model back, due after `wait`, one attempt poorer."""
    await _if_held(connection, lease, _POSTPONE, wait=wait, error=error)


async def quarantine(connection: AsyncConnection, lease: ModelLease, *, reason: str) -> None:
    """Set the model aside until it is written again."""
    await _if_held(connection, lease, _QUARANTINE, error=reason)


async def replay(connection: AsyncConnection, name: str | None = None) -> int:
    """Try those again that were set aside, or of which something was refused; how many that are."""
    return len((await connection.execute(_REPLAY, {"name": name})).all())


async def _if_held(connection: AsyncConnection, lease: ModelLease, change: TextClause, **values: object) -> None:
    if await connection.scalar(change, {"model": lease.model, "token": lease.token, **values}) is None:
        raise LeaseLost(f"registered model {lease.model}")


def union(*many: Iterable[str]) -> list[str]:
    return sorted({one for some in many for one in some})

"""All SQL of deployments."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth.clauses import model_is_readable, readers_values
from runmirror.deployments.entities import Deployment, Kind, Spec, State
from runmirror.mirror.queue import LeaseLost

_OPEN = "('waiting', 'creating', 'deploying', 'deleting')"
_ENDED = "('deleted', 'replaced')"
_COLUMNS = """
    deployment_id, created_at, updated_at, created_by, workspace_id, target, name, registered_model_id, model_name,
    version, spec, state, message, history, reason, last_error, remote_name, remote_version, remote_operation,
    scoring_uri, attempt, deadline_at, deadline_at <= now() AS is_late, lease_token
"""
_NOTED = """
    history || jsonb_build_array(jsonb_build_object(
        'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'state', CAST(:state AS text),
        'message', CAST(:message AS text)))
"""

_CREATE = text(f"""
    INSERT INTO deployments (
        created_by, workspace_id, target, name, registered_model_id, model_name, version, spec, state, message, history,
        deadline_at)
    SELECT :created_by, :workspace_id, :target, :name, registered_model_id, name, :version, CAST(:spec AS jsonb),
        :state, :message, {_NOTED.replace("history ||", "CAST('[]' AS jsonb) ||")}, now() + CAST(:within AS interval)
    FROM registered_models WHERE name = :model_name
    RETURNING {_COLUMNS}
""")

# Who deploys under a name takes turns with whoever else does.
_TURN = text("SELECT pg_advisory_xact_lock(hashtext('runmirror.deployments'), hashtext(lower(:workspace_id)))")

_OF_NAME = text(f"""
    SELECT {_COLUMNS} FROM deployments
    WHERE lower(workspace_id) = lower(:workspace_id) AND name = :name AND state NOT IN {_ENDED}
""")

_REPLACE = text(f"""
    UPDATE deployments SET state = :state, message = :message, history = {_NOTED}, updated_at = now()
    WHERE deployment_id = :deployment_id
""")

_DELETE = text(f"""
    UPDATE deployments SET
        state = :state, message = :message, history = {_NOTED}, updated_at = now(), attempt = 0, reason = NULL,
        last_error = NULL, deadline_at = now() + CAST(:within AS interval), lease_token = NULL,
        due_at = GREATEST(now(), lease_expires_at + CAST(:settle AS interval)), lease_expires_at = NULL
    WHERE deployment_id = :deployment_id AND state NOT IN {_ENDED} RETURNING {_COLUMNS}
""")

_LIST = text(f"""
    SELECT {_COLUMNS} FROM deployments
    WHERE (CAST(:name AS text) IS NULL OR name = :name) AND (:ended OR state NOT IN {_ENDED})
        AND {model_is_readable("registered_model_id")}
    ORDER BY created_at DESC, deployment_id DESC LIMIT :most OFFSET :skip
""")

_GET = text(f"""
    SELECT {_COLUMNS} FROM deployments
    WHERE deployment_id = :deployment_id AND {model_is_readable("registered_model_id")}
""")

_CLAIM = text(f"""
    WITH found AS (
        SELECT deployment_id FROM deployments
        WHERE state IN {_OPEN} AND due_at <= now()
            AND (lease_expires_at IS NULL OR lease_expires_at + CAST(:settle AS interval) <= now())
        ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED)
    UPDATE deployments SET lease_token = gen_random_uuid(), lease_expires_at = now() + CAST(:ttl AS interval)
    WHERE deployment_id IN (SELECT deployment_id FROM found) RETURNING {_COLUMNS}
""")

_RENEW = text(f"""
    UPDATE deployments SET lease_expires_at = now() + CAST(:ttl AS interval)
    WHERE deployment_id = :deployment_id AND lease_token = :token AND state IN {_OPEN} RETURNING deployment_id
""")

_RELEASE = text(f"""
    UPDATE deployments SET due_at = now() + CAST(:wait AS interval), lease_token = NULL, lease_expires_at = NULL
    WHERE deployment_id = :deployment_id AND lease_token = :token AND state IN {_OPEN} RETURNING deployment_id
""")

# What is said again word for word is no progress. Of one that waits, the name and number there are still unknown.
_SETTLE = text(f"""
    UPDATE deployments SET
        history = CASE WHEN state = :state AND message = :message THEN history ELSE {_NOTED} END,
        state = :state, message = :message, updated_at = now(), reason = :reason, last_error = :last_error,
        remote_name = COALESCE(:remote_name, remote_name), remote_version = COALESCE(:remote_version, remote_version),
        remote_operation = :remote_operation, scoring_uri = COALESCE(:scoring_uri, scoring_uri), attempt = :attempt,
        due_at = now() + CAST(:wait AS interval), lease_token = NULL, lease_expires_at = NULL
    WHERE deployment_id = :deployment_id AND lease_token = :token AND state IN {_OPEN} RETURNING deployment_id
""")

_IS_OURS = text("""
    SELECT EXISTS (
        SELECT FROM deployments
        WHERE deployment_id = :deployment_id AND lower(workspace_id) = lower(:workspace_id) AND name = :name)
""")

_HAS_WORKER = text("SELECT EXISTS (SELECT FROM mirror_workers WHERE seen_at > now() - interval '1 minute')")

# NULL: the model is gone here, or the version is; else where it goes, and how far it is there.
_PROGRESS = text("""
    SELECT mirror.state, mirror.remote_name, mirror.last_error, mirror.problems, mirror.waits_run_id, link.workspace_id,
        there.remote_version, there.problem, ours.storage_location
    FROM model_versions AS ours
        LEFT JOIN mirrored_models AS mirror USING (registered_model_id)
        LEFT JOIN mirror_links AS link USING (link_id)
        LEFT JOIN mirrored_versions AS there USING (registered_model_id, version)
    WHERE ours.registered_model_id = :model AND ours.version = :version AND current_stage <> 'Deleted_Internal'
""").columns(problems=JSONB)

_PLACE = text("""
    SELECT workspace_id FROM registered_models AS model JOIN mirrored_models USING (registered_model_id)
        JOIN mirror_links USING (link_id)
    WHERE model.name = :name
""")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a model version is on its way into a workspace; `workspace_id` None: nobody knows yet which."""

    state: str | None
    workspace_id: str | None
    remote_name: str | None
    remote_version: str | None
    problem: str | None
    last_error: str | None
    waits_run_id: UUID | None
    storage_location: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step came to: the state from now on, and when the next step is."""

    state: State
    message: str
    wait: timedelta = timedelta(0)
    reason: str | None = None
    last_error: str | None = None
    remote_name: str | None = None
    remote_version: str | None = None
    remote_operation: str | None = None
    scoring_uri: str | None = None
    attempt: int = 0


async def begin(connection: AsyncConnection, workspace_id: str) -> None:
    await connection.execute(_TURN, {"workspace_id": workspace_id})


async def create(
    connection: AsyncConnection, *, created_by: str, workspace_id: str, kind: Kind, name: str, model_name: str,
    version: int, spec: Spec, message: str, within: timedelta,
) -> Deployment | None:  # fmt: skip
    """None when the registered model is gone."""
    values = {
        "created_by": created_by, "workspace_id": workspace_id, "target": str(kind), "name": name,
        "model_name": model_name, "version": version, "spec": json.dumps(spec.as_json()), "state": State.WAITING,
        "message": message, "within": within,
    }  # fmt: skip
    return await _one(connection, _CREATE, values)


async def of_name(connection: AsyncConnection, workspace_id: str, name: str) -> Deployment | None:
    """The one that has the name in the workspace."""
    return await _one(connection, _OF_NAME, {"workspace_id": workspace_id, "name": name})


async def replace(connection: AsyncConnection, deployment_id: UUID, message: str) -> None:
    values = {"deployment_id": deployment_id, "state": State.REPLACED, "message": message}
    await connection.execute(_REPLACE, values)


async def delete(
    connection: AsyncConnection, deployment_id: UUID, *, message: str, within: timedelta, settle: timedelta
) -> Deployment | None:
    """Have it deleted; who holds it now loses it. None: there is none, or nothing is left of it."""
    values = {
        "deployment_id": deployment_id, "state": State.DELETING, "message": message, "within": within,
        "settle": settle,
    }  # fmt: skip
    return await _one(connection, _DELETE, values)


async def newest(
    connection: AsyncConnection, *, name: str | None, ended: bool, most: int, skip: int = 0
) -> list[Deployment]:
    """Those whose models the reader may read; `ended`: also those that are deleted or replaced."""
    values = {"name": name, "ended": ended, "most": most, "skip": skip, **readers_values()}
    return [_deployment(row) for row in await connection.execute(_LIST, values)]


async def get(connection: AsyncConnection, deployment_id: UUID) -> Deployment | None:
    return await _one(connection, _GET, {"deployment_id": deployment_id, **readers_values()})


async def claim(connection: AsyncConnection, *, most: int, ttl: timedelta, settle: timedelta) -> list[Deployment]:
    found = await connection.execute(_CLAIM, {"most": most, "ttl": ttl, "settle": settle})
    return [_deployment(row) for row in found]


async def renew(connection: AsyncConnection, held: Deployment, ttl: timedelta) -> None:
    await _if_held(connection, held, _RENEW, ttl=ttl)


async def release(connection: AsyncConnection, held: Deployment, wait: timedelta) -> None:
    """Let go in the middle of a step, which is done again."""
    await _if_held(connection, held, _RELEASE, wait=wait)


async def settle(connection: AsyncConnection, held: Deployment, outcome: Outcome) -> None:
    """Write down what a step came to, and let go."""
    await _if_held(
        connection, held, _SETTLE, state=outcome.state, message=outcome.message, wait=outcome.wait,
        reason=outcome.reason, last_error=outcome.last_error, remote_name=outcome.remote_name,
        remote_version=outcome.remote_version, remote_operation=outcome.remote_operation,
        scoring_uri=outcome.scoring_uri, attempt=outcome.attempt,
    )  # fmt: skip


async def is_ours(connection: AsyncConnection, held: Deployment, tagged: UUID) -> bool:
    """Whether what carries this id there is an earlier deployment of that name."""
    values = {"deployment_id": tagged, "workspace_id": held.workspace_id, "name": held.name}
    return bool(await connection.scalar(_IS_OURS, values))


async def progress(connection: AsyncConnection, held: Deployment) -> Progress | None:
    """None when the version is not here any more."""
    values = {"model": held.registered_model_id, "version": held.version}
    row = (await connection.execute(_PROGRESS, values)).one_or_none()
    if row is None:
        return None
    error = row.last_error or next(iter(row.problems or []), None)
    return Progress(
        row.state, row.workspace_id, row.remote_name, row.remote_version, row.problem, error, row.waits_run_id,
        row.storage_location,
    )  # fmt: skip


async def place_of_model(connection: AsyncConnection, name: str) -> str | None:
    """The workspace that the registered model goes to, as far as that is decided."""
    found: str | None = await connection.scalar(_PLACE, {"name": name})
    return found


async def has_worker(connection: AsyncConnection) -> bool:
    """Whether a worker has shown a sign of life lately."""
    return bool(await connection.scalar(_HAS_WORKER))


async def _if_held(connection: AsyncConnection, held: Deployment, change: TextClause, **values: object) -> None:
    given = {"deployment_id": held.deployment_id, "token": held.lease_token, **values}
    if await connection.scalar(change, given) is None:
        raise LeaseLost(f"deployment {held.deployment_id}")


async def _one(connection: AsyncConnection, statement: TextClause, values: Mapping[str, Any]) -> Deployment | None:
    row = (await connection.execute(statement, dict(values))).one_or_none()
    return None if row is None else _deployment(row)


def _deployment(row: Row[Any]) -> Deployment:
    held: dict[str, Any] = dict(row._mapping)
    kind, state, spec = Kind(held.pop("target")), State(held.pop("state")), Spec.of(_json(held.pop("spec")))
    history: Sequence[Mapping[str, str]] = _json(held.pop("history"))
    return Deployment(kind=kind, state=state, spec=spec, history=tuple(history), **held)


def _json(held: Any) -> Any:
    """JSONB comes as text where a statement does not name its columns."""
    return json.loads(held) if isinstance(held, str) else held

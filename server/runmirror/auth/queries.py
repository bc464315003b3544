"""SQL that answers who somebody is and what they may do; that of changing it is in `admin_queries`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Text, Uuid, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

# A user with all that decides: their groups, and whether any grant could hide something from them.
_WHO = """
    SELECT u.principal_id AS user_id, u.name, u.is_admin, u.password, of.principals,
        extract(epoch FROM now())::double precision AS now_s,
        (SELECT coalesce(json_object_agg(kind, levels), '{}') FROM (
            SELECT kind, json_build_object(
                'least', min(level), 'everywhere', max(level) FILTER (WHERE resource_id = -1)) AS levels
            FROM grants WHERE principal_id = ANY(of.principals) GROUP BY kind) AS granted) AS granted
"""
_OF = """
    CROSS JOIN LATERAL (
        SELECT array_agg(principal_id) AS principals FROM (
            SELECT u.principal_id
            UNION SELECT group_id FROM memberships WHERE user_id = u.principal_id
            UNION SELECT principal_id FROM principals
                WHERE kind = 'group' AND (name = 'everyone' OR name = ANY(CAST(:claimed AS text[])))) AS all_of) AS of
"""

_BY_TOKEN = text(f"""
    {_WHO}, t.token_id, extract(epoch FROM t.expires_at)::double precision AS expires_s
    FROM tokens t JOIN principals u ON u.principal_id = t.user_id {_OF}
    WHERE t.digest = :digest AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
""").bindparams(bindparam("digest"))

# A session of a pasted token is worth no more than the token.
_BY_SESSION = text(f"""
    {_WHO}, u.description, s.session_id, s.token_id, s.way, s.is_admin AS is_admin_by_role,
        extract(epoch FROM least(s.expires_at, t.expires_at))::double precision AS expires_s
    FROM sessions s JOIN principals u ON u.principal_id = s.user_id LEFT JOIN tokens t ON t.token_id = s.token_id
    {_OF.replace("CAST(:claimed AS text[])", "s.claimed")}
    WHERE s.digest = :digest AND least(s.expires_at, t.expires_at) > now() AND t.revoked_at IS NULL
""").bindparams(bindparam("digest"))

_BY_NAME = text(f"{_WHO} FROM principals u {_OF} WHERE u.kind = 'user' AND u.name = :name")

_FIRST_SEEN = text("""
    INSERT INTO principals (kind, name, description, created_at) VALUES ('user', :name, :description, now())
    ON CONFLICT (kind, name) DO NOTHING
""")

_USED = text("""
    UPDATE tokens SET last_used_at = greatest(last_used_at, used.at)
    FROM unnest(CAST(:token_ids AS bigint[]), CAST(:moments AS timestamptz[])) AS used (token_id, at)
    WHERE tokens.token_id = used.token_id
""")

# What may be done to one resource. All grants that fit count: the highest decides, unless one denies.
LEVEL = """
    (SELECT CASE WHEN min(g.level) < 0 THEN 0 ELSE coalesce(max(g.level), :viewer_default) END FROM grants g
     WHERE g.kind = '{kind}' AND g.resource_id IN ({column}, -1) AND g.principal_id = ANY(:viewer_principals))
"""

_LEVELS = {
    kind: text(
        f"SELECT id, {LEVEL.format(kind=kind, column='id')} AS level FROM unnest(:ids) AS wanted (id)"
    ).bindparams(bindparam("ids", type_=ARRAY(BigInteger)), bindparam("viewer_principals", type_=ARRAY(BigInteger)))
    for kind in ("experiment", "registered_model")
}

_EXPERIMENTS = text(
    "SELECT experiment_id AS id, ARRAY[experiment_id] AS places FROM experiments WHERE experiment_id = ANY(:ids)"
).bindparams(bindparam("ids", type_=ARRAY(BigInteger)))
_EXPERIMENT_NAMES = text(
    "SELECT name AS id, ARRAY[experiment_id] AS places FROM experiments WHERE name = ANY(:ids)"
).bindparams(bindparam("ids", type_=ARRAY(Text)))
_RUNS = text("SELECT run_id AS id, ARRAY[experiment_id] AS places FROM runs WHERE run_id = ANY(:ids)").bindparams(
    bindparam("ids", type_=ARRAY(Uuid))
)
_LOGGED_MODELS = text(
    "SELECT model_id AS id, ARRAY[experiment_id] AS places FROM logged_models WHERE model_id = ANY(:ids)"
).bindparams(bindparam("ids", type_=ARRAY(Text)))
_TRACES = text(
    "SELECT trace_id AS id, ARRAY[experiment_id] AS places FROM traces WHERE trace_id = ANY(:ids)"
).bindparams(bindparam("ids", type_=ARRAY(Text)))
_MODELS = text(
    "SELECT name AS id, ARRAY[registered_model_id] AS places FROM registered_models WHERE name = ANY(:ids)"
).bindparams(bindparam("ids", type_=ARRAY(Text)))
_DATASETS = text("""
    SELECT dataset_id AS id, coalesce(array_agg(experiment_id) FILTER (WHERE experiment_id IS NOT NULL), '{}') AS places
    FROM evaluation_datasets LEFT JOIN evaluation_dataset_experiments USING (dataset_id)
    WHERE dataset_id = ANY(:ids) GROUP BY dataset_id
""").bindparams(bindparam("ids", type_=ARRAY(Text)))

_AROUND = text("""
    SELECT experiment_id FROM experiments WHERE artifact_location = ANY(:locations)
""").bindparams(bindparam("locations", type_=ARRAY(Text)))
_BELOW = text("SELECT experiment_id FROM experiments WHERE starts_with(artifact_location, :location)")

_CREATOR = text("""
    INSERT INTO grants (kind, resource_id, principal_id, level) VALUES (:kind, :resource_id, :user_id, 3)
    ON CONFLICT (kind, resource_id, principal_id) DO UPDATE SET level = excluded.level
""")


async def by_token(connection: AsyncConnection, digest: bytes) -> Row[Any] | None:
    """The user of a token that can be used now."""
    return (await connection.execute(_BY_TOKEN, {"digest": digest, "claimed": []})).one_or_none()


async def by_session(connection: AsyncConnection, digest: bytes) -> Row[Any] | None:
    """The user of a session that has not ended."""
    return (await connection.execute(_BY_SESSION, {"digest": digest})).one_or_none()


async def by_name(connection: AsyncConnection, name: str, claimed: Sequence[str] = ()) -> Row[Any] | None:
    """The user of that name, with the hash of their password; `claimed`: groups that somebody else says they are in."""
    return (await connection.execute(_BY_NAME, {"name": name, "claimed": list(claimed)})).one_or_none()


async def first_seen(connection: AsyncConnection, name: str, description: str) -> None:
    """A user of that name, if there is none."""
    await connection.execute(_FIRST_SEEN, {"name": name, "description": description})


async def note_use(connection: AsyncConnection, used: Mapping[int, datetime]) -> None:
    await connection.execute(_USED, {"token_ids": list(used), "moments": list(used.values())})


async def levels(
    connection: AsyncConnection, kind: str, ids: Sequence[int], principals: Sequence[int], default: int
) -> dict[int, int]:
    """What these principals together may do to each of the resources, existing or not."""
    values = {"ids": list(ids), "viewer_principals": list(principals), "viewer_default": default}
    return {row.id: row.level for row in await connection.execute(_LEVELS[kind], values)}


async def experiments(connection: AsyncConnection, ids: Sequence[int]) -> dict[Any, list[int]]:
    """Of each that is there, the experiments it lies in; so do the functions that follow."""
    return await _places(connection, _EXPERIMENTS, ids)


async def experiments_by_name(connection: AsyncConnection, names: Sequence[str]) -> dict[Any, list[int]]:
    return await _places(connection, _EXPERIMENT_NAMES, names)


async def experiments_of_runs(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[Any, list[int]]:
    return await _places(connection, _RUNS, ids)


async def experiments_of_logged_models(connection: AsyncConnection, ids: Sequence[str]) -> dict[Any, list[int]]:
    return await _places(connection, _LOGGED_MODELS, ids)


async def experiments_of_traces(connection: AsyncConnection, ids: Sequence[str]) -> dict[Any, list[int]]:
    return await _places(connection, _TRACES, ids)


async def experiments_of_datasets(connection: AsyncConnection, ids: Sequence[str]) -> dict[Any, list[int]]:
    """A dataset can be in several experiments, or in none."""
    return await _places(connection, _DATASETS, ids)


async def registered_models(connection: AsyncConnection, names: Sequence[str]) -> dict[Any, list[int]]:
    """Of each name that is taken, the id of the registered model."""
    return await _places(connection, _MODELS, names)


async def experiments_around(connection: AsyncConnection, locations: Sequence[str]) -> list[int]:
    """Those whose artifacts live at one of these places."""
    return list(await connection.scalars(_AROUND, {"locations": list(locations)}))


async def experiments_below(connection: AsyncConnection, location: str) -> list[int]:
    """Those whose artifacts live at places that begin with this."""
    return list(await connection.scalars(_BELOW, {"location": location}))


async def make_manager(connection: AsyncConnection, kind: str, resource_id: int, user_id: int) -> None:
    await connection.execute(_CREATOR, {"kind": kind, "resource_id": resource_id, "user_id": user_id})


async def _places(connection: AsyncConnection, statement: Any, ids: Sequence[Any]) -> dict[Any, list[int]]:
    return {row.id: row.places for row in await connection.execute(statement, {"ids": list(ids)})}

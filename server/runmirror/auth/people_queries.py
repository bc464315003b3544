"""SQL of users, groups (MLflow's roles), who is in which, and what either was granted."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_USER = "SELECT principal_id AS id, name, is_admin, password FROM principals WHERE kind = 'user'"
_GROUP = "SELECT principal_id AS id, name, description FROM principals WHERE kind = 'group'"

_BY_NAME = text(f"{_USER} AND name = :name")
_USERS = text(f"{_USER} ORDER BY name")
_GROUPS = text(f"{_GROUP} AND (CAST(:id AS bigint) IS NULL OR principal_id = :id) ORDER BY principal_id").bindparams(
    bindparam("id", type_=BigInteger)
)
_GROUPS_OF = text(f"""
    {_GROUP} AND (name = 'everyone' OR principal_id IN (SELECT group_id FROM memberships WHERE user_id = :user_id))
    ORDER BY principal_id
""")

_CREATE = text("""
    INSERT INTO principals (kind, name, description, password, created_at)
    VALUES (:kind, :name, :description, :password, now())
    ON CONFLICT (kind, name) DO NOTHING RETURNING principal_id
""").bindparams(bindparam("description", type_=Text), bindparam("password", type_=Text))
_SET_PASSWORD = text("UPDATE principals SET password = :password WHERE principal_id = :id")
_SET_ADMIN = text("UPDATE principals SET is_admin = :is_admin WHERE principal_id = :id")
_DELETE = text("DELETE FROM principals WHERE principal_id = :id")
_UPDATE_GROUP = text("""
    UPDATE principals SET name = coalesce(:name, name), description = coalesce(:description, description)
    WHERE principal_id = :id
""").bindparams(bindparam("name", type_=Text), bindparam("description", type_=Text))

_ASSIGN = text("""
    INSERT INTO memberships AS m (user_id, group_id) VALUES (:user_id, :group_id)
    ON CONFLICT (user_id, group_id) DO UPDATE SET group_id = m.group_id
    RETURNING membership_id AS id, user_id, group_id AS role_id
""")
_UNASSIGN = text("DELETE FROM memberships WHERE user_id = :user_id AND group_id = :group_id RETURNING membership_id")
_MEMBERS = text("""
    SELECT membership_id AS id, user_id, group_id AS role_id FROM memberships WHERE group_id = :group_id
    ORDER BY membership_id
""")

_GRANT = text("""
    INSERT INTO grants (kind, resource_id, principal_id, level) VALUES (:kind, :resource_id, :principal_id, :level)
    ON CONFLICT (kind, resource_id, principal_id) DO UPDATE SET level = excluded.level
    RETURNING grant_id
""")
_REVOKE = text("""
    DELETE FROM grants WHERE kind = :kind AND resource_id = :resource_id AND principal_id = :principal_id
    RETURNING grant_id
""")
# A registered model is told by its name; a grant about one that is gone is of no use, and is not told.
_GRANTS = text("""
    SELECT g.grant_id AS id, g.principal_id AS role_id, g.kind, g.level,
        CASE WHEN g.resource_id = -1 THEN '*' WHEN g.kind = 'experiment' THEN g.resource_id::text ELSE m.name END
            AS resource
    FROM grants g LEFT JOIN registered_models m
        ON g.kind = 'registered_model' AND m.registered_model_id = g.resource_id
    WHERE (g.principal_id = ANY(CAST(:principals AS bigint[])) OR g.grant_id = :grant_id)
        AND (g.resource_id = -1 OR g.kind = 'experiment' OR m.name IS NOT NULL)
    ORDER BY g.grant_id
""").bindparams(bindparam("grant_id", type_=BigInteger))
_LEVEL_OF = text("""
    SELECT level FROM grants WHERE kind = :kind AND resource_id = :resource_id AND principal_id = :principal_id
""")
_OF_GRANT = "kind, resource_id, (SELECT name FROM principals p WHERE p.principal_id = grants.principal_id) AS name"
_SET_LEVEL = text(f"UPDATE grants SET level = :level WHERE grant_id = :grant_id RETURNING {_OF_GRANT}")
_DELETE_GRANT = text(f"DELETE FROM grants WHERE grant_id = :grant_id RETURNING {_OF_GRANT}")


async def user(connection: AsyncConnection, name: str) -> Row[Any] | None:
    return (await connection.execute(_BY_NAME, {"name": name})).one_or_none()


async def users(connection: AsyncConnection) -> Sequence[Row[Any]]:
    return (await connection.execute(_USERS)).all()


async def groups(connection: AsyncConnection, group_id: int | None = None) -> Sequence[Row[Any]]:
    """All of them, or the one with that id."""
    return (await connection.execute(_GROUPS, {"id": group_id})).all()


async def groups_of(connection: AsyncConnection, user_id: int) -> Sequence[Row[Any]]:
    return (await connection.execute(_GROUPS_OF, {"user_id": user_id})).all()


async def create(
    connection: AsyncConnection, kind: str, name: str, *, description: str | None = None, password: str | None = None
) -> int | None:
    """The id of a new user or group; None when the name is taken."""
    values = {"kind": kind, "name": name, "description": description, "password": password}
    created: int | None = await connection.scalar(_CREATE, values)
    return created


async def set_password(connection: AsyncConnection, user_id: int, password: str) -> None:
    await connection.execute(_SET_PASSWORD, {"id": user_id, "password": password})


async def set_admin(connection: AsyncConnection, user_id: int, *, is_admin: bool) -> None:
    await connection.execute(_SET_ADMIN, {"id": user_id, "is_admin": is_admin})


async def delete(connection: AsyncConnection, principal_id: int) -> None:
    """With tokens, memberships and grants."""
    await connection.execute(_DELETE, {"id": principal_id})


async def update_group(connection: AsyncConnection, group_id: int, name: str | None, description: str | None) -> None:
    await connection.execute(_UPDATE_GROUP, {"id": group_id, "name": name, "description": description})


async def assign(connection: AsyncConnection, user_id: int, group_id: int) -> Row[Any]:
    return (await connection.execute(_ASSIGN, {"user_id": user_id, "group_id": group_id})).one()


async def unassign(connection: AsyncConnection, user_id: int, group_id: int) -> bool:
    return await connection.scalar(_UNASSIGN, {"user_id": user_id, "group_id": group_id}) is not None


async def members(connection: AsyncConnection, group_id: int) -> Sequence[Row[Any]]:
    return (await connection.execute(_MEMBERS, {"group_id": group_id})).all()


async def grant(connection: AsyncConnection, principal_id: int, kind: str, resource_id: int, level: int) -> int:
    """The id of the grant, which takes the place of what was granted before."""
    values = {"kind": kind, "resource_id": resource_id, "principal_id": principal_id, "level": level}
    return int((await connection.execute(_GRANT, values)).scalar_one())


async def level_of(connection: AsyncConnection, principal_id: int, kind: str, resource_id: int) -> int | None:
    """What this principal was granted there, by a grant of its own."""
    values = {"kind": kind, "resource_id": resource_id, "principal_id": principal_id}
    level: int | None = await connection.scalar(_LEVEL_OF, values)
    return level


async def revoke(connection: AsyncConnection, principal_id: int, kind: str, resource_id: int) -> bool:
    values = {"kind": kind, "resource_id": resource_id, "principal_id": principal_id}
    return await connection.scalar(_REVOKE, values) is not None


async def grants(
    connection: AsyncConnection, principals: Sequence[int], grant_id: int | None = None
) -> Sequence[Row[Any]]:
    """`(id, role_id, kind, level, resource)` of what these were granted, or of the one with that id."""
    return (await connection.execute(_GRANTS, {"principals": list(principals), "grant_id": grant_id})).all()


async def set_level(connection: AsyncConnection, grant_id: int, level: int) -> Row[Any] | None:
    """`(kind, resource_id, name)` of the grant, if there is one; so does `delete_grant`."""
    return (await connection.execute(_SET_LEVEL, {"grant_id": grant_id, "level": level})).one_or_none()


async def delete_grant(connection: AsyncConnection, grant_id: int) -> Row[Any] | None:
    return (await connection.execute(_DELETE_GRANT, {"grant_id": grant_id})).one_or_none()

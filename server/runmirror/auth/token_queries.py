"""SQL of tokens: made, listed, revoked."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, Interval, LargeBinary, Text, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_USER = text("SELECT principal_id FROM principals WHERE kind = 'user' AND name = :name")

# An admin stays one: who makes a token takes nothing away.
_MAKE_USER = text("""
    INSERT INTO principals AS p (kind, name, is_admin, created_at) VALUES ('user', :name, :is_admin, now())
    ON CONFLICT (kind, name) DO UPDATE SET is_admin = p.is_admin OR excluded.is_admin
    RETURNING principal_id
""")

_COLUMNS = """
    t.token_id, u.name AS user_name, u.is_admin, t.name, t.prefix, t.created_at, t.expires_at, t.revoked_at,
    t.last_used_at
"""

_CREATE = text(f"""
    WITH made AS (
        INSERT INTO tokens (user_id, name, prefix, digest, created_at, expires_at)
        VALUES (:user_id, :name, :prefix, :digest, now(), now() + :lifetime)
        RETURNING *)
    SELECT {_COLUMNS} FROM made t JOIN principals u ON u.principal_id = t.user_id
""").bindparams(bindparam("digest", type_=LargeBinary), bindparam("lifetime", type_=Interval))

_OF = "(CAST(:user_id AS bigint) IS NULL OR t.user_id = :user_id)"

_LIST = text(f"""
    SELECT {_COLUMNS} FROM tokens t JOIN principals u ON u.principal_id = t.user_id
    WHERE {_OF} AND (CAST(:user_name AS text) IS NULL OR u.name = :user_name)
    ORDER BY t.token_id DESC LIMIT :most
""").bindparams(bindparam("user_id", type_=BigInteger), bindparam("user_name", type_=Text))

_REVOKE = text(f"""
    UPDATE tokens t SET revoked_at = coalesce(t.revoked_at, now()) FROM principals u
    WHERE t.token_id = :token_id AND u.principal_id = t.user_id AND {_OF}
    RETURNING t.prefix, u.name AS user_name
""").bindparams(bindparam("user_id", type_=BigInteger))

_BY_PREFIX = text("SELECT token_id FROM tokens WHERE prefix = :prefix")


async def user_id(connection: AsyncConnection, name: str) -> int | None:
    found: int | None = await connection.scalar(_USER, {"name": name})
    return found


async def make_user(connection: AsyncConnection, name: str, *, is_admin: bool) -> int:
    """The user of that name, made if there is none."""
    return int((await connection.execute(_MAKE_USER, {"name": name, "is_admin": is_admin})).scalar_one())


async def create(
    connection: AsyncConnection, user: int, *, name: str, prefix: str, digest: bytes, lifetime: timedelta | None
) -> Row[Any]:
    values = {"user_id": user, "name": name, "prefix": prefix, "digest": digest, "lifetime": lifetime}
    return (await connection.execute(_CREATE, values)).one()


async def newest(
    connection: AsyncConnection, *, user: int | None = None, user_name: str | None = None, most: int
) -> Sequence[Row[Any]]:
    """Tokens, the newest first; of one user if one is given."""
    return (await connection.execute(_LIST, {"user_id": user, "user_name": user_name, "most": most})).all()


async def revoke(connection: AsyncConnection, token_id: int, *, user: int | None = None) -> Row[Any] | None:
    """`(prefix, user_name)` of the token, if there is one (of that user, if one is given): it is of no use any more."""
    return (await connection.execute(_REVOKE, {"token_id": token_id, "user_id": user})).one_or_none()


async def ids_by_prefix(connection: AsyncConnection, prefix: str) -> list[int]:
    return list(await connection.scalars(_BY_PREFIX, {"prefix": prefix}))

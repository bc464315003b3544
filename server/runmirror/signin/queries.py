"""SQL of sessions: opened, listed, ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import ARRAY, BigInteger, Interval, LargeBinary, Text, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_MOST_OF_ONE_USER = 100

_OPEN = text("""
    INSERT INTO sessions (user_id, token_id, way, digest, claimed, is_admin, created_at, expires_at)
    VALUES (:user_id, :token_id, :way, :digest, :claimed, :is_admin, now(), now() + :lifetime)
""").bindparams(
    bindparam("token_id", type_=BigInteger), bindparam("digest", type_=LargeBinary),
    bindparam("claimed", type_=ARRAY(Text)), bindparam("lifetime", type_=Interval),
)  # fmt: skip

# What has ended goes, a little at a time, and of one user the oldest when there are too many.
_SWEEP = text(f"""
    WITH ended AS (
        SELECT session_id FROM sessions WHERE expires_at <= now() ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)
    DELETE FROM sessions WHERE session_id IN (
        SELECT session_id FROM ended
        UNION ALL
        (SELECT session_id FROM sessions WHERE user_id = :user_id ORDER BY session_id DESC OFFSET {_MOST_OF_ONE_USER}))
""")

_END = text("""
    DELETE FROM sessions s USING principals u WHERE s.digest = :digest AND u.principal_id = s.user_id RETURNING u.name
""").bindparams(bindparam("digest", type_=LargeBinary))

_END_ALL = text("DELETE FROM sessions WHERE user_id = :user_id")

_OF = "(CAST(:user_id AS bigint) IS NULL OR s.user_id = :user_id)"
_LIST = text(f"""
    SELECT s.session_id, u.name AS user_name, s.way, s.created_at, s.expires_at
    FROM sessions s JOIN principals u ON u.principal_id = s.user_id
    WHERE {_OF} AND s.expires_at > now() ORDER BY s.session_id DESC LIMIT :most
""").bindparams(bindparam("user_id", type_=BigInteger))
_REVOKE = text(f"""
    DELETE FROM sessions s USING principals u
    WHERE s.session_id = :session_id AND u.principal_id = s.user_id AND {_OF} RETURNING u.name
""").bindparams(bindparam("user_id", type_=BigInteger))


@dataclass(frozen=True, slots=True)
class Opening:
    """Who has signed in, and how; `claimed` are names that the identity provider told."""

    user_id: int
    way: Literal["token", "password", "oidc"]
    token_id: int | None = None
    claimed: Sequence[str] = ()
    is_admin: bool = False


async def open_session(connection: AsyncConnection, opening: Opening, digest: bytes, lifetime: timedelta) -> None:
    values = {
        "user_id": opening.user_id, "token_id": opening.token_id, "way": opening.way, "digest": digest,
        "claimed": list(opening.claimed), "is_admin": opening.is_admin, "lifetime": lifetime,
    }  # fmt: skip
    await connection.execute(_SWEEP, {"user_id": opening.user_id})
    await connection.execute(_OPEN, values)


async def end(connection: AsyncConnection, digest: bytes) -> str | None:
    """Whose session it was, if there was one."""
    name: str | None = await connection.scalar(_END, {"digest": digest})
    return name


async def end_all(connection: AsyncConnection, user_id: int) -> None:
    await connection.execute(_END_ALL, {"user_id": user_id})


async def newest(connection: AsyncConnection, *, user: int | None, most: int) -> Sequence[Row[Any]]:
    """Those that have not ended, the newest first; of one user if one is given."""
    return (await connection.execute(_LIST, {"user_id": user, "most": most})).all()


async def revoke(connection: AsyncConnection, session_id: int, *, user: int | None) -> str | None:
    """Whose session it was, if there is one with that id (of that user, if one is given)."""
    name: str | None = await connection.scalar(_REVOKE, {"session_id": session_id, "user_id": user})
    return name

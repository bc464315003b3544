"""One function per change of users and tokens; the rules and their order."""

import re
from datetime import timedelta
from typing import Any

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.auth import secrets, token_queries
from runmirror.errors import InvalidParameter

_LONGEST_NAME = 255
_LONGEST_LIFE = timedelta(days=3660)
# Basic authentication ends the name at the first colon.
_NAME = re.compile(r"[^\s:\x00-\x1f\x7f](?:[^:\x00-\x1f\x7f]*[^\s:\x00-\x1f\x7f])?")


def is_name(name: str) -> bool:
    """Whether a user or a group can be called so."""
    return len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None


def check_name(name: str, what: str = "username") -> str:
    """Raises `InvalidParameter` for what cannot be called so."""
    if not is_name(name):
        raise InvalidParameter(
            f"Invalid {what}: it has 1 to {_LONGEST_NAME} characters, none of them a colon or a control character, "
            "and no space around it."
        )
    return name


async def create_token(
    connection: AsyncConnection, user: int, *, name: str = "", lifetime: timedelta | None = None
) -> tuple[str, Row[Any]]:
    """The token, which nobody can be shown again, and what is kept of it."""
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidParameter(f"Invalid name of a token: it has at most {_LONGEST_NAME} printable characters.")
    if lifetime is not None and not timedelta(0) < lifetime <= _LONGEST_LIFE:
        raise InvalidParameter(f"A token lives for more than 0 and at most {_LONGEST_LIFE.days} days.")
    token = secrets.new_token()
    row = await token_queries.create(
        connection, user, name=name, prefix=secrets.prefix(token), digest=secrets.digest(token), lifetime=lifetime
    )
    await audit.record(connection, "token.create", f"{row.prefix} of {row.user_name}")
    return token, row


async def revoke_token(connection: AsyncConnection, token_id: int, *, user: int | None = None) -> bool:
    """Whether there is such a token (of that user, if one is given); it is of no use any more."""
    row = await token_queries.revoke(connection, token_id, user=user)
    if row is None:
        return False
    await audit.record(connection, "token.revoke", f"{row.prefix} of {row.user_name}")
    return True

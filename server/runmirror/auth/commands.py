"""What `runmirror token` does, apart from the command line itself: whoever reaches the database is an admin."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.auth import secrets, service, token_queries
from runmirror.auth.wire import TokenCreated, TokenWire
from runmirror.db import create_engine
from runmirror.errors import DoesNotExist, InvalidParameter
from runmirror.settings import Settings

T = TypeVar("T")

_MOST_LISTED = 10_000


async def create_token(
    settings: Settings, url: str, user: str, *, name: str, lifetime: timedelta | None, is_admin: bool
) -> TokenCreated:
    """A token of the user's, who is made if there is none. Raises `InvalidParameter`."""

    async def create(connection: AsyncConnection) -> TokenCreated:
        of = await token_queries.make_user(connection, service.check_name(user, "user"), is_admin=is_admin)
        if is_admin:
            await audit.record(connection, "user.admin", user)
        token, row = await service.create_token(connection, of, name=name, lifetime=lifetime)
        return TokenCreated(**TokenWire.of(row).model_dump(), token=token)

    return await _in_transaction(settings, url, create)


async def list_tokens(settings: Settings, url: str, user: str | None) -> list[TokenWire]:
    async def read(connection: AsyncConnection) -> list[TokenWire]:
        return [TokenWire.of(row) for row in await token_queries.newest(connection, user_name=user, most=_MOST_LISTED)]

    return await _in_transaction(settings, url, read)


async def revoke_token(settings: Settings, url: str, which: str) -> int:
    """Revoke by id, by prefix or by the whole token; the id.

    Raises `DoesNotExist`, or `InvalidParameter` when several tokens are meant.
    """

    async def revoke(connection: AsyncConnection) -> int:
        found = (
            [int(which)]
            if which.isdigit() and len(which) < 19
            else await token_queries.ids_by_prefix(connection, secrets.prefix(which))
        )
        if len(found) > 1:
            raise InvalidParameter(f"several tokens begin with {which!r}: name one by its id ({found})")
        if not found or not await service.revoke_token(connection, found[0]):
            raise DoesNotExist("there is no such token")
        return found[0]

    return await _in_transaction(settings, url, revoke)


async def _in_transaction(settings: Settings, url: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    engine = create_engine(settings, url)
    try:
        async with engine.begin() as connection:
            return await work(connection)
    finally:
        await engine.dispose()


def describe(tokens: list[TokenWire]) -> str:
    """A table for people."""
    lines = [("id", "user", "name", "prefix", "created", "expires", "last used", "")]
    for token in tokens:
        times = (token.created_at, token.expires_at, token.last_used_at)
        shown = ["" if time is None else f"{time:%Y-%m-%d %H:%M}" for time in times]
        state = "" if token.revoked_at is None else f"revoked {token.revoked_at:%Y-%m-%d %H:%M}"
        lines.append((token.token_id, token.user, token.name, token.prefix, shown[0], shown[1], shown[2], state))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )

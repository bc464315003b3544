"""Requests and answers about tokens."""

from datetime import datetime, timedelta
from typing import Any, Self

from pydantic import Field
from sqlalchemy.engine import Row

from runmirror.wire import Wire


class CreateToken(Wire):
    """`user`: whose it is, the caller's if left out; an admin may name anybody, also a user who is not there yet."""

    user: str = ""
    name: str = ""
    expires_in_days: float | None = Field(None, allow_inf_nan=False, gt=0, le=3660)

    @property
    def lifetime(self) -> timedelta | None:
        return None if self.expires_in_days is None else timedelta(days=self.expires_in_days)


class TokenWire(Wire):
    """What is known of a token: not the token itself."""

    token_id: str
    user: str
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(
            token_id=str(row.token_id),
            user=row.user_name,
            name=row.name,
            prefix=row.prefix,
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
            last_used_at=row.last_used_at,
        )


class TokenCreated(TokenWire):
    """`token` is told this once."""

    token: str


class TokensAnswer(Wire):
    tokens: list[TokenWire]

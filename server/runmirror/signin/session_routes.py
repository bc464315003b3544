"""HTTP of sessions, for programs: everybody has their own, an admin everybody's."""

from datetime import datetime
from typing import Any, Self

from fastapi import APIRouter
from sqlalchemy.engine import Row

from runmirror import audit
from runmirror.auth.permits import current
from runmirror.db import ReadConnection, WriteConnection
from runmirror.errors import DoesNotExist
from runmirror.routing import Permission, route
from runmirror.signin import queries
from runmirror.wire import INT64_MAX, Empty, Wire

router = APIRouter(tags=["sessions"])

_SESSIONS = "/api/runmirror/v1/sessions"
_MOST_LISTED = 1000


class SessionWire(Wire):
    """`way`: by a token, a password or the identity provider (`oidc`)."""

    session_id: str
    user: str
    way: str
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(
            session_id=str(row.session_id), user=row.user_name, way=row.way, created_at=row.created_at,
            expires_at=row.expires_at,
        )  # fmt: skip


class SessionsAnswer(Wire):
    sessions: list[SessionWire]


@route(router, "GET", _SESSIONS, permission=Permission.READ)
async def list_sessions(connection: ReadConnection) -> SessionsAnswer:
    """The browsers in which the caller is signed in, or everybody for an admin, the newest first."""
    rows = await queries.newest(connection, user=_only(), most=_MOST_LISTED)
    return SessionsAnswer(sessions=[SessionWire.of(row) for row in rows])


@route(router, "DELETE", _SESSIONS + "/{session_id}", permission=Permission.READ)
async def end_session(session_id: str, connection: WriteConnection) -> Empty:
    """From now on that browser is signed out, on every server."""
    number = int(session_id) if session_id.isascii() and session_id.isdigit() and len(session_id) < 20 else 0
    name = None if number > INT64_MAX else await queries.revoke(connection, number, user=_only())
    if name is None:
        raise DoesNotExist(f"There is no session '{session_id[:40]}'.")
    await audit.record(connection, "session.end", name)
    return Empty()


def _only() -> int | None:
    """Whose sessions the caller has to do with: None is everybody's."""
    permits = current()
    return None if permits.is_admin or permits.viewer is None else permits.viewer.user_id

"""HTTP of tokens: everybody has their own, an admin everybody's."""

from typing import Annotated

from fastapi import APIRouter, Query

from runmirror.auth import service, token_queries, wire
from runmirror.auth.permits import current
from runmirror.db import ReadConnection, WriteConnection
from runmirror.errors import DoesNotExist, InvalidParameter, PermissionDenied
from runmirror.routing import Permission, route
from runmirror.wire import INT64_MAX, Empty

router = APIRouter(tags=["tokens"])

_TOKENS = "/api/runmirror/v1/tokens"
_MOST_LISTED = 1000


@route(router, "POST", _TOKENS, permission=Permission.READ)
async def create_token(request: wire.CreateToken, connection: WriteConnection) -> wire.TokenCreated:
    """A new token of the caller's, or of anybody's for an admin; it is shown now and never again."""
    viewer = current().viewer
    if viewer is not None and request.user in {"", viewer.name}:
        user = viewer.user_id
    elif not current().is_admin:
        raise PermissionDenied("Permission denied: only an admin makes tokens for others.")
    elif not request.user:
        raise InvalidParameter("user: say whose token it is.")
    else:
        user = await token_queries.make_user(connection, service.check_name(request.user, "user"), is_admin=False)
    token, row = await service.create_token(connection, user, name=request.name, lifetime=request.lifetime)
    return wire.TokenCreated(**wire.TokenWire.of(row).model_dump(), token=token)


@route(router, "GET", _TOKENS, permission=Permission.READ)
async def list_tokens(
    connection: ReadConnection, user: Annotated[str | None, Query(max_length=255)] = None
) -> wire.TokensAnswer:
    """The caller's tokens, or everybody's for an admin (`user`: those of one), the newest first."""
    rows = await token_queries.newest(connection, user=_only(), user_name=user, most=_MOST_LISTED)
    return wire.TokensAnswer(tokens=[wire.TokenWire.of(row) for row in rows])


@route(router, "DELETE", _TOKENS + "/{token_id}", permission=Permission.READ)
async def revoke_token(token_id: str, connection: WriteConnection) -> Empty:
    """From now on the token is of no use, on no server."""
    number = int(token_id) if token_id.isascii() and token_id.isdigit() and len(token_id) < 20 else 0
    if number > INT64_MAX or not await service.revoke_token(connection, number, user=_only()):
        raise DoesNotExist(f"There is no token '{token_id[:40]}'.")
    return Empty()


def _only() -> int | None:
    """Whose tokens the caller has to do with: None is everybody's."""
    permits = current()
    return None if permits.is_admin or permits.viewer is None else permits.viewer.user_id

"""Whether the sender of a request may do what its route declares; asked before the route's own code runs."""

from fastapi import Request

from runmirror.auth.permits import current
from runmirror.auth.subjects import Given
from runmirror.errors import PermissionDenied
from runmirror.routing import Permission


async def ask_permission(request: Request) -> None:
    """A dependency of every route. Raises `PermissionDenied`, and `DoesNotExist` for what is not there."""
    route = request.scope["route"]
    if route.openapi_extra["x-permission"] == Permission.PUBLIC:
        return
    try:
        subject, permission = request.app.state.subjects[request.method, route.path]
    except KeyError:
        raise PermissionDenied("Permission denied: this is for nobody.") from None
    await current().check(subject, permission, await _given(request, has_body=route.body_field is not None))


async def _given(request: Request, *, has_body: bool) -> Given:
    """FastAPI has read the body already where the route wants it parsed; where the route streams it, it is left."""
    body = None
    if has_body:
        try:
            body = await request.json()
        except (ValueError, RecursionError):  # the route says so; it names nothing either way
            body = None
    return Given(request.path_params, request.query_params.multi_items(), request.headers, body)

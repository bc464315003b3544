"""HTTP of what is not served: 501 that names the endpoint and says why."""

from fastapi import APIRouter, Request

from runmirror.errors import NotServedYet
from runmirror.routing import Permission, route
from runmirror.unserved.table import UNSERVED

router = APIRouter(tags=["unserved"], include_in_schema=False)


def _decline(method: str, path: str, reason: str) -> None:
    async def not_served(request: Request) -> None:
        raise NotServedYet(f"{request.method} {request.url.path} is not served: {reason}.")

    route(router, method, path, permission=Permission.READ)(not_served)


for endpoint in UNSERVED:
    _decline(endpoint.method, endpoint.path, endpoint.reason)

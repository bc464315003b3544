"""HTTP of GraphQL: one document in, data and messages out, as MLflow answers."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from runmirror.artifacts.routes import Service
from runmirror.db import ReadConnection
from runmirror.graphql.wire import GraphQLRequest
from runmirror.routing import Permission, route

router = APIRouter(tags=["graphql"])


@route(router, "POST", "/graphql", permission=Permission.READ)
async def graphql(request: GraphQLRequest, connection: ReadConnection, service: Service) -> JSONResponse:
    """Execute one document; what went wrong in it stands in `errors`, as messages."""
    from runmirror.graphql.execution import answer  # noqa: PLC0415 - it says why

    return await answer(request, connection, service)

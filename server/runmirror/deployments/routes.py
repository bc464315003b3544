"""HTTP of deployments: an operation is asked for at once and looked at until it is done."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request

from runmirror.db import ReadConnection, WriteConnection
from runmirror.deployments import queries, service
from runmirror.deployments.service import DeploymentNotFound
from runmirror.deployments.wire import DeploymentAnswer, DeploymentsAnswer, DeployRequest
from runmirror.errors import InvalidParameter
from runmirror.routing import Permission, route

router = APIRouter(tags=["deployments"])

_MOST = 1000
_BASE = "/api/runmirror/v1/deployments"


@route(router, "POST", _BASE, permission=Permission.MANAGE, status_code=202)
async def create_deployment(
    deploy: DeployRequest, request: Request, connection: WriteConnection
) -> DeploymentAnswer:  # fmt: skip
    """Deploy a model version in a linked workspace, once its registry has it. The answer is the operation."""
    made = await service.deploy(
        connection, request.app.state.settings, model=deploy.model, kind=deploy.to, name=deploy.name,
        spec=deploy.to_spec(), workspace=deploy.workspace, replace=deploy.replace,
    )  # fmt: skip
    return DeploymentAnswer.of(made)


@route(router, "GET", _BASE, permission=Permission.READ)
async def list_deployments(
    connection: ReadConnection, name: str | None = None, ended: bool = False,
    max_results: Annotated[int, Query(ge=1, le=_MOST)] = 100, page_token: str = "",
) -> DeploymentsAnswer:  # fmt: skip
    """Deployments, the newest first; with `ended` also those that are deleted or replaced."""
    if page_token and not re.fullmatch(r"[0-9]{1,9}", page_token):
        raise InvalidParameter("Invalid page token.")
    skip = int(page_token or 0)
    found = await queries.newest(connection, name=name, ended=ended, most=max_results + 1, skip=skip)
    return DeploymentsAnswer(
        deployments=[DeploymentAnswer.of(one) for one in found[:max_results]],
        next_page_token=str(skip + max_results) if len(found) > max_results else None,
    )


@route(router, "GET", _BASE + "/{deployment_id}", permission=Permission.READ)
async def get_deployment(deployment_id: str, connection: ReadConnection) -> DeploymentAnswer:
    """How a deployment is doing: its state, what happened so far, its address, or why it failed."""
    found = await queries.get(connection, service.parse_id(deployment_id))
    if found is None:
        raise DeploymentNotFound(deployment_id)
    return DeploymentAnswer.of(found)


@route(router, "DELETE", _BASE + "/{deployment_id}", permission=Permission.MANAGE, status_code=202)
async def delete_deployment(deployment_id: str, request: Request, connection: WriteConnection) -> DeploymentAnswer:
    """Take a deployment away; it is `deleted` when the workspace has nothing of it left."""
    gone = await service.delete(connection, request.app.state.settings, service.parse_id(deployment_id))
    return DeploymentAnswer.of(gone)

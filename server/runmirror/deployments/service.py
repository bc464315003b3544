"""One function per write: who may deploy what, where, under which name."""

import re
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.audit.caller import the_caller
from runmirror.deployments import queries
from runmirror.deployments.entities import Deployment, Kind, Spec, State
from runmirror.errors import AlreadyExists, DoesNotExist, InvalidParameter, InvalidState, RegisteredModelNotFound
from runmirror.mirror.link_queries import Link, read_links
from runmirror.registry import sources
from runmirror.settings import Settings

# As the services have it: names of ACI and AKS are those of azureml-core, an endpoint's is part of a host name.
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{1,30})[a-z0-9]")
_NO_LINK = "no workspace is linked: runmirror link /subscriptions/…/workspaces/…"


class DeploymentNotFound(DoesNotExist):
    def __init__(self, deployment_id: str) -> None:
        super().__init__(f"Deployment with id={deployment_id[:80]} not found")


def parse_id(deployment_id: str) -> UUID:
    """Raises `DeploymentNotFound` for what is no id."""
    try:
        return UUID(deployment_id)
    except ValueError:
        raise DeploymentNotFound(deployment_id) from None


async def deploy(
    connection: AsyncConnection, settings: Settings, *, model: str, kind: Kind, name: str, spec: Spec,
    workspace: str | None = None, replace: bool = False,
) -> Deployment:  # fmt: skip
    """Ask for a deployment; `model` is `models:/name/version`, `models:/name@alias` or `models:/name/latest`.

    An alias is followed once, now. With `replace` it takes the place of the one of that name, as it does anyway of one
    that failed.
    """
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f"'{name[:80]}' is no name of a deployment: 3 to 32 lower-case letters, digits and dashes, beginning with "
            "a letter and not ending with a dash."
        )
    spec.check(kind)
    ref = sources.parse_version_ref(model) if model.startswith("models:/") else None
    if ref is None:
        raise InvalidParameter(
            f"'{model[:200]}' names no version of a registered model: models:/name/version or @alias."
        )
    found = await sources.resolve(connection, model, run_id=None, model_id=None, tags={})
    version = int(found.uri.rpartition("/")[2])
    workspace_id = await _workspace(connection, ref.name, workspace)
    await queries.begin(connection, workspace_id)
    before = await queries.of_name(connection, workspace_id, name)
    if before is not None:
        await _take_place(connection, before, kind, replace=replace)
    made = await queries.create(
        connection, created_by=the_caller(), workspace_id=workspace_id, kind=kind, name=name, model_name=ref.name,
        version=version, spec=spec, message="asked for", within=settings.deploy_timeout,
    )  # fmt: skip
    if made is None:
        raise RegisteredModelNotFound(ref.name)
    await audit.record(connection, "deployment.create", f"{made.deployment_id}: {made.model} as {name} to {kind}")
    return made


async def _take_place(connection: AsyncConnection, before: Deployment, kind: Kind, *, replace: bool) -> None:
    if before.state.is_open:
        raise InvalidState(f"Deployment {before.deployment_id} has the name '{before.name}' and is {before.state}.")
    if before.kind is not kind:
        raise InvalidState(
            f"'{before.name}' is deployed to {before.kind} (deployment {before.deployment_id}): delete that one first."
        )
    if not replace and before.state is not State.FAILED:
        raise AlreadyExists(
            f"Deployment {before.deployment_id} has the name '{before.name}': say replace, or delete it first."
        )
    await queries.replace(connection, before.deployment_id, "another deployment took its place")


async def _workspace(connection: AsyncConnection, model_name: str, wanted: str | None) -> str:
    """The workspace to deploy in: one that is linked, whatever was asked for."""
    linked = await read_links(connection)
    if wanted is not None:
        named = [link for link in linked if wanted.lower() in _names(link)]
        if not named:
            known = ", ".join(link.name for link in linked) or "none"
            raise DoesNotExist(f"No workspace is linked as '{wanted[:300]}'; linked: {known}")
        return named[0].workspace_id
    if not linked:
        raise InvalidState(_NO_LINK)
    place = await queries.place_of_model(connection, model_name)
    default = next((link for link in linked if link.is_default), linked[0])
    return place or default.workspace_id


def _names(link: Link) -> set[str]:
    return {link.name.lower(), link.own_name.lower(), link.workspace_id.lower()}


async def delete(connection: AsyncConnection, settings: Settings, deployment_id: UUID) -> Deployment:
    """Have what was deployed taken away; what is deleted already is so again."""
    settle: timedelta = settings.mirror_settle
    gone = await queries.delete(
        connection, deployment_id, message="asked to be deleted", within=settings.deploy_timeout, settle=settle
    )  # fmt: skip
    if gone is None:
        ended = await queries.get(connection, deployment_id)
        if ended is None:
            raise DeploymentNotFound(str(deployment_id))
        return ended
    await audit.record(connection, "deployment.delete", f"{deployment_id}: {gone.model} as {gone.name}")
    return gone

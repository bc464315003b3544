"""One step of a claimed deployment: look what is there, ask for what is missing, say what that came to.

What Azure has is looked at each time, so that a step that was broken off may be done again.
"""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.deployments import azureml_core, queries
from runmirror.deployments.entities import DEFAULT_INSTANCE_TYPE, Auth, Deployment, Kind, State
from runmirror.deployments.queries import Outcome, Progress
from runmirror.errors import ArtifactNotFound, InvalidParameter, RunmirrorError
from runmirror.mirror.azureml import AzureMLTarget
from runmirror.mirror.azureml_endpoints import AzureEndpoints, RemoteDeployment, RemoteEndpoint
from runmirror.mirror.azureml_services import AzureServices, RemoteOperation, RemoteService
from runmirror.mirror.keeper import clock_s
from runmirror.mirror.queue import LeaseLost
from runmirror.mirror.target import SourceUnavailable, TargetRejected
from runmirror.registry import sources
from runmirror.settings import WORKSPACE_ID, Settings

TAG, MODEL_TAG = "runmirror.deployment", "runmirror.model"
MAIN = "main"  # the one deployment of an endpoint of ours
_CONDA = "conda.yaml"
_LONGEST_CONDA = 1024**2
_LONGEST_NAME = 200  # Resource Manager's tags hold 256 characters
_AUTH_MODES = {Auth.KEY: "Key", Auth.TOKEN: "AMLToken", Auth.ENTRA: "AADToken"}
_FAILED = {"Failed", "Canceled"}
_STEPS = {
    "BuildEnvironment": "Azure builds the image",
    "BuildImage": "Azure builds the image",
    "DeployService": "Azure starts the service",
}


class OneDeployment:
    """The work under one lease. Raises `LeaseLost`, `TargetError`, `SourceUnavailable`."""

    def __init__(
        self, settings: Settings, engine: AsyncEngine, store: Store, held: Deployment, *, asked_at: float
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._held = held
        self._request_s = settings.mirror_timeout.total_seconds()
        self._lease_s = settings.mirror_lease.total_seconds()
        self._until = asked_at + self._lease_s
        self._poll: timedelta = settings.mirror_poll

    async def step(self, target: AzureMLTarget) -> Outcome:
        target = target.under(self._check)
        held = self._held
        if held.is_late:
            done = "deleted" if held.state is State.DELETING else "deployed"
            told = held.last_error or held.message
            return self._failed(f"not {done} after {self._settings.deploy_timeout}, the last that is known: {told}")
        if held.state is State.WAITING:
            return await self._wait_for_version()
        if held.kind is Kind.ENDPOINT:
            return await _Endpoint(self, target.endpoints()).step()
        return await _Service(self, target.services()).step()

    async def _wait_for_version(self) -> Outcome:
        async with self._engine.connect() as connection:
            progress = await queries.progress(connection, self._held)
        reason = _why_never(self._held, progress)
        if reason is not None or progress is None:
            return self._failed(reason or "")
        if progress.remote_version is None:
            waits = progress.waits_run_id
            for_what = f"the files of run {waits.hex}" if waits else "its turn"
            return self.still(f"the version is on its way to the workspace's registry, and waits for {for_what}")
        there = f"{progress.remote_name}:{progress.remote_version}"
        return Outcome(
            State.CREATING, f"the workspace's registry has it, as {there}", remote_name=progress.remote_name,
            remote_version=progress.remote_version,
        )  # fmt: skip

    def _check(self) -> None:
        """Nothing is sent that could outlast the lease."""
        if clock_s() + self._request_s > self._until:
            raise LeaseLost(f"deployment {self._held.deployment_id}")

    async def stay(self) -> None:
        """Renew the lease."""
        asked_at = clock_s()
        async with self._engine.begin() as connection:
            await queries.renew(connection, self._held, self._settings.mirror_lease)
        self._until = asked_at + self._lease_s

    async def owner(self, tags: Mapping[str, str]) -> str:
        """Whose something there is: `self`, `ours` (an earlier deployment of that name) or `others`."""
        try:
            tagged = UUID(tags.get(TAG, ""))
        except ValueError:
            return "others"
        if tagged == self._held.deployment_id:
            return "self"
        async with self._engine.connect() as connection:
            return "ours" if await queries.is_ours(connection, self._held, tagged) else "others"

    @property
    def held(self) -> Deployment:
        return self._held

    @property
    def tags(self) -> dict[str, str]:
        model = f"{self._held.model_name[:_LONGEST_NAME]}/{self._held.version}"
        return {TAG: str(self._held.deployment_id), MODEL_TAG: model}

    async def conda(self) -> str:
        """The packages of the model, as MLflow wrote them beside it."""
        async with self._engine.connect() as connection:
            progress = await queries.progress(connection, self._held)
            try:
                path = await sources.store_path(connection, "" if progress is None else progress.storage_location)
            except RunmirrorError as error:
                raise TargetRejected(f"the version has no files here any more: {error.message}") from None
        try:
            opened = await self._store.read(f"{path}/{_CONDA}")
            if opened.size_bytes > _LONGEST_CONDA:
                await opened.aclose()
                raise TargetRejected(f"the model's {_CONDA} is longer than a megabyte")
            return b"".join([chunk async for chunk in opened.stream]).decode()
        except (ArtifactNotFound, InvalidParameter):
            raise TargetRejected(
                f"the model has no {_CONDA}: only one that MLflow logged can be deployed there"
            ) from None
        except UnicodeDecodeError:
            raise TargetRejected(f"the model's {_CONDA} is no text") from None
        except (RunmirrorError, OSError) as error:
            raise SourceUnavailable(f"the artifact store cannot be read: {type(error).__name__}") from error

    async def create(self, services: AzureServices, *, overwrite: bool) -> str:
        """Have azureml-core ask for the service."""
        held, of = self._held, WORKSPACE_ID.match(self._held.workspace_id)
        asked = {
            "workspace": {
                "subscription": of and of["subscription"], "resource_group": of and of["resource_group"],
                "name": of and of["workspace"],
            },
            "token": await services.token(), "kind": held.kind, "name": held.name, "tags": self.tags,
            "spec": held.spec.as_json(), "overwrite": overwrite, "conda": await self.conda(),
            "script": azureml_core.script(), "model": {"name": held.remote_name, "version": held.remote_version},
        }  # fmt: skip
        await self.stay()
        return await azureml_core.create_service(self._settings, asked, self.stay, self._lease_s / 4)

    def still(self, message: str, operation: str | None = None) -> Outcome:
        """Nothing to do but to look again in a while."""
        state = State.DEPLOYING if self._held.state is State.CREATING else self._held.state
        return Outcome(
            state, message, wait=self._poll, remote_operation=operation or self._held.remote_operation
        )  # fmt: skip

    def _failed(self, reason: str) -> Outcome:
        return failed(self._held, reason)

    @staticmethod
    def succeeded(scoring_uri: str | None) -> Outcome:
        return Outcome(State.SUCCEEDED, "it answers", scoring_uri=scoring_uri)

    @staticmethod
    def deleted(message: str) -> Outcome:
        return Outcome(State.DELETED, message)


def failed(held: Deployment, reason: str) -> Outcome:
    what = "could not be deleted" if held.state is State.DELETING else "could not be deployed"
    return Outcome(State.FAILED, what, reason=reason, remote_operation=held.remote_operation)


def _why_never(held: Deployment, progress: Progress | None) -> str | None:
    """Why the version will not come to that workspace by itself; None: it will, or is there."""
    if progress is None:
        return f"version {held.version} of {held.model_name!r} is deleted"
    if progress.workspace_id is not None and progress.workspace_id.lower() != held.workspace_id.lower():
        return f"{held.model_name!r} is mirrored to another workspace, {progress.workspace_id}"
    if progress.state == "off":
        return f"{held.model_name!r} is kept out of the mirror (its tag runmirror.mirror)"
    if progress.state == "quarantined":
        return f"{held.model_name!r} cannot be mirrored: {progress.last_error}"
    is_decided = progress.state == "current" or progress.waits_run_id is not None
    if progress.problem is not None and is_decided:  # else it is about to be tried again
        return f"the workspace's registry has no version {held.version}: {progress.problem}"
    return None


NOT_OURS = "the workspace has a {} called {!r} that runmirror did not make: choose another name"
GONE = "what was being made is not in the workspace any more"


class _Service:
    """A web service on ACI or AKS."""

    def __init__(self, one: OneDeployment, services: AzureServices) -> None:
        self._one = one
        self._services = services

    async def step(self) -> Outcome:
        held = self._one.held
        found = await self._services.get(held.name)
        owner = None if found is None else await self._one.owner(found.tags)
        if held.state is State.DELETING:
            return await self._delete(found, owner)
        if held.state is State.DEPLOYING:
            return await self._look(found, owner)
        if owner == "others":
            return failed(held, NOT_OURS.format("service", held.name))
        if owner == "self":  # whoever asked for it did not live to say so
            return self._one.still("Azure was asked for the service")
        try:
            operation = await self._one.create(self._services, overwrite=owner == "ours")
        except TargetRejected:
            # azureml-core reads the service it has just made, and stumbles over answers newer than it is.
            made = await self._services.get(held.name)
            if made is None or await self._one.owner(made.tags) != "self":
                raise
            return self._one.still("Azure was asked for the service")
        return self._one.still("Azure was asked for the service", operation)

    async def _look(self, found: RemoteService | None, owner: str | None) -> Outcome:
        held = self._one.held
        operation = await self._services.operation(held.remote_operation) if held.remote_operation else None
        is_over = operation is None or operation.state == "Succeeded"
        if operation is not None and operation.has_failed:
            return failed(held, await self._reason(found, operation))
        if found is None or owner != "self":
            return failed(held, GONE) if is_over else self._one.still("Azure was asked for the service")
        if is_over and found.state == "Healthy":
            return self._one.succeeded(found.scoring_uri)
        if is_over and found.state in {"Failed", "Unhealthy", "Unschedulable"}:
            return failed(held, await self._reason(found, operation))
        step = operation.step if operation is not None else ""
        return self._one.still(_STEPS.get(step, "Azure makes the service"))

    async def _reason(self, found: RemoteService | None, operation: RemoteOperation | None) -> str:
        told = [operation.error] if operation is not None else []
        if found is not None:
            told += [found.error, f"the service is {found.state}"]
            if tail := await self._services.log_tail(self._one.held.name):
                told.append(f"its log ends: {tail}")
        return "; ".join(dict.fromkeys(one for one in told if one)) or "Azure does not say why"

    async def _delete(self, found: RemoteService | None, owner: str | None) -> Outcome:
        if found is None:
            return self._one.deleted("nothing of it is left")
        if owner == "others":
            return self._one.deleted("what has its name in the workspace now is somebody else's, and stays")
        if found.state != "Deleting":
            await self._services.delete(self._one.held.name)
        return self._one.still("Azure takes the service away")


class _Endpoint:
    """A managed online endpoint with one deployment, which gets all calls."""

    def __init__(self, one: OneDeployment, endpoints: AzureEndpoints) -> None:
        self._one = one
        self._endpoints = endpoints

    async def step(self) -> Outcome:
        held = self._one.held
        found = await self._endpoints.endpoint(held.name)
        owner = None if found is None else await self._one.owner(found.tags)
        if held.state is State.DELETING:
            return await self._delete(found, owner)
        if owner == "others":
            return failed(held, NOT_OURS.format("endpoint", held.name))
        if found is None or owner == "ours":
            return failed(held, GONE) if held.state is State.DEPLOYING else await self._put_endpoint(found)
        if found.state in _FAILED:
            return failed(held, await self._reason("the endpoint"))
        if found.state != "Succeeded":
            return self._one.still("Azure makes the endpoint")
        return await self._deploy(found, await self._endpoints.deployment(held.name, MAIN))

    async def _put_endpoint(self, found: RemoteEndpoint | None) -> Outcome:
        held = self._one.held
        operation = await self._endpoints.put_endpoint(
            held.name, location=await self._location(found), auth_mode=_AUTH_MODES[held.spec.auth],
            tags=self._one.tags, traffic={} if found is None else found.traffic,
        )  # fmt: skip
        return self._one.still("Azure makes the endpoint", operation)

    async def _deploy(self, endpoint: RemoteEndpoint, found: RemoteDeployment | None) -> Outcome:
        held, spec = self._one.held, self._one.held.spec
        if found is None or found.tags.get(TAG) != str(held.deployment_id):
            operation = await self._endpoints.put_deployment(
                held.name, MAIN, location=endpoint.location, model=str(held.remote_name),
                model_version=str(held.remote_version), tags=self._one.tags,
                instance_type=spec.instance_type or DEFAULT_INSTANCE_TYPE, instance_count=spec.instance_count or 1,
            )  # fmt: skip
            return self._one.still("Azure builds the image and starts the instances", operation)
        if found.state in _FAILED:
            return failed(held, await self._reason("the deployment"))
        if found.state != "Succeeded":
            return self._one.still("Azure builds the image and starts the instances")
        if endpoint.traffic != {MAIN: 100}:
            operation = await self._endpoints.put_endpoint(
                held.name, location=endpoint.location, auth_mode=endpoint.auth_mode, tags=self._one.tags,
                traffic={MAIN: 100},
            )  # fmt: skip
            return self._one.still("Azure leads the calls to it", operation)
        return self._one.succeeded(endpoint.scoring_uri)

    async def _location(self, found: RemoteEndpoint | None) -> str:
        return found.location if found is not None and found.location else await self._endpoints.location()

    async def _reason(self, what: str) -> str:
        operation = self._one.held.remote_operation
        told = await self._endpoints.failure(operation) if operation else ""
        return told or f"{what} has failed, and Azure does not say why"

    async def _delete(self, found: RemoteEndpoint | None, owner: str | None) -> Outcome:
        if found is None:
            return self._one.deleted("nothing of it is left")
        if owner == "others":
            return self._one.deleted("what has its name in the workspace now is somebody else's, and stays")
        if found.state != "Deleting":
            await self._endpoints.delete(self._one.held.name)
        return self._one.still("Azure takes the endpoint away")

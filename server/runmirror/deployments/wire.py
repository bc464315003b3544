"""Requests and answers about deployments."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import Field

from runmirror.deployments.entities import Auth, Deployment, Kind, Spec, State
from runmirror.wire import Wire


class DeployRequest(Wire):
    """`model` is `models:/name/version`, `models:/name@alias` or `models:/name/latest`; `workspace` a linked one."""

    model: Annotated[str, Field(max_length=2000)]
    to: Kind
    name: Annotated[str, Field(max_length=100)]
    workspace: Annotated[str, Field(max_length=1000)] | None = None
    cpu: Annotated[float, Field(gt=0, le=1000)] | None = None
    memory_gb: Annotated[float, Field(gt=0, le=100_000)] | None = None
    instance_type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]{1,60}$")] | None = None
    instance_count: Annotated[int, Field(ge=1, le=1000)] | None = None
    aks_cluster: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]{1,60}$")] | None = None
    auth: Auth = Auth.KEY
    replace: bool = False

    def to_spec(self) -> Spec:
        return Spec(
            self.cpu, self.memory_gb, self.instance_type, self.instance_count, self.aks_cluster, self.auth
        )  # fmt: skip


class Step(Wire):
    at: datetime
    state: State
    message: str


class DeploymentAnswer(Wire):
    """A deployment and the operation that makes it: `done` when nothing more happens by itself.

    `steps` is what happened so far; `reason` why it failed; `last_error` what holds it up and is tried again, until
    `deadline_at` at most.
    """

    deployment_id: str
    state: State
    done: bool
    message: str
    model: str
    to: Kind
    name: str
    workspace_id: str
    cpu: float | None = None
    memory_gb: float | None = None
    instance_type: str | None = None
    instance_count: int | None = None
    aks_cluster: str | None = None
    auth: Auth
    scoring_uri: str | None = None
    reason: str | None = None
    last_error: str | None = None
    remote_model: str | None = None
    created_by: str
    created_at: datetime
    updated_at: datetime
    deadline_at: datetime
    steps: list[Step]

    @classmethod
    def of(cls, held: Deployment) -> Self:
        spec = held.spec
        return cls(
            deployment_id=str(held.deployment_id), state=held.state, done=not held.state.is_open, message=held.message,
            model=held.model, to=held.kind, name=held.name, workspace_id=held.workspace_id, cpu=spec.cpu,
            memory_gb=spec.memory_gb, instance_type=spec.instance_type, instance_count=spec.instance_count,
            aks_cluster=spec.aks_cluster, auth=spec.auth, scoring_uri=held.scoring_uri, reason=held.reason,
            last_error=held.last_error,
            remote_model=None if held.remote_version is None else f"{held.remote_name}:{held.remote_version}",
            created_by=held.created_by, created_at=held.created_at, updated_at=held.updated_at,
            deadline_at=held.deadline_at, steps=[Step.model_validate(step) for step in held.history],
        )  # fmt: skip


class DeploymentsAnswer(Wire):
    """A page, the newest first; without `next_page_token` it is the last."""

    deployments: list[DeploymentAnswer]
    next_page_token: str | None = None

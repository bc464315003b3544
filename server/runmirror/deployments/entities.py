"""What is asked of a deployment, and how it is doing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from runmirror.errors import InvalidParameter


class Kind(StrEnum):
    """Where a model can be deployed to."""

    ACI = "aci"
    AKS = "aks"
    ENDPOINT = "online-endpoint"


class State(StrEnum):
    WAITING = "waiting"
    CREATING = "creating"
    DEPLOYING = "deploying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"
    REPLACED = "replaced"

    @property
    def is_open(self) -> bool:
        """Whether the worker has something to do for it."""
        return self in {State.WAITING, State.CREATING, State.DEPLOYING, State.DELETING}


class Auth(StrEnum):
    """How callers of the deployed model show who they are; `token` is one of Azure ML's, `entra` one of Entra's."""

    KEY = "key"
    TOKEN = "token"  # noqa: S105 - a word for a kind
    ENTRA = "entra"
    NONE = "none"


# Only these: a managed endpoint is never open to everybody, and a container instance knows no tokens.
_AUTH_OF = {
    Kind.ACI: (Auth.KEY, Auth.NONE),
    Kind.AKS: (Auth.KEY, Auth.TOKEN, Auth.NONE),
    Kind.ENDPOINT: (Auth.KEY, Auth.TOKEN, Auth.ENTRA),
}
_NAMES = {"cpu", "memory_gb", "instance_type", "instance_count", "aks_cluster", "auth"}
_OF = {
    Kind.ACI: {"cpu", "memory_gb", "auth"},
    Kind.AKS: {"cpu", "memory_gb", "aks_cluster", "instance_count", "auth"},
    Kind.ENDPOINT: {"instance_type", "instance_count", "auth"},
}
DEFAULT_INSTANCE_TYPE = "Standard_DS3_v2"


@dataclass(frozen=True, slots=True)
class Spec:
    """The size of a deployment and who may call it; None: as the service has it by default."""

    cpu: float | None = None
    memory_gb: float | None = None
    instance_type: str | None = None
    instance_count: int | None = None
    aks_cluster: str | None = None
    auth: Auth = Auth.KEY

    @classmethod
    def of(cls, held: Mapping[str, Any]) -> "Spec":
        given = {name: held[name] for name in _NAMES if held.get(name) is not None}
        return cls(**given | {"auth": Auth(held.get("auth", Auth.KEY))})

    def as_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in sorted(_NAMES)}
        return {name: value for name, value in values.items() if value is not None}

    def check(self, kind: Kind) -> None:
        """Raise `InvalidParameter` for what this kind of deployment does not have."""
        if self.auth not in _AUTH_OF[kind]:
            raise InvalidParameter(
                f"'auth' of a deployment to {kind} is one of {', '.join(_AUTH_OF[kind])}, not {self.auth}."
            )
        for name in sorted(_NAMES - _OF[kind]):
            if getattr(self, name) is not None:
                raise InvalidParameter(f"'{name}' means nothing for a deployment to {kind}.")
        if kind is Kind.AKS and self.aks_cluster is None:
            raise InvalidParameter("'aks_cluster' is missing: the name of the workspace's AKS compute.")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A row; `remote_name` and `remote_version` are those of the registered model in the workspace."""

    deployment_id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: str
    workspace_id: str
    kind: Kind
    name: str
    registered_model_id: int
    model_name: str
    version: int
    spec: Spec
    state: State
    message: str
    history: tuple[Mapping[str, str], ...]
    reason: str | None
    last_error: str | None
    remote_name: str | None
    remote_version: str | None
    remote_operation: str | None
    scoring_uri: str | None
    attempt: int
    deadline_at: datetime
    is_late: bool  # its deadline is over, by the database's clock
    lease_token: UUID | None

    @property
    def model(self) -> str:
        return f"models:/{self.model_name}/{self.version}"

"""Web services on ACI and AKS, as model management tells of them; azureml-core makes them (`runmirror.deployments`).

Every call may be repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runmirror.mirror.azureml_http import AzureClient, Json, Refused
from runmirror.mirror.azureml_workspace import Workspace
from runmirror.mirror.redact import redact
from runmirror.mirror.target import Guard, TargetError, TargetUnavailable

_LOG_TAIL = 600


@dataclass(frozen=True, slots=True)
class RemoteService:
    """`error` is why it is as it is, in the service's words, or ""."""

    state: str
    tags: Mapping[str, str]
    scoring_uri: str | None
    error: str


@dataclass(frozen=True, slots=True)
class RemoteOperation:
    state: str
    step: str
    error: str

    @property
    def has_failed(self) -> bool:
        return self.state in {"Failed", "Cancelled", "Canceled", "TimedOut"}


class AzureServices:
    def __init__(self, client: AzureClient, guard: Guard, workspace: Workspace) -> None:
        self._client = client
        self._guard = guard
        self._url = f"{workspace.api_url}/modelmanagement/v1.0{workspace.workspace_id}"

    async def token(self) -> str:
        """With which azureml-core asks, which has no credentials of its own here."""
        self._guard()
        return await self._client.token()

    async def get(self, name: str) -> RemoteService | None:
        try:
            told = await self._ask("GET", f"/services/{name}", params={"expand": "true"})
        except Refused as error:
            if error.is_absent:
                return None
            raise
        uri = told.get("scoringUri")
        return RemoteService(
            str(told.get("state") or ""), _tags(told.get("kvTags")), str(uri) if uri else None, words(told.get("error"))
        )  # fmt: skip

    async def operation(self, operation_id: str) -> RemoteOperation | None:
        """How the making of a service is doing; None when nobody remembers it."""
        try:
            told = await self._ask("GET", f"/operations/{operation_id}")
        except Refused as error:
            if error.is_absent:
                return None
            raise
        details = told.get("operationDetails")
        step = str(details.get("subOperationType") or "") if isinstance(details, dict) else ""
        return RemoteOperation(str(told.get("state") or ""), step, words(told.get("error")))

    async def log_tail(self, name: str) -> str:
        """The end of the container's log; "" when there is none to be had."""
        try:
            told = await self._ask("GET", f"/services/{name}/logs")
        except Refused:
            return ""
        return redact(str(told.get("content") or "")[-_LOG_TAIL:])

    async def delete(self, name: str) -> None:
        """Absent is fine."""
        try:
            await self._ask("DELETE", f"/services/{name}")
        except Refused as error:
            if not error.is_absent:
                raise unless_busy(error) from None

    async def _ask(self, method: str, path: str, params: Mapping[str, str | int] | None = None) -> Json:
        return await self._client.call(self._guard, method, self._url + path, params=params)


def unless_busy(error: Refused) -> TargetError:
    """What is being changed right now can be changed later."""
    return TargetUnavailable(str(error)) if error.status == 409 else error


def words(error: Any) -> str:
    """Message and details of an error as the services tell it, in one line; "" for none."""
    if not isinstance(error, dict):
        return redact(str(error)) if error else ""
    error = error.get("error") if isinstance(error.get("error"), dict) else error
    details = [detail for detail in error.get("details") or () if isinstance(detail, dict)]
    told = [one.get("message") or one.get("code") for one in (error, *details)]
    return redact("; ".join(dict.fromkeys(str(one) for one in told if one)))


def _tags(told: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in told.items()} if isinstance(told, dict) else {}

"""Managed online endpoints: Resource Manager's REST, whose writes are asked for and then looked at until they are done.

Every call may be repeated: a PUT says how something is to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runmirror.mirror.azureml_http import AzureClient, Json, Refused, json_object
from runmirror.mirror.azureml_services import unless_busy, words
from runmirror.mirror.azureml_workspace import Workspace
from runmirror.mirror.target import Guard, TargetUnavailable

# The first one that is no preview and has all that is used here.
API_VERSION = "2023-10-01"


@dataclass(frozen=True, slots=True)
class RemoteEndpoint:
    state: str
    tags: Mapping[str, str]
    scoring_uri: str | None
    traffic: Mapping[str, int]
    location: str
    auth_mode: str


@dataclass(frozen=True, slots=True)
class RemoteDeployment:
    state: str
    tags: Mapping[str, str]


class AzureEndpoints:
    def __init__(self, client: AzureClient, guard: Guard, arm_endpoint: str, workspace: Workspace) -> None:
        self._client = client
        self._guard = guard
        self._arm = arm_endpoint.rstrip("/")
        self._workspace_id = workspace.workspace_id
        self._url = f"{self._arm}{workspace.workspace_id}/onlineEndpoints"

    async def location(self) -> str:
        """The region of the workspace, which an endpoint has to name."""
        told = await self._client.call(
            self._guard, "GET", f"{self._arm}{self._workspace_id}", params={"api-version": API_VERSION}
        )
        if not told.get("location"):
            raise TargetUnavailable("Resource Manager's answer about the workspace lacks its location")
        return str(told["location"])

    async def endpoint(self, name: str) -> RemoteEndpoint | None:
        told = await self._get(f"/{name}")
        if told is None:
            return None
        properties = _object(told.get("properties"))
        uri, traffic = properties.get("scoringUri"), _object(properties.get("traffic"))
        return RemoteEndpoint(
            str(properties.get("provisioningState") or ""), _tags(told), str(uri) if uri else None,
            {str(key): int(share) for key, share in traffic.items()}, str(told.get("location") or ""),
            str(properties.get("authMode") or ""),
        )  # fmt: skip

    async def put_endpoint(
        self, name: str, *, location: str, auth_mode: str, tags: Mapping[str, str], traffic: Mapping[str, int]
    ) -> str | None:
        """The operation that it takes, if it takes one."""
        body: Json = {
            "location": location, "identity": {"type": "SystemAssigned"}, "tags": dict(tags),
            "properties": {"authMode": auth_mode, "traffic": dict(traffic)},
        }  # fmt: skip
        return await self._put(f"/{name}", body)

    async def deployment(self, endpoint: str, name: str) -> RemoteDeployment | None:
        told = await self._get(f"/{endpoint}/deployments/{name}")
        if told is None:
            return None
        return RemoteDeployment(str(_object(told.get("properties")).get("provisioningState") or ""), _tags(told))

    async def put_deployment(
        self, endpoint: str, name: str, *, location: str, model: str, model_version: str, instance_type: str,
        instance_count: int, tags: Mapping[str, str],
    ) -> str | None:  # fmt: skip
        """A model that MLflow logged needs neither a script nor an environment there."""
        body: Json = {
            "location": location, "tags": dict(tags), "sku": {"name": "Default", "capacity": instance_count},
            "properties": {
                "endpointComputeType": "Managed", "instanceType": instance_type, "appInsightsEnabled": False,
                "model": f"{self._workspace_id}/models/{model}/versions/{model_version}",
            },
        }  # fmt: skip
        return await self._put(f"/{endpoint}/deployments/{name}", body)

    async def failure(self, operation: str) -> str:
        """Why an operation failed, in Resource Manager's words; "" when it does not say, or has not."""
        if not operation.startswith(f"{self._arm}/"):  # no other host is ever given a token
            return ""
        try:
            told = await self._client.call(self._guard, "GET", operation)
        except Refused:
            return ""
        return words(told.get("error"))

    async def delete(self, name: str) -> None:
        """With its deployments; absent is fine."""
        try:
            await self._client.ask(self._guard, "DELETE", f"{self._url}/{name}", params={"api-version": API_VERSION})
        except Refused as error:
            if not error.is_absent:
                raise unless_busy(error) from None

    async def _get(self, path: str) -> Json | None:
        try:
            return await self._client.call(self._guard, "GET", self._url + path, params={"api-version": API_VERSION})
        except Refused as error:
            if error.is_absent:
                return None
            raise

    async def _put(self, path: str, body: Json) -> str | None:
        url = self._url + path
        try:
            answer = await self._client.ask(self._guard, "PUT", url, body=body, params={"api-version": API_VERSION})
        except Refused as error:
            raise unless_busy(error) from None
        json_object(answer, has_effect=False)
        operation = answer.headers.get("Azure-AsyncOperation")
        return str(operation) if operation else None


def _object(told: Any) -> Json:
    return told if isinstance(told, dict) else {}


def _tags(told: Json) -> dict[str, str]:
    return {str(key): str(value) for key, value in _object(told.get("tags")).items()}

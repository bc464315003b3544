"""The workspace's model registry: MLflow's REST, as far as Azure ML is documented to have it.

Renaming and deleting a registered model are not supported there, and nothing is said of aliases: where the service
refuses one, a tag `runmirror.alias.{alias}` tells the version instead. All calls but `create_version` may be repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runmirror.mirror.azureml_http import AzureClient, Json, Refused
from runmirror.mirror.target import Guard, TargetUnavailable

ALIAS_TAG = "runmirror.alias."
_ABSENT = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """Aliases: version by alias, those of the service and those that tags tell."""

    description: str
    tags: Mapping[str, str]
    real_aliases: Mapping[str, str]

    @property
    def aliases(self) -> dict[str, str]:
        noted = {key.removeprefix(ALIAS_TAG): value for key, value in self.tags.items() if key.startswith(ALIAS_TAG)}
        return noted | dict(self.real_aliases)


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    version: str
    stage: str
    description: str
    tags: Mapping[str, str]


class AzureRegistry:
    """Writes by name; the caller knows which names are its own."""

    def __init__(self, client: AzureClient, guard: Guard, mlflow_url: str) -> None:
        self._client = client
        self._guard = guard
        self._url = mlflow_url

    async def model(self, name: str) -> RemoteModel | None:
        try:
            answer = await self._ask("GET", "/registered-models/get", params={"name": name})
        except Refused as error:
            if error.code == _ABSENT or error.is_absent:
                return None
            raise
        told = _part(answer, "registered_model")
        aliases = {str(entry["alias"]): str(entry["version"]) for entry in told.get("aliases") or []}
        tags = _tags(told)
        return RemoteModel(str(told.get("description") or ""), tags, aliases)

    async def create_model(self, name: str, description: str, tags: Mapping[str, str]) -> bool:
        """False when there is one of this name already."""
        try:
            await self._ask(
                "POST", "/registered-models/create", {"name": name, "description": description, "tags": _pairs(tags)}
            )
        except Refused as error:
            if "ALREADY_EXISTS" not in error.code:
                raise
            return False
        return True

    async def describe_model(self, name: str, description: str) -> None:
        await self._ask("PATCH", "/registered-models/update", {"name": name, "description": description})

    async def set_model_tag(self, name: str, key: str, value: str) -> None:
        await self._ask("POST", "/registered-models/set-tag", {"name": name, "key": key, "value": value})

    async def delete_model_tag(self, name: str, key: str) -> None:
        await self._gone("DELETE", "/registered-models/delete-tag", {"name": name, "key": key})

    async def set_alias(self, name: str, alias: str, version: str, there: RemoteModel) -> None:
        try:
            await self._ask("POST", "/registered-models/alias", {"name": name, "alias": alias, "version": version})
        except Refused:
            await self.set_model_tag(name, ALIAS_TAG + alias, version)
        else:
            if ALIAS_TAG + alias in there.tags:
                await self.delete_model_tag(name, ALIAS_TAG + alias)

    async def delete_alias(self, name: str, alias: str, there: RemoteModel) -> None:
        if ALIAS_TAG + alias in there.tags:
            await self.delete_model_tag(name, ALIAS_TAG + alias)
        if alias in there.real_aliases:
            await self._gone("DELETE", "/registered-models/alias", {"name": name, "alias": alias})

    async def versions(self, name: str) -> list[RemoteVersion]:
        wanted: dict[str, str | int] = {"filter": f"name='{name}'", "max_results": 1000}
        found: list[RemoteVersion] = []
        while True:
            answer = await self._ask("GET", "/model-versions/search", params=wanted)
            found += [_version(told) for told in answer.get("model_versions") or []]
            if not answer.get("next_page_token"):
                return found
            wanted["page_token"] = str(answer["next_page_token"])

    async def create_version(
        self, name: str, *, source: str, run_id: str, description: str, tags: Mapping[str, str]
    ) -> RemoteVersion:
        body = {"name": name, "source": source, "run_id": run_id, "description": description, "tags": _pairs(tags)}
        answer = await self._ask("POST", "/model-versions/create", body, has_effect=True)
        return _version(_part(answer, "model_version"))

    async def describe_version(self, name: str, version: str, description: str) -> None:
        body = {"name": name, "version": version, "description": description}
        await self._ask("PATCH", "/model-versions/update", body)

    async def move_version(self, name: str, version: str, stage: str) -> None:
        body = {"name": name, "version": version, "stage": stage, "archive_existing_versions": False}
        await self._ask("POST", "/model-versions/transition-stage", body)

    async def set_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        body = {"name": name, "version": version, "key": key, "value": value}
        await self._ask("POST", "/model-versions/set-tag", body)

    async def delete_version_tag(self, name: str, version: str, key: str) -> None:
        await self._gone("DELETE", "/model-versions/delete-tag", {"name": name, "version": version, "key": key})

    async def delete_version(self, name: str, version: str) -> None:
        await self._gone("DELETE", "/model-versions/delete", {"name": name, "version": version})

    async def artifact_uri(self, run_id: str) -> str:
        """Where the workspace says the files of a run are."""
        answer = await self._ask("GET", "/runs/get", params={"run_id": run_id, "run_uuid": run_id})
        uri = _part(_part(answer, "run"), "info").get("artifact_uri")
        if not uri:
            raise TargetUnavailable("Azure ML's answer lacks the run's artifact_uri")
        return str(uri).rstrip("/")

    async def _ask(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        params: Mapping[str, str | int] | None = None,
        has_effect: bool = False,
    ) -> Json:
        return await self._client.call(
            self._guard, method, self._url + path, body=body, params=params, has_effect=has_effect
        )

    async def _gone(self, method: str, path: str, body: Json) -> None:
        """What is absent already is fine."""
        try:
            await self._ask(method, path, body)
        except Refused as error:
            if error.code != _ABSENT and not error.is_absent:
                raise


def _part(answer: Json, key: str) -> Json:
    part: Any = answer.get(key)
    if not isinstance(part, dict):
        raise TargetUnavailable(f"Azure ML's answer lacks {key}", uncertain=True)
    return part


def _version(told: Any) -> RemoteVersion:
    if not isinstance(told, dict) or not told.get("version"):
        raise TargetUnavailable("Azure ML's answer holds a model version that cannot be read", uncertain=True)
    stage, description = str(told.get("current_stage") or "None"), str(told.get("description") or "")
    return RemoteVersion(str(told["version"]), stage, description, _tags(told))


def _tags(told: Json) -> dict[str, str]:
    return {str(tag["key"]): str(tag.get("value") or "") for tag in told.get("tags") or []}


def _pairs(tags: Mapping[str, str]) -> list[Json]:
    return [{"key": key, "value": value} for key, value in tags.items()]

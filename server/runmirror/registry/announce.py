"""What webhooks hear of a write of the registry: the payloads and their quirks are those of `mlflow.server.handlers`.

Each function is called in the write's transaction, after it: a model that has just become a prompt speaks as one.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.registry import queries, rules
from runmirror.webhooks import queue

_HIDDEN = (rules.IS_PROMPT, rules.PROMPT_TYPE)  # they make a prompt of a registered model, and are no news


async def model_created(connection: AsyncConnection, name: str, description: str, tags: Mapping[str, str]) -> None:
    prompt = rules.is_prompt(tags)
    told = {"name": name, "tags": _without(tags, _HIDDEN if prompt else ()), "description": description}
    await queue.record(connection, "prompt.created" if prompt else "registered_model.created", told)


async def version_created(
    connection: AsyncConnection,
    name: str,
    version: int,
    *,
    source: str,
    run_id: str,
    description: str,
    tags: Mapping[str, str],
) -> None:
    prompt = rules.is_prompt(tags)
    told: dict[str, Any] = {"name": name, "version": str(version)}
    if prompt:
        told |= {"template": tags.get(rules.PROMPT_TEXT), "tags": _without(tags, (*_HIDDEN, rules.PROMPT_TEXT))}
    else:
        told |= {"source": source, "run_id": run_id or None, "tags": dict(tags)}
    told["description"] = description or None
    await queue.record(connection, "prompt_version.created" if prompt else "model_version.created", told)


async def model_tag_changed(connection: AsyncConnection, model: int, name: str, *, key: str, value: str | None) -> None:
    """Set to `value`, or deleted; of registered models that are no prompts MLflow tells nobody."""
    if await queries.is_prompt(connection, model):
        await queue.record(connection, f"prompt_tag.{_change(value)}", {"name": name, **_tag(key, value)})


async def version_tag_changed(
    connection: AsyncConnection, model: int, name: str, version: str, *, key: str, value: str | None
) -> None:
    """Set to `value`, or deleted; `version` as it was sent."""
    entity = "prompt_version_tag" if await queries.is_prompt(connection, model) else "model_version_tag"
    told = {"name": name, "version": version, **_tag(key, value)}
    await queue.record(connection, f"{entity}.{_change(value)}", told)


async def alias_changed(connection: AsyncConnection, model: int, name: str, *, alias: str, version: str | None) -> None:
    """Pointed to `version`, as it was sent, or deleted."""
    entity = "prompt_alias" if await queries.is_prompt(connection, model) else "model_version_alias"
    told = {"name": name, "alias": alias}
    if version is None:
        await queue.record(connection, f"{entity}.deleted", told)
    else:
        await queue.record(connection, f"{entity}.created", {**told, "version": version})


def _without(tags: Mapping[str, str], hidden: Collection[str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key not in hidden}


def _change(value: str | None) -> str:
    return "deleted" if value is None else "set"


def _tag(key: str, value: str | None) -> dict[str, str]:
    return {"key": key} if value is None else {"key": key, "value": value}

"""One function per write of the registry: the rules of MLflow and their order."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.auth import permits
from runmirror.auth.levels import Kind
from runmirror.entities import Tag
from runmirror.errors import (
    AlreadyExists,
    InvalidParameter,
    ModelVersionNotFound,
    RegisteredModelNotFound,
    RunNotFound,
)
from runmirror.logged_models import queries as logged_model_queries
from runmirror.mirror import model_queue
from runmirror.registry import announce, queries, rules, source_queries, sources
from runmirror.registry.sources import Source
from runmirror.runs import writes

VERSIONS_OF_LOGGED_MODEL = "mlflow.modelVersions"  # MLflow's pages read it: [{"name": …, "version": …}]


async def create_model(connection: AsyncConnection, name: str, description: str, tags: Sequence[Tag]) -> None:
    rules.check_model_name(name)
    for tag in tags:
        rules.check_tag(tag)
    by_key = rules.tags_by_key(tags)
    model = await queries.create_model(connection, name, description, by_key, _now_ms())
    if model is not None:
        await permits.current().created(connection, Kind.REGISTERED_MODEL, model)
        await model_queue.mark_behind(connection, model)
        await announce.model_created(connection, name, description, by_key)
        return
    taken = await queries.load_models(connection, [name])
    was_prompt = bool(taken) and rules.is_prompt({tag["key"]: tag["value"] for tag in taken[0].tags or ()})
    raise _taken(name, prompt=rules.is_prompt(by_key), by_prompt=was_prompt)


async def rename(connection: AsyncConnection, name: str, new_name: str) -> None:
    rules.check_model_name(new_name, "new_name")
    now_ms = _now_ms()
    model = await _begin(connection, name, now_ms)
    try:
        if await queries.name_taken(connection, model, new_name):
            raise AlreadyExists(f"Registered Model (name={new_name}) already exists.")
        await queries.rename(connection, model, new_name, now_ms)
    except IntegrityError as error:  # taken since we looked
        raise AlreadyExists(f"Registered Model (name={new_name}) already exists.") from error


async def describe_model(connection: AsyncConnection, name: str, description: str) -> None:
    model = await _begin(connection, name, _now_ms())
    await queries.describe_model(connection, model, description)


async def delete_model(connection: AsyncConnection, name: str) -> None:
    """Erase a registered model with its versions, aliases and tags; the files stay where they are."""
    rules.check_model_name(name)
    model = await queries.delete_model(connection, name)
    if model is None:
        raise RegisteredModelNotFound(name)
    await model_queue.mark_deleted(connection, model)
    await audit.record(connection, "registered_model.delete", name)


async def set_model_tag(connection: AsyncConnection, name: str, tag: Tag) -> None:
    rules.check_model_name(name)
    rules.check_tag(tag)
    model = await _begin(connection, name)
    await queries.set_model_tag(connection, model, tag.key, tag.value)
    await announce.model_tag_changed(connection, model, name, key=tag.key, value=tag.value)


async def delete_model_tag(connection: AsyncConnection, name: str, key: str) -> None:
    """A tag that is not there is fine."""
    rules.check_model_name(name)
    rules.check_tag(Tag(key, ""))
    model = await _begin(connection, name)
    await queries.delete_model_tag(connection, model, key)
    await announce.model_tag_changed(connection, model, name, key=key, value=None)


async def set_alias(connection: AsyncConnection, name: str, alias: str, version: str) -> None:
    """Point an alias to a version, whatever it pointed to before."""
    rules.check_model_name(name)
    rules.check_new_alias(alias)
    model, number = await _begin_with_version(connection, name, version)
    await queries.set_alias(connection, model, alias, number)
    await announce.alias_changed(connection, model, name, alias=alias, version=version)


async def delete_alias(connection: AsyncConnection, name: str, alias: str) -> None:
    """An alias that is not there is fine."""
    rules.check_model_name(name)
    rules.check_alias(alias)
    model = await _begin(connection, name)
    await queries.delete_alias(connection, model, alias)
    await announce.alias_changed(connection, model, name, alias=alias, version=None)


async def create_version(
    connection: AsyncConnection,
    name: str,
    *,
    source: str,
    run_id: str | None,
    model_id: str | None,
    tags: Sequence[Tag],
    run_link: str,
    description: str,
) -> int:
    """The number of a new version. Raises `InvalidParameter` unless its files lie in our store (see `sources`)."""
    by_key = rules.tags_by_key(tags)
    found = await sources.resolve(connection, source, run_id=run_id, model_id=model_id, tags=by_key)
    rules.check_model_name(name)
    for tag in tags:
        rules.check_tag(tag)
    now_ms = _now_ms()
    begun = await queries.begin_version(connection, name, now_ms)
    if begun is None:
        raise RegisteredModelNotFound(name)
    model, version = begun
    await model_queue.mark_behind(connection, model)
    await queries.create_version(
        connection, model, version, source=found.uri, storage_location=found.storage_location, run_id=found.run_id,
        run_link=run_link, description=description, tags=by_key, now_ms=now_ms,
    )  # fmt: skip
    if found.model_id is not None:
        await _note_on_logged_model(connection, found, found.model_id, name, version)
    await announce.version_created(
        connection, name, version, source=found.uri, run_id=found.run_id, description=description, tags=by_key
    )
    return version


async def describe_version(connection: AsyncConnection, name: str, version: str, description: str | None) -> None:
    """Replace the description; None takes it away."""
    model, number = await _begin_with_version(connection, name, version)
    await queries.describe_version(connection, model, number, description, _now_ms())


async def move_version(connection: AsyncConnection, name: str, version: str, stage: str, *, archive: bool) -> None:
    canonical = rules.canonical_stage(stage)
    if archive and canonical not in rules.ACTIVE_STAGES:
        raise InvalidParameter(
            f"Model version transition cannot archive existing model versions because '{stage}' is not an Active "
            f"stage. Valid stages are {list(rules.ACTIVE_STAGES)}"
        )
    now_ms = _now_ms()
    model, number = await _begin_with_version(connection, name, version, now_ms)
    await queries.move_version(connection, model, number, canonical, archive=archive, now_ms=now_ms)


async def delete_version(connection: AsyncConnection, name: str, version: str) -> None:
    now_ms = _now_ms()
    model, number = await _begin_with_version(connection, name, version, now_ms)
    await queries.delete_version(connection, model, number, now_ms)
    await audit.record(connection, "model_version.delete", f"{name}/{number}")


async def set_version_tag(connection: AsyncConnection, name: str, version: str, tag: Tag) -> None:
    rules.check_model_name(name)
    rules.check_tag(tag)
    model, number = await _begin_with_version(connection, name, version)
    await queries.set_version_tag(connection, model, number, tag.key, tag.value)
    await announce.version_tag_changed(connection, model, name, version, key=tag.key, value=tag.value)


async def delete_version_tag(connection: AsyncConnection, name: str, version: str, key: str) -> None:
    """A tag that is not there is fine."""
    rules.check_model_name(name)
    rules.check_tag(Tag(key, ""))
    model, number = await _begin_with_version(connection, name, version)
    await queries.delete_version_tag(connection, model, number, key)
    await announce.version_tag_changed(connection, model, name, version, key=key, value=None)


async def _begin(connection: AsyncConnection, name: str, now_ms: int | None = None) -> int:
    rules.check_model_name(name)
    model = await queries.begin(connection, name, now_ms)
    if model is None:
        raise RegisteredModelNotFound(name)
    await model_queue.mark_behind(connection, model)
    return model


async def _begin_with_version(
    connection: AsyncConnection, name: str, version: str, now_ms: int | None = None
) -> tuple[int, int]:
    """The locked registered model and the number of a version that it has; raises `ModelVersionNotFound` for both."""
    rules.check_model_name(name)
    number = rules.parse_version(name, version)
    model = await queries.begin(connection, name, now_ms)
    if model is None or not await queries.has_version(connection, model, number):
        raise ModelVersionNotFound(name, number)
    await model_queue.mark_behind(connection, model)
    return model, number


async def _note_on_logged_model(
    connection: AsyncConnection, source: Source, model_id: str, name: str, version: int
) -> None:
    """Add the version to the logged model's list; locked in the order of all its writers: the run, then the model."""
    if source.made_by is not None:
        with suppress(RunNotFound):  # a run of another server
            await writes.begin(connection, source.made_by, stage=None)
    await source_queries.lock_logged_model(connection, model_id)
    noted = _read_list(await source_queries.tag_of_logged_model(connection, model_id, VERSIONS_OF_LOGGED_MODEL))
    entries = [*noted, {"name": name, "version": version}]
    await logged_model_queries.set_tags(connection, model_id, {VERSIONS_OF_LOGGED_MODEL: json.dumps(entries)})


def _read_list(value: str | None) -> list[object]:
    """What somebody wrote over with other text is no list, and begins anew."""
    try:
        found = json.loads(value or "[]")
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _taken(name: str, *, prompt: bool, by_prompt: bool) -> AlreadyExists:
    asked, there = (("Prompt" if one else "Registered Model") for one in (prompt, by_prompt))
    if asked == there:
        return AlreadyExists(f"{asked} (name={name}) already exists.")
    return AlreadyExists(
        f"Tried to create a {asked.lower()} with name {name!r}, but the name is already taken by a {there.lower()}. "
        "MLflow does not allow creating a model and a prompt with the same name."
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

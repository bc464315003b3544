"""Registered models: each one transaction, versions under their own numbers, sources led to where we have the files.

One of the same name that is here and did not come from this source is refused: two counts of versions cannot be one.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy.engine import Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.errors import RunmirrorError
from runmirror.importing import models_queries, queries, rules
from runmirror.importing.entities import OldRegisteredModel, OldVersion, fingerprint
from runmirror.importing.models import Written
from runmirror.importing.rules import Refused
from runmirror.mirror import model_queue
from runmirror.mirror.own_tags import MIRROR_TAG
from runmirror.registry import queries as registry_queries
from runmirror.registry import rules as registry_rules
from runmirror.registry.sources import PROMPT_PLACEHOLDERS

KIND = "registered_model"
_ID_IN_URI = re.compile(r"(?<![0-9A-Za-z])m-[0-9a-f]{32}(?![0-9A-Za-z])|(?<![0-9A-Za-z-])[0-9a-f]{32}(?![0-9A-Za-z])")
_LOGGED = re.compile(r"models:/(m-[0-9a-f]{32})")
_OF_VERSION = re.compile(r"models:/([^/@]+)/(\d+)")
_RUNS = re.compile(r"runs:/([^/]+)(/.*)?")


async def write(engine: AsyncEngine, source_id: int, model: OldRegisteredModel, *, mirror: bool) -> Written:
    """Bring it, if it is new or has changed. A version whose files are not here is refused, the others come."""
    if not mirror:
        model = msgspec.structs.replace(model, tags={**model.tags, MIRROR_TAG: "off"})
    told = Written()
    print_ = fingerprint(model)
    try:
        rules.check_registered_model(model)
        async with engine.begin() as connection:
            before = (await queries.known(connection, source_id, KIND, [model.name])).get(model.name)
            if before is not None and before.fingerprint == print_:
                told.unchanged += 1
                return told
            refused = await _Writing(connection, source_id, model, before).all()
            # What is refused today may have its files tomorrow, so then it is tried again.
            mark = print_ if not refused else f"{print_} without {len(refused)}"
            note = {"key": model.name, "target": model.name, "fingerprint": mark}
            await queries.note(connection, source_id, KIND, [note])
    except (Refused, RunmirrorError, DBAPIError) as error:
        told.refused.append((model.name, getattr(error, "message", str(error).splitlines()[0])))
        return told
    told.refused += [(f"{model.name}/{version}", why) for version, why in refused]
    told.new += before is None
    told.changed += before is not None
    return told


class _Writing:
    def __init__(
        self, connection: AsyncConnection, source_id: int, model: OldRegisteredModel, before: Row[Any] | None
    ) -> None:
        self._connection = connection
        self._source_id = source_id
        self._model = model
        self._before = before

    async def all(self) -> Sequence[tuple[int, str]]:
        """Which versions are refused, and why."""
        model = self._model
        key = await self._open()
        refused = []
        for version in model.versions:
            try:
                rules.check_version(version)
                await self._version(key, version)
            except Refused as error:
                refused.append((version.version, str(error)))
        left_out = {version for version, _ in refused}
        for alias, number in model.aliases.items():
            if number not in left_out and await registry_queries.has_version(self._connection, key, number):
                await registry_queries.set_alias(self._connection, key, alias, number)
        last = max([model.last_version, *(version.version for version in model.versions)])
        await models_queries.shape_registered_model(
            self._connection, key,
            {
                "description": model.description, "creation_time_ms": model.creation_time_ms,
                "last_updated_time_ms": model.last_updated_time_ms, "last_version": last,
            },
        )  # fmt: skip
        await model_queue.mark_behind(self._connection, key)
        return refused

    async def _open(self) -> int:
        model = self._model
        if self._before is not None:
            key = await registry_queries.begin(self._connection, model.name, None)
            if key is None:
                raise Refused("it was imported before and has been deleted or renamed here since")
            for tag, value in model.tags.items():
                await registry_queries.set_model_tag(self._connection, key, tag, value)
            return key
        made = await registry_queries.create_model(
            self._connection, model.name, model.description, model.tags, model.creation_time_ms
        )
        if made is None:
            raise Refused("a registered model of this name is here already and did not come from this source")
        return made

    async def _version(self, key: int, version: OldVersion) -> None:
        if not await registry_queries.has_version(self._connection, key, version.version):
            source, location = await self._source(version)
            await registry_queries.create_version(
                self._connection, key, version.version, source=source, storage_location=location,
                run_id=version.run_id, run_link=version.run_link, description=version.description or "",
                tags=version.tags, now_ms=version.creation_time_ms,
            )  # fmt: skip
        else:
            for tag, value in version.tags.items():
                await registry_queries.set_version_tag(self._connection, key, version.version, tag, value)
        await models_queries.shape_version(
            self._connection, key, version.version,
            {
                "creation_time_ms": version.creation_time_ms, "last_updated_time_ms": version.last_updated_time_ms,
                "stage": registry_rules.canonical_stage(version.stage), "description": version.description,
            },
        )  # fmt: skip

    async def _source(self, version: OldVersion) -> tuple[str, str]:
        """Its source, and where its files are to be downloaded here. Raises `Refused` when they are not here."""
        source = version.source
        if source in PROMPT_PLACEHOLDERS:
            return source, source
        if (match := _LOGGED.fullmatch(source)) is not None:
            location = await models_queries.model_location(self._connection, match[1])
            if location is None:
                raise Refused(f"its logged model {match[1]} is not here")
            return source, location
        if (match := _RUNS.fullmatch(source)) is not None:
            if not await self._moved([match[1]], None):
                raise Refused(f"its run {match[1][:80]} is not here")
            return source, source
        if (match := _OF_VERSION.fullmatch(source)) is not None:
            other = await registry_queries.get_version(self._connection, match[1], int(match[2]))
            if other is not None:
                return source, other.storage_location
        for uri in (source, version.storage_location):
            keys = [version.run_id, *_ID_IN_URI.findall(uri)]
            if uri and (moved := await self._moved([key for key in keys if key], uri)):
                return (moved if uri == source else source), moved
        raise Refused(f"its files are at {source[:300]!r}, which belongs to no run or logged model that was imported")

    async def _moved(self, keys: Sequence[str], uri: str | None) -> str | None:
        """Where what lay at `uri` lies here; with None, where anything of these does."""
        for row in await models_queries.places(self._connection, self._source_id, keys):
            if row.artifact_uri is None:
                continue
            if uri is None:
                return str(row.artifact_uri)
            old, wanted = _plain(row.old_uri), _plain(uri)
            if old and (wanted == old or wanted.startswith(old + "/")):
                return str(row.artifact_uri) + wanted[len(old) :]
        return None


def _plain(uri: str) -> str:
    """Addresses of one place, written in one way: `file:///x`, `/x` and `mlflow-artifacts://host/x`."""
    uri = uri.rstrip("/")
    if uri.startswith("file:"):
        return "/" + uri.removeprefix("file:").lstrip("/")
    return re.sub(r"^mlflow-artifacts:/*([^/]*:\d+/)?", "mlflow-artifacts:/", uri)

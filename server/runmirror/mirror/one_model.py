"""Mirrors one leased registered model: its versions in order, then what is said of them, aliases last.

Whenever this process dies: a version there is found again by two tags, what was set there is noted before it is sent,
and everything but the creation of a version may be done twice.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror import model_queries, model_queue, remote_names
from runmirror.mirror.azureml_registry import ALIAS_TAG, RemoteModel, RemoteVersion
from runmirror.mirror.keeper import clock_s
from runmirror.mirror.model_queries import RemotePlace, SourceModel, SourceVersion
from runmirror.mirror.model_queue import ModelLease, Wait, union
from runmirror.mirror.queue import LeaseLost
from runmirror.mirror.target import Target, TargetRejected, TargetUnavailable
from runmirror.settings import Settings

log = logging.getLogger(__name__)

_P = ParamSpec("_P")

KEY_TAG, VERSION_TAG, NAME_TAG = "runmirror.model", "runmirror.version", "runmirror.name"
SOURCE_TAG, DELETED_TAG = "runmirror.source", "runmirror.deleted"
_OURS = {KEY_TAG, VERSION_TAG, NAME_TAG, SOURCE_TAG, DELETED_TAG}
NO_FILES = "no mirrored run has its files"
ELSEWHERE = "its files are in another workspace: its run goes there, the model's first version does not"
REVISED = "files of it were overwritten at the source, and the workspace keeps the earlier content"
_LONGEST_PROBLEM, _MOST_PROBLEMS = 500, 50


class OneModel:
    """The work under one lease. Raises `LeaseLost`, `TargetError`."""

    def __init__(
        self, settings: Settings, engine: AsyncEngine, target: Target, lease: ModelLease, *, asked_at: float
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._lease = lease
        self._request_s = settings.mirror_timeout.total_seconds()
        self._lease_s = settings.mirror_lease.total_seconds()
        self._until = asked_at + self._lease_s
        self._target = target.under(self._check)
        self._registry = self._target.registry()
        self._wait: Wait | None = None
        self._known: dict[int, tuple[str | None, str | None]] = {}
        self._problems: list[str] = []

    def _check(self) -> None:
        """As `Keeper.check`: nothing is sent that could outlast the lease."""
        if clock_s() + self._request_s > self._until:
            raise LeaseLost(f"registered model {self._lease.model}")

    async def _stay(self) -> None:
        """Renew the lease in time: a model may have thousands of versions."""
        asked_at = clock_s()
        if asked_at + self._request_s > self._until - self._lease_s / 2:
            async with self._engine.begin() as connection:
                await model_queue.renew(connection, self._lease, self._settings.mirror_lease)
            self._until = asked_at + self._lease_s

    async def mirror(self) -> None:
        async with self._engine.connect() as connection:
            model = await model_queries.read_model(connection, self._lease.model)
            self._known = await model_queries.known_versions(connection, self._lease.model)
        if model is None:
            await self._forget()
            await self._finish(0, {})
        elif model.is_prompt:  # it has no files, and the workspace takes none without
            await self._finish(model.seq, self._lease.told)
        else:
            name, remote = await self._remote_model(model)
            numbers = await self._versions(name, model)
            told = await self._describe(name, remote, model, numbers)
            await self._finish(model.seq, told)

    async def _remote_model(self, model: SourceModel) -> tuple[str, RemoteModel]:
        """The registered model there: by its name, unless that is somebody else's."""
        if (name := self._lease.remote_name) is not None:
            remote = await self._registry.model(name) or await self._create(name, model)
            if remote is not None:
                return name, remote
        for candidate in remote_names.model_names(model.name, self._lease.model):
            remote = await self._registry.model(candidate)
            async with self._engine.begin() as connection:
                owner = None if remote is None else remote.tags.get(KEY_TAG)
                left = await model_queries.left_by_deleted(connection, candidate, self._lease)
                if left is False:
                    raise TargetUnavailable(f"the deletion of the model that was {candidate!r} is not mirrored yet")
                if not (remote is None or owner == model.key or (owner is not None and left)):
                    continue
                lease = await model_queue.bind(connection, self._lease, candidate)
            if lease is None:
                continue
            self._lease = lease
            remote = remote or await self._create(candidate, model)
            if remote is not None:
                return candidate, remote
        raise TargetRejected(f"the workspace has registered models of others by every name that {model.name!r} may get")

    async def _create(self, name: str, model: SourceModel) -> RemoteModel | None:
        """With what it is found by alone, which nobody refuses; None if somebody else was faster."""
        tags = {KEY_TAG: model.key, SOURCE_TAG: self._settings.mirror_source}
        return RemoteModel("", tags, {}) if await self._registry.create_model(name, "", tags) else None

    async def _versions(self, name: str, model: SourceModel) -> dict[int, RemoteVersion]:
        """Create what is missing, in the order of the numbers here; what is there, by our number."""
        there = {
            int(remote.tags[VERSION_TAG]): remote
            for remote in await self._registry.versions(name)
            if remote.tags.get(KEY_TAG) == model.key and remote.tags.get(VERSION_TAG, "").isdigit()
        }
        for version in model.versions:
            remote = there.get(version.version)
            if version.is_deleted:
                if remote is not None:
                    await self._delete(name, remote)
                    del there[version.version]
                await self._save(version.version, None)
            elif remote is not None:
                await self._save(version.version, remote.version)
            elif self._wait is None or self._wait.is_aside:
                made = await self._create_version(name, model, version)
                if made is not None:
                    there[version.version] = made
        return there

    async def _create_version(self, name: str, model: SourceModel, version: SourceVersion) -> RemoteVersion | None:
        async with self._engine.connect() as connection:
            place = await model_queries.remote_place(connection, version.storage_location)
        problem = _problem(place, self._lease.link_id)
        if place is None or problem is not None:
            await self._save(version.version, None, problem)
            return None
        if not place.is_there:
            wait = Wait(place.run_id, place.seq, is_aside=not place.is_on_its_way)
            if self._wait is None or not wait.is_aside:
                self._wait = wait
            return None
        own = {KEY_TAG: model.key, VERSION_TAG: str(version.version)}
        reason = ""
        # Without what else is said of it, if it is refused with that: one word keeps no version away.
        for description, tags in ((version.description, _spoken(version.tags) | own), ("", own)):
            await self._stay()
            try:
                made = await self._registry.create_version(
                    name, source=await self._source(place), run_id=str(place.remote_run_id), description=description,
                    tags=tags,
                )  # fmt: skip
            except TargetRejected as error:
                reason = reason or str(error)[:_LONGEST_PROBLEM]
            else:
                await self._save(version.version, made.version)
                log.info("registered model %s: version %d is version %s there", name, version.version, made.version)
                return RemoteVersion(made.version, made.stage, description, tags)
        await self._target.probe()  # a workspace that is not in its place refuses everything
        await self._save(version.version, None, reason)
        return None

    async def _source(self, place: RemotePlace) -> str:
        root = await self._registry.artifact_uri(str(place.remote_run_id))
        return f"{root}/{place.path}" if place.path else root

    async def _describe(
        self, name: str, remote: RemoteModel, model: SourceModel, there: Mapping[int, RemoteVersion]
    ) -> dict[str, Any]:
        """Tags, descriptions, stages and aliases; what we may have set before and is gone here is taken away."""
        registry, before = self._registry, self._lease.told
        aliases = {alias: there[number].version for alias, number in model.aliases.items() if number in there}
        versions = {version.version: version for version in model.versions if version.version in there}
        told = {
            "tags": sorted(_spoken(model.tags)),
            "aliases": sorted(aliases),
            "versions": {str(number): sorted(_spoken(version.tags)) for number, version in versions.items()},
        }
        await self._tell(_both(before, told))
        if remote.description != model.description:
            await self._try("the description", registry.describe_model, name, model.description)
        wanted = _spoken(model.tags) | {KEY_TAG: model.key, SOURCE_TAG: self._settings.mirror_source}
        wanted |= {NAME_TAG: model.name} if name != model.name else {}
        gone = [*before.get("tags", ()), DELETED_TAG, NAME_TAG]
        for key, value in _changed(wanted, remote.tags):
            await self._try(f"the tag {key!r}", registry.set_model_tag, name, key, value)
        for key in _obsolete(gone, wanted, remote.tags):
            await self._try(f"the tag {key!r}", registry.delete_model_tag, name, key)
        for number, version in versions.items():
            await self._describe_version(name, there[number], version, before.get("versions", {}).get(str(number), ()))
        for alias, remote_version in _changed(aliases, remote.aliases):
            await self._try(f"the alias {alias!r}", registry.set_alias, name, alias, remote_version, remote)
        for alias in _obsolete(before.get("aliases", ()), aliases, remote.aliases):
            await self._try(f"the alias {alias!r}", registry.delete_alias, name, alias, remote)
        if self._problems:
            await self._target.probe()
        return told

    async def _describe_version(
        self, name: str, remote: RemoteVersion, version: SourceVersion, before: list[str]
    ) -> None:
        registry, number, of = self._registry, remote.version, f"of version {version.version}"
        if remote.description != version.description:
            await self._try(f"the description {of}", registry.describe_version, name, number, version.description)
        wanted = _spoken(version.tags)
        for key, value in _changed(wanted, remote.tags):
            await self._try(f"the tag {key!r} {of}", registry.set_version_tag, name, number, key, value)
        for key in _obsolete(before, wanted, remote.tags):
            await self._try(f"the tag {key!r} {of}", registry.delete_version_tag, name, number, key)
        if remote.stage != version.stage:
            await self._try(f"the stage {of}", registry.move_version, name, number, version.stage)

    async def _try(self, what: str, ask: Callable[_P, Awaitable[None]], *said: _P.args, **more: _P.kwargs) -> None:
        """What is refused keeps nothing else of the model away; it is shown, and tried again with the next write."""
        await self._stay()
        try:
            await ask(*said, **more)
        except TargetRejected as error:
            self._problems.append(f"{what} is refused: {error}"[:_LONGEST_PROBLEM])

    async def _forget(self) -> None:
        """The model is deleted here: so are its versions. The service deletes no registered models, so that stays."""
        name = self._lease.remote_name
        if name is None or await self._registry.model(name) is None:
            return
        ours = {number for number, _ in self._known.values()}
        for remote in await self._registry.versions(name):
            # Also one that was made just before a crash. The first part of a key is the model's id.
            if remote.version in ours or remote.tags.get(KEY_TAG, "").startswith(f"{self._lease.model}-"):
                await self._delete(name, remote)
        await self._try("the tag of its deletion", self._registry.set_model_tag, name, DELETED_TAG, "true")
        if self._problems:
            await self._target.probe()

    async def _delete(self, name: str, remote: RemoteVersion) -> None:
        what = f"the deletion of version {remote.version} there"
        if self._settings.mirror_deleted_models == "delete":
            await self._try(what, self._registry.delete_version, name, remote.version)
        elif DELETED_TAG not in remote.tags:
            await self._try(what, self._registry.set_version_tag, name, remote.version, DELETED_TAG, "true")

    async def _save(self, version: int, remote_version: str | None, problem: str | None = None) -> None:
        """Remember which version there is ours, or why none is."""
        if self._known.get(version, (None, None)) == (remote_version, problem):
            return
        asked_at = clock_s()
        async with self._engine.begin() as connection:
            await model_queue.save_version(
                connection, self._lease, version, ttl=self._settings.mirror_lease, remote_version=remote_version,
                problem=problem,
            )  # fmt: skip
        self._until = asked_at + self._lease_s

    async def _tell(self, told: Mapping[str, Any]) -> None:
        if told != self._lease.told:
            async with self._engine.begin() as connection:
                self._lease = await model_queue.tell(connection, self._lease, told, self._settings.mirror_lease)

    async def _finish(self, seq: int, told: Mapping[str, Any]) -> None:
        async with self._engine.begin() as connection:
            await model_queue.finish(
                connection, self._lease, seq=seq, told=told, wait=self._wait, problems=self._problems[:_MOST_PROBLEMS]
            )  # fmt: skip


def _problem(place: RemotePlace | None, link_id: int) -> str | None:
    """Why the workspace can have no version of files that are there."""
    if place is None:
        return NO_FILES
    if place.is_elsewhere(link_id):
        return ELSEWHERE
    return REVISED if place.is_there and place.is_revised else None


def _spoken(tags: Mapping[str, str]) -> dict[str, str]:
    """Without the keys that are the mirror's own."""
    return {key: value for key, value in tags.items() if key not in _OURS and not key.startswith(ALIAS_TAG)}


def _changed(wanted: Mapping[str, str], there: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(key, value) for key, value in sorted(wanted.items()) if there.get(key) != value]


def _obsolete(before: Any, wanted: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What we set and is not wanted any more: what others have set there stays."""
    return sorted(key for key in set(before) - set(wanted) if key in there)


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    numbers = union(one.get("versions", {}), other["versions"])
    versions = {n: union(one.get("versions", {}).get(n, ()), other["versions"].get(n, ())) for n in numbers}
    return {kind: union(one.get(kind, ()), other[kind]) for kind in ("tags", "aliases")} | {"versions": versions}

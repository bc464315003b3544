"""A registered model as it stands at the source, and where a version's files are in the workspace."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.artifacts import queries as artifact_queries
from runmirror.artifacts.places import Place, ids_in, place_below
from runmirror.errors import RunmirrorError
from runmirror.mirror.model_queue import ModelLease
from runmirror.mirror.queries import FOLDER
from runmirror.registry import rules, sources

DELETED = "Deleted_Internal"


@dataclass(frozen=True, slots=True)
class SourceVersion:
    version: int
    stage: str
    description: str
    storage_location: str
    tags: Mapping[str, str]

    @property
    def is_deleted(self) -> bool:
        return self.stage == DELETED


@dataclass(frozen=True, slots=True)
class SourceModel:
    """`key` is the model's own wherever it goes: its id is given out once more in every database."""

    seq: int
    key: str
    name: str
    description: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    versions: tuple[SourceVersion, ...]

    @property
    def is_prompt(self) -> bool:
        return rules.is_prompt(self.tags)


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """Where a version's files are, or will be: `path` below the artifacts of the run's mirror ("": all of them).

    They are there when `watermark` is not below `seq` and the run has a remote id. `is_revised`: some were overwritten
    after the workspace had got them, and it keeps the earlier content. `link_id`: where the run goes, None: nowhere.
    `is_unrouted`: that is not decided.
    """

    run_id: UUID
    path: str
    seq: int
    watermark: int
    state: str
    remote_run_id: str | None
    remote_experiment_id: str | None
    is_revised: bool
    link_id: int | None
    is_unrouted: bool

    @property
    def is_on_its_way(self) -> bool:
        """Whether somebody is to mirror the run."""
        return self.is_unrouted or (self.link_id is not None and self.state in {"current", "due", "leased"})

    @property
    def is_there(self) -> bool:
        return not self.is_unrouted and self.remote_run_id is not None and self.watermark >= self.seq

    def is_elsewhere(self, link_id: int) -> bool:
        """Whether another workspace than this one gets them."""
        return not self.is_unrouted and self.link_id not in {None, link_id}


_MODEL = text("""
    SELECT seq, creation_time_ms, name, description,
        (SELECT COALESCE(jsonb_object_agg(key, value), '{}') FROM registered_model_tags t
         WHERE t.registered_model_id = m.registered_model_id) AS tags,
        (SELECT COALESCE(jsonb_object_agg(alias, version), '{}') FROM registered_model_aliases a
         WHERE a.registered_model_id = m.registered_model_id) AS aliases
    FROM registered_models m WHERE registered_model_id = :model
""").columns(tags=JSONB, aliases=JSONB)

_VERSIONS = text("""
    SELECT version, current_stage, COALESCE(description, ''), storage_location,
        (SELECT COALESCE(jsonb_object_agg(key, value), '{}') FROM model_version_tags t
         WHERE t.registered_model_id = v.registered_model_id AND t.version = v.version) AS tags
    FROM model_versions v WHERE registered_model_id = :model ORDER BY version
""").columns(tags=JSONB)

_PLACE = text(f"""
    SELECT files.run_id, folder, mirrors.watermark, mirrors.state, mirrors.remote_run_id, mirrors.remote_experiment_id,
        mirrors.link_id, mirrors.unrouted IS NOT NULL AS unrouted, whole.path,
        EXISTS (
            SELECT FROM mirror_overflows AS told
            WHERE told.run_id = files.run_id AND told.kind = 'revision'
                AND (whole.path = '' OR told.key = whole.path OR starts_with(told.key, whole.path || '/'))) AS revised,
        (SELECT COALESCE(max(seq), 0) FROM artifacts AS a
         WHERE a.run_id = files.run_id AND a.model_id = files.model_id AND NOT a.deleted
            AND (files.path = '' OR a.path = files.path OR starts_with(a.path, files.path || '/'))) AS seq
    FROM (SELECT CAST(:run_id AS uuid) AS run_id, CAST(:model_id AS text) AS model_id, CAST(:path AS text) AS path)
            AS files
        JOIN mirrors ON mirrors.run_id = files.run_id
        CROSS JOIN LATERAL (SELECT split_part(files.path, '/', 1)) AS first (segment)
        LEFT JOIN logged_models AS model ON model.model_id = files.model_id
        CROSS JOIN LATERAL (SELECT {FOLDER}) AS placed (folder)
        CROSS JOIN LATERAL (SELECT concat_ws('/', nullif(folder, ''), nullif(files.path, ''))) AS whole (path)
""")

_KNOWN_VERSIONS = text("""
    SELECT version, remote_version, problem FROM mirrored_versions WHERE registered_model_id = :model
""")

_NAME_OF_DELETED = text("""
    SELECT bool_and(state NOT IN ('due', 'leased')) FROM mirrored_models
    WHERE link_id = :link_id AND remote_name = :name AND deleted AND registered_model_id <> :model
""")


async def read_model(connection: AsyncConnection, model: int) -> SourceModel | None:
    """A registered model; None when it is deleted. What is written while this reads has a higher seq."""
    row = (await connection.execute(_MODEL, {"model": model})).one_or_none()
    if row is None:
        return None
    versions = await connection.execute(_VERSIONS, {"model": model})
    return SourceModel(
        row.seq, f"{model}-{row.creation_time_ms}", row.name, row.description, row.tags, row.aliases,
        tuple(SourceVersion(*version) for version in versions),
    )  # fmt: skip


async def known_versions(connection: AsyncConnection, model: int) -> dict[int, tuple[str | None, str | None]]:
    """Of every version by our number: the workspace's number, or why it has none."""
    found = await connection.execute(_KNOWN_VERSIONS, {"model": model})
    return {row.version: (row.remote_version, row.problem) for row in found}


async def left_by_deleted(connection: AsyncConnection, name: str, lease: ModelLease) -> bool | None:
    """Whether all other registered models that are deleted here have left this name there; None if none had it."""
    held = {"name": name, "model": lease.model, "link_id": lease.link_id}
    left: bool | None = await connection.scalar(_NAME_OF_DELETED, held)
    return left


async def remote_place(connection: AsyncConnection, storage_location: str) -> RemotePlace | None:
    """Where the files of a version are in the workspace; None if no run of ours has them."""
    place = await _place(connection, storage_location)
    if place is None or place.root.run_id is None:
        return None
    values = {"run_id": place.root.run_id, "model_id": place.root.model_id, "path": place.path}
    row: Any = (await connection.execute(_PLACE, values)).one_or_none()
    if row is None:
        return None
    return RemotePlace(
        row.run_id, row.path, row.seq, row.watermark, row.state, row.remote_run_id, row.remote_experiment_id,
        row.revised, row.link_id, row.unrouted,
    )  # fmt: skip


async def _place(connection: AsyncConnection, storage_location: str) -> Place | None:
    try:
        path = await sources.store_path(connection, storage_location)
    except RunmirrorError:
        return None
    return place_below(await artifact_queries.roots(connection, *ids_in(path)), path)

"""Nested runs: a child names its parent by the parent's id in the workspace, so the parent has to be there first."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import Tag
from runmirror.mirror.target import ParentNotMirrored
from runmirror.run_ids import stored_id

PARENT_TAG = "mlflow.parentRunId"
ROOT_TAG = "mlflow.rootRunId"

# An id of ours means nothing in the workspace: where there is no remote id it goes by another name. The root of a
# nested run is known to the workspace by itself.
OTHER_NAMES = {PARENT_TAG: "runmirror.parent_run_id", ROOT_TAG: "runmirror.root_run_id"}

_PARENT = text("""
    WITH RECURSIVE up AS (
        SELECT CAST(:parent_id AS uuid) AS run_id
        UNION
        SELECT CAST(value AS uuid) FROM (
            SELECT CASE WHEN value ~ '^[0-9a-f]{32}$' THEN value END AS value
            FROM up JOIN tags USING (run_id) WHERE tags.key = 'mlflow.parentRunId') AS parent
        WHERE value IS NOT NULL)
    SELECT parent.remote_run_id,
        parent.state IN ('due', 'leased') AND parent.attempt = 0 AS is_coming,
        EXISTS (SELECT FROM up WHERE run_id = :run_id) AS is_circle
    FROM mirrors parent JOIN mirrors child ON child.run_id = :run_id
    WHERE parent.run_id = :parent_id
        AND (parent.link_id = child.link_id OR (parent.link_id IS NULL AND parent.unrouted IS NOT NULL))
""")

# The parent of a live run is not of the past, whenever it was written last.
_HASTEN = text("""
    UPDATE mirrors SET backfill = false
    WHERE run_id = :parent_id AND backfill
        AND EXISTS (SELECT FROM mirrors AS child WHERE child.run_id = :run_id AND NOT child.backfill)
""")


async def remote_parent(connection: AsyncConnection, run_id: UUID, parent_run_id: str | None) -> str | None:
    """The workspace's id of the parent; None when it has none there and will have none soon.

    Raises `ParentNotMirrored` while the parent is about to be mirrored. Runs in a circle do not wait for each other,
    nor does anybody wait for a parent that failed.
    """
    parent_id = None if parent_run_id is None else stored_id(parent_run_id)
    if parent_id is None:
        return None
    ids = {"run_id": run_id, "parent_id": parent_id}
    found = (await connection.execute(_PARENT, ids)).one_or_none()
    if found is None or found.is_circle:
        return None
    if found.remote_run_id is None and found.is_coming:
        raise ParentNotMirrored(f"its parent run {parent_run_id} is mirrored first")
    remote_id: str | None = found.remote_run_id
    return remote_id


async def hasten(connection: AsyncConnection, run_id: UUID, parent_run_id: str) -> None:
    """A live run waits for its parent: let it not wait for all of the past."""
    await connection.execute(_HASTEN, {"run_id": run_id, "parent_id": UUID(parent_run_id)})


def names_there(key: str) -> tuple[str, ...]:
    """By which names a tag may stand in the workspace, where it is to be deleted; that of the root is not ours."""
    if key == PARENT_TAG:
        return key, OTHER_NAMES[key]
    return (OTHER_NAMES.get(key, key),)


def in_our_terms(keys: Iterable[str]) -> frozenset[str]:
    """Keys of tags that the workspace has, and with them those of ours that go by another name there."""
    keys = frozenset(keys)
    return keys | {key for key, other in OTHER_NAMES.items() if other in keys}


def unused_parent_name(tags: Iterable[Tag]) -> str:
    """Of the two names by which a parent may stand in the workspace, the one that these tags do not have."""
    return OTHER_NAMES[PARENT_TAG] if any(tag.key == PARENT_TAG for tag in tags) else PARENT_TAG


def renamed(tags: tuple[Tag, ...], remote_parent_id: str | None) -> tuple[Tag, ...]:
    """Tags that hold ids of runs, in the workspace's terms; every other tag as it is."""
    if remote_parent_id is None:
        return tuple(Tag(OTHER_NAMES.get(tag.key, tag.key), tag.value) for tag in tags)
    return tuple(
        Tag(PARENT_TAG, remote_parent_id)
        if tag.key == PARENT_TAG
        else Tag(OTHER_NAMES.get(tag.key, tag.key), tag.value)
        for tag in tags
    )

"""Nested runs: a child names its parent by the parent's id in the workspace, so the parent has to be there first."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import Tag
from runmirror.mirror.target import ParentNotMirrored
from runmirror.run_ids import stored_id

PARENT_TAG = "mlflow.parentRunId"

# An id of ours means nothing in the workspace: where there is no remote id it goes by another name. The root of a
# nested run is known to the workspace by itself.
OTHER_NAMES = {PARENT_TAG: "runmirror.parent_run_id", "mlflow.rootRunId": "runmirror.root_run_id"}

_PARENT = text("""
    WITH RECURSIVE up AS (
        SELECT CAST(:parent_id AS uuid) AS run_id
        UNION
        SELECT CAST(value AS uuid) FROM (
            SELECT CASE WHEN value ~ '^[0-9a-f]{32}$' THEN value END AS value
            FROM up JOIN tags USING (run_id) WHERE tags.key = 'mlflow.parentRunId') AS parent
        WHERE value IS NOT NULL)
    SELECT remote_run_id, state IN ('due', 'leased') AND attempt = 0 AS is_coming,
        EXISTS (SELECT FROM up WHERE run_id = :run_id) AS is_circle
    FROM mirrors WHERE run_id = :parent_id
""")


async def remote_parent(connection: AsyncConnection, run_id: UUID, parent_run_id: str | None) -> str | None:
    """The workspace's id of the parent; None when it has none and will have none soon.

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

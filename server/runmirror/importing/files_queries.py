"""SQL about the files of what was imported."""

from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_RUN = text("""
    SELECT run_id, '' AS model_id, artifact_uri, status IN ('FINISHED', 'FAILED', 'KILLED') AS ended
    FROM runs WHERE run_id = :run_id
""")
# A model that no run of this server made has files, of which nobody is told.
_MODEL = text("""
    SELECT r.run_id, m.model_id, m.artifact_uri, m.status <> 1 AS ended
    FROM logged_models m LEFT JOIN runs r ON r.run_id = m.source_run_id WHERE m.model_id = :model_id
""")
_RECORDED = text("""
    SELECT path, size_bytes, md5, deleted, seq FROM artifacts WHERE run_id = :run_id AND model_id = :model_id
""").bindparams(bindparam("run_id", type_=Uuid))


async def owner(connection: AsyncConnection, kind: str, target: str) -> Row[Any] | None:
    """`(run_id, model_id, artifact_uri, ended)` of a run or logged model; None when it is gone."""
    if kind == "run":
        return (await connection.execute(_RUN, {"run_id": UUID(target)})).one_or_none()
    return (await connection.execute(_MODEL, {"model_id": target})).one_or_none()


async def recorded(connection: AsyncConnection, run_id: UUID | None, model_id: str) -> dict[str, Row[Any]]:
    """`(path, size_bytes, md5, deleted, seq)` by path."""
    if run_id is None:
        return {}
    rows = await connection.execute(_RECORDED, {"run_id": run_id, "model_id": model_id})
    return {row.path: row for row in rows}

"""SQL that makes a run and an experiment of the workspace ours."""

import json
from collections import Counter
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.experiments import queries as experiment_queries
from runmirror.mirror import queue
from runmirror.mirror.queries import save_experiment
from runmirror.mirror.target import BornThere
from runmirror.runs import batch_queries

# Linking another workspace waits, or is seen here.
_LINKED = text("SELECT link_id FROM mirror_links WHERE lower(workspace_id) = lower(:workspace_id) FOR SHARE")

# Of a mirrored experiment the name may have changed since, so its id comes first.
_EXPERIMENT = text("""
    SELECT experiment_id FROM adopted_experiments WHERE azure_experiment_id = lower(:azure_experiment_id)
    UNION ALL
    SELECT experiment_id FROM mirrored_experiments WHERE lower(remote_experiment_id) = lower(:azure_experiment_id)
    LIMIT 1
""")

_BY_NAME = text("SELECT experiment_id FROM experiments WHERE name = :name")

_ADOPT_EXPERIMENT = text("""
    INSERT INTO adopted_experiments (azure_experiment_id, experiment_id)
    VALUES (lower(:azure_experiment_id), :experiment_id)
    ON CONFLICT (azure_experiment_id) DO NOTHING
""")

_PLACE = text(
    "SELECT name, artifact_location, lifecycle_stage FROM experiments WHERE experiment_id = :experiment_id FOR SHARE"
)

_ADOPT_RUN = text("""
    INSERT INTO runs (run_id, azure_run_id, experiment_id, name, user_id, status, start_time_ms, end_time_ms,
        artifact_uri, seq, info_seq)
    VALUES (:run_id, :azure_run_id, :experiment_id, :name, :user_id, :status, :start_time_ms, :end_time_ms,
        :artifact_uri, :seq, :seq)
    ON CONFLICT (run_id) DO NOTHING
    RETURNING run_id
""")


async def link_id_of(connection: AsyncConnection, workspace_id: str) -> int | None:
    """By which number the workspace is linked, if it is; that holds until the end of the transaction."""
    found: int | None = await connection.scalar(_LINKED, {"workspace_id": workspace_id})
    return found


async def known_experiment(connection: AsyncConnection, azure_experiment_id: str) -> int | None:
    """Our experiment that has this id in the workspace."""
    found: int | None = await connection.scalar(_EXPERIMENT, {"azure_experiment_id": azure_experiment_id})
    return found


async def adopt_experiment(
    connection: AsyncConnection, azure_experiment_id: str, name: str, now_ms: int, *, link_id: int
) -> int:
    """Our experiment of that name, made if there is none, goes by this id as well from now on.

    Who named it did not make what is in it: one that is made here is nobody's until an admin grants it.
    """
    made = await experiment_queries.create(connection, name, None, now_ms)
    key: int = made if made is not None else await connection.scalar(_BY_NAME, {"name": name})
    await name_experiment(connection, azure_experiment_id, key)
    await save_experiment(connection, key, link_id=link_id, remote_experiment_id=azure_experiment_id, remote_name=name)
    return key


async def name_experiment(connection: AsyncConnection, azure_experiment_id: str, experiment_id: int) -> None:
    """Jobs may name our experiment by this id, whichever workspace is linked."""
    ids = {"azure_experiment_id": azure_experiment_id, "experiment_id": experiment_id}
    await connection.execute(_ADOPT_EXPERIMENT, ids)


async def place_of(connection: AsyncConnection, experiment_id: int) -> Row[Any]:
    """`(name, artifact_location, lifecycle_stage)`."""
    return (await connection.execute(_PLACE, {"experiment_id": experiment_id})).one()


async def adopt_run(
    connection: AsyncConnection, run_id: UUID, run: BornThere, *, experiment_id: int, link_id: int,
    artifact_uri: str, portal_url: str | None,
) -> bool:  # fmt: skip
    """The run with all that stands in the workspace, as its first write. False when somebody was faster."""
    seq, state = queue.ADOPTION_SEQ, run.state
    row = {
        "run_id": run_id, "azure_run_id": run.run_id, "experiment_id": experiment_id, "name": state.name,
        "user_id": run.user_id, "status": state.status, "start_time_ms": run.start_time_ms,
        "end_time_ms": state.end_time_ms, "artifact_uri": artifact_uri, "seq": seq,
    }  # fmt: skip
    if await connection.scalar(_ADOPT_RUN, row) is None:
        return False
    await queue.adopt(
        connection, run_id, link_id=link_id, remote_experiment_id=run.experiment_id, remote_run_id=run.run_id,
        portal_url=portal_url, points=json.dumps(Counter(metric.key for metric in run.batch.metrics)),
    )  # fmt: skip
    await batch_queries.set_tags(connection, run_id, seq, {tag.key: tag.value for tag in run.batch.tags})
    if run.batch.params:
        await batch_queries.insert_params(connection, run_id, seq, run.batch.params)
    if run.batch.metrics:
        await batch_queries.insert_metrics(connection, run_id, seq, run.batch.metrics)
    return True

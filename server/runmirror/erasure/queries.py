"""SQL that finds what may be erased, and erases it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Text, Uuid, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

# A workspace that is linked hears of a deletion before the run is gone; it then does what RUNMIRROR_MIRROR_ON_DELETE
# says. A run that nobody mirrors waits for nobody.
_HEARD = """
    (m.run_id IS NULL OR m.state IN ('current', 'off') OR NOT EXISTS (SELECT FROM mirror_links)
     OR (m.state = 'due' AND m.link_id IS NULL AND m.unrouted IS NULL))
"""
_NOT_REGISTERED = """
    NOT EXISTS (
        SELECT FROM model_versions v WHERE v.current_stage <> 'Deleted_Internal'
        AND (v.run_id = {id} OR strpos(v.storage_location, {id}) > 0 OR strpos(v.source, {id}) > 0))
"""
_SHOWN = "coalesce(r.azure_run_id, encode(uuid_send(r.run_id), 'hex'))"
_HEX = "encode(uuid_send(r.run_id), 'hex')"

_CHOSEN = """
    FROM runs r LEFT JOIN mirrors m USING (run_id)
    WHERE r.lifecycle_stage = 'deleted' AND coalesce(r.deleted_time_ms, 0) <= :before_ms AND r.run_id > :after
      AND (:run_ids IS NULL OR r.run_id = ANY (:run_ids))
      AND (:experiment_ids IS NULL OR r.experiment_id = ANY (:experiment_ids))
"""

_RUNS = text(f"""
    SELECT r.run_id, {_SHOWN} AS shown, r.artifact_uri, {_HEARD} AS heard,
        {_NOT_REGISTERED.format(id=_HEX)} AND {_NOT_REGISTERED.format(id=_SHOWN)} AS free,
        (SELECT count(*) FROM artifacts a WHERE a.run_id = r.run_id AND a.model_id = '' AND NOT a.deleted) AS files
    {_CHOSEN} ORDER BY r.run_id LIMIT :most FOR UPDATE OF r
""").bindparams(bindparam("run_ids", type_=ARRAY(Uuid)), bindparam("experiment_ids", type_=ARRAY(BigInteger)))

_MODELS = text(f"""
    SELECT l.model_id, l.artifact_uri, {_NOT_REGISTERED.format(id="l.model_id")} AS free
    FROM logged_models l
    WHERE l.lifecycle_stage = 'deleted' AND l.last_updated_timestamp_ms <= :before_ms AND l.model_id > :after
      AND (:experiment_ids IS NULL OR l.experiment_id = ANY (:experiment_ids))
    ORDER BY l.model_id LIMIT :most FOR UPDATE OF l
""").bindparams(bindparam("experiment_ids", type_=ARRAY(BigInteger)))

OF_RUNS = (
    "metrics", "metric_chunks", "latest_metrics", "params", "tags", "dataset_inputs", "model_inputs", "model_outputs",
    "artifacts", "pending_uploads", "logged_model_metrics", "mirrors", "mirror_overflows", "mirror_verifications",
    "run_keys", "idle_runs", "runs",
)  # fmt: skip
_OF_MODELS = ("logged_model_params", "logged_model_tags", "logged_model_metrics", "logged_models")

_RUN_IDS, _MODEL_IDS = bindparam("run_ids", type_=ARRAY(Uuid)), bindparam("model_ids", type_=ARRAY(Text))
_ERASE_RUNS = tuple(
    text(f"DELETE FROM {table} WHERE run_id = ANY (:run_ids)").bindparams(_RUN_IDS) for table in OF_RUNS
)
_ORPHAN_MODELS = text("""
    UPDATE logged_models SET source_run_id = NULL WHERE source_run_id = ANY (:run_ids)
""").bindparams(_RUN_IDS)
_ERASE_MODELS = tuple(
    text(f"DELETE FROM {table} WHERE model_id = ANY (:model_ids)").bindparams(_MODEL_IDS) for table in _OF_MODELS
)

_ADD_REMOVALS = text("""
    INSERT INTO removals (path) SELECT unnest(:paths) ON CONFLICT DO NOTHING
""").bindparams(bindparam("paths", type_=ARRAY(Text)))
_REMOVALS = text("SELECT path FROM removals ORDER BY path LIMIT 100")
_REMOVED = text("DELETE FROM removals WHERE path = :path")

# Number 0 is the default experiment; one with models, traces or scorers left is not empty.
_EMPTY_EXPERIMENTS = """
    FROM experiments e
    WHERE e.lifecycle_stage = 'deleted' AND e.last_update_time_ms <= :before_ms AND e.experiment_id <> 0
      AND (:experiment_ids IS NULL OR e.experiment_id = ANY (:experiment_ids))
      AND NOT EXISTS (SELECT FROM runs r WHERE r.experiment_id = e.experiment_id)
      AND NOT EXISTS (SELECT FROM logged_models l WHERE l.experiment_id = e.experiment_id)
      AND NOT EXISTS (SELECT FROM traces t WHERE t.experiment_id = e.experiment_id)
      AND NOT EXISTS (SELECT FROM scorers s WHERE s.experiment_id = e.experiment_id)
      AND NOT EXISTS (SELECT FROM evaluation_dataset_experiments d WHERE d.experiment_id = e.experiment_id)
"""
_EXPERIMENT_IDS = bindparam("experiment_ids", type_=ARRAY(BigInteger))
_LIST_EXPERIMENTS = text(f"SELECT e.experiment_id, e.name {_EMPTY_EXPERIMENTS} ORDER BY 1").bindparams(_EXPERIMENT_IDS)
_ERASE_EXPERIMENTS = text(f"""
    WITH gone AS (DELETE {_EMPTY_EXPERIMENTS} RETURNING e.experiment_id, e.name),
    of_tags AS (DELETE FROM experiment_tags WHERE experiment_id IN (SELECT experiment_id FROM gone)),
    of_datasets AS (DELETE FROM datasets WHERE experiment_id IN (SELECT experiment_id FROM gone)),
    of_mirror AS (DELETE FROM mirrored_experiments WHERE experiment_id IN (SELECT experiment_id FROM gone)),
    of_names AS (DELETE FROM adopted_experiments WHERE experiment_id IN (SELECT experiment_id FROM gone))
    SELECT experiment_id, name FROM gone ORDER BY 1
""").bindparams(_EXPERIMENT_IDS)

_NOW = text("SELECT (extract(epoch FROM now()) * 1000)::bigint")


async def now_ms(connection: AsyncConnection) -> int:
    """By the database's clock."""
    now: int = (await connection.execute(_NOW)).scalar_one()
    return now


async def runs(connection: AsyncConnection, **chosen: Any) -> Sequence[Row[Any]]:
    """A page of deleted runs, locked: `(run_id, shown, artifact_uri, heard, free, files)`.

    `heard`: no workspace has still to hear of the deletion; `free`: no registered model has its files there.
    """
    return (await connection.execute(_RUNS, chosen)).all()


async def models(connection: AsyncConnection, **chosen: Any) -> Sequence[Row[Any]]:
    """A page of deleted logged models, locked: `(model_id, artifact_uri, free)`."""
    return (await connection.execute(_MODELS, chosen)).all()


async def erase_runs(connection: AsyncConnection, run_ids: Sequence[UUID], paths: Sequence[str]) -> None:
    for statement in (*_ERASE_RUNS, _ORPHAN_MODELS):
        await connection.execute(statement, {"run_ids": list(run_ids)})
    await connection.execute(_ADD_REMOVALS, {"paths": list(paths)})


async def erase_models(connection: AsyncConnection, model_ids: Sequence[str], paths: Sequence[str]) -> None:
    for statement in _ERASE_MODELS:
        await connection.execute(statement, {"model_ids": list(model_ids)})
    await connection.execute(_ADD_REMOVALS, {"paths": list(paths)})


async def empty_experiments(connection: AsyncConnection, *, erase: bool, **chosen: Any) -> Sequence[Row[Any]]:
    """`(experiment_id, name)` of deleted experiments in which nothing is left."""
    return (await connection.execute(_ERASE_EXPERIMENTS if erase else _LIST_EXPERIMENTS, chosen)).all()


async def removals(connection: AsyncConnection) -> Sequence[str]:
    return (await connection.scalars(_REMOVALS)).all()


async def removed(connection: AsyncConnection, path: str) -> None:
    await connection.execute(_REMOVED, {"path": path})

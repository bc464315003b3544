"""Points of a metric that name a logged model: they belong to the run that logged them, and to the model."""

import math
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Double, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import Metric
from runmirror.errors import BadRequest

# The caller holds the run's lock, so no other write adds points of this run meanwhile.
_RECORD = text("""
    WITH given AS (
        SELECT * FROM unnest(:model_ids, :keys, :steps, :timestamps_ms, :values, :dataset_names, :dataset_digests)
            AS g (model_id, key, step, timestamp_ms, value, dataset_name, dataset_digest)),
    added AS (
        INSERT INTO logged_model_metrics
            (model_id, run_id, key, step, timestamp_ms, value, dataset_name, dataset_digest)
        SELECT model_id, :run_id, key, step, timestamp_ms, value, dataset_name, dataset_digest
        FROM given JOIN logged_models USING (model_id)
        ON CONFLICT (model_id, run_id, key, step, timestamp_ms) DO NOTHING)
    SELECT model_id, NULL AS key FROM given WHERE model_id NOT IN (SELECT model_id FROM logged_models)
    UNION ALL
    SELECT model_id, key FROM given JOIN logged_model_metrics m USING (model_id, key, step, timestamp_ms)
    WHERE m.run_id = :run_id AND (m.value, m.dataset_name, m.dataset_digest)
        IS DISTINCT FROM (given.value, given.dataset_name, given.dataset_digest)
    LIMIT 1
""").bindparams(
    bindparam("model_ids", type_=ARRAY(Text)),
    bindparam("keys", type_=ARRAY(Text)),
    bindparam("steps", type_=ARRAY(BigInteger)),
    bindparam("timestamps_ms", type_=ARRAY(BigInteger)),
    bindparam("values", type_=ARRAY(Double)),
    bindparam("dataset_names", type_=ARRAY(Text)),
    bindparam("dataset_digests", type_=ARRAY(Text)),
)


async def record_model_metrics(connection: AsyncConnection, run_id: UUID, metrics: Sequence[Metric]) -> None:
    """Record the points that name a logged model; exact repeats are absorbed.

    Raises `BadRequest`, as MLflow does, when the model is unknown or when the run logged another value (or dataset)
    for the same model, key, step and timestamp before.
    """
    points: dict[tuple[str, str, int, int], Metric] = {}
    for metric in metrics:
        if metric.model_id:
            first = points.setdefault((metric.model_id, metric.key, metric.step, metric.timestamp_ms), metric)
            if not _equal(first, metric):
                raise _contradiction(metric.model_id, metric.key)
    if not points:
        return
    values = {
        "run_id": run_id,
        "model_ids": [m.model_id for m in points.values()],
        "keys": [m.key for m in points.values()],
        "steps": [m.step for m in points.values()],
        "timestamps_ms": [m.timestamp_ms for m in points.values()],
        "values": [m.value for m in points.values()],
        "dataset_names": [m.dataset_name for m in points.values()],
        "dataset_digests": [m.dataset_digest for m in points.values()],
    }
    problem = (await connection.execute(_RECORD, values)).first()
    if problem is None:
        return
    if problem.key is None:
        raise BadRequest(f"Metrics cannot be logged for logged model '{problem.model_id}': there is no such model.")
    raise _contradiction(problem.model_id, problem.key)


def _equal(one: Metric, other: Metric) -> bool:
    """The same value (NaN equals NaN) of the same dataset."""
    same_value = one.value == other.value or (math.isnan(one.value) and math.isnan(other.value))
    same_dataset = (one.dataset_name, one.dataset_digest) == (other.dataset_name, other.dataset_digest)
    return same_value and same_dataset


def _contradiction(model_id: str, key: str) -> BadRequest:
    return BadRequest(
        f"Metric '{key}' of logged model '{model_id}' already has another value or dataset at the same step and "
        "timestamp of this run."
    )

"""SQL of the points that charts are drawn from: one metric of many runs, whole or sampled."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Uuid, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_RUN_IDS = bindparam("run_ids", type_=ARRAY(Uuid))
_RANK = "coalesce(nullif(value, 'NaN'), 0)"  # MLflow orders NaN as 0

_WHOLE = text(f"""
    SELECT wanted.run_id, timestamp_ms, step, value
    FROM (SELECT DISTINCT unnest(:run_ids) AS run_id) AS wanted,
    LATERAL (
        SELECT timestamp_ms, step, value FROM metric_points
        WHERE run_id = wanted.run_id
          AND metric_id = (SELECT metric_id FROM latest_metrics WHERE run_id = wanted.run_id AND key = :key)
        OFFSET 0) points  -- a part of its own, so that no other metric's chunks are opened
    ORDER BY wanted.run_id, timestamp_ms, step, {_RANK}, value
    LIMIT :limit
""").bindparams(_RUN_IDS)

_METRIC = "metric_id = (SELECT metric_id FROM latest_metrics WHERE run_id = wanted.run_id AND key = :key)"

# As MLflow samples: a run's points in order fall into `limit` buckets, as even as they get (ntile); the first of each
# bucket is taken, and the run's last point stands in for the last bucket's first. Once the points are counted, where a
# bucket begins is arithmetic: `longer` buckets hold one more than `size`. The order within a step and a time is
# MLflow's: NaN counts as 0.
_SAMPLED = text(f"""
    SELECT wanted.run_id, points.timestamp_ms, points.step, points.value
    FROM unnest(:run_ids) WITH ORDINALITY AS wanted (run_id, place),
    LATERAL (
        SELECT count(*) AS total, count(*) / :limit AS size, count(*) % :limit AS longer
        FROM metric_points
        WHERE run_id = wanted.run_id AND {_METRIC}
          AND (:start_step IS NULL OR step BETWEEN :start_step AND :end_step)) counted,
    LATERAL (
        SELECT timestamp_ms, step, value, row_number() OVER (ORDER BY step, timestamp_ms, {_RANK}, value) AS nth
        FROM metric_points
        WHERE run_id = wanted.run_id AND {_METRIC}
          AND (:start_step IS NULL OR step BETWEEN :start_step AND :end_step)) points
    WHERE total <= :limit OR nth = total
       OR CASE WHEN nth <= longer * (size + 1) THEN (nth - 1) % (size + 1) = 0 AND (nth - 1) / (size + 1) < :limit - 1
               ELSE (nth - 1 - longer) % size = 0 AND (nth - 1 - longer) / size < :limit - 1 END
    ORDER BY place, nth
""").bindparams(
    _RUN_IDS,
    bindparam("limit", type_=BigInteger),
    bindparam("start_step", type_=BigInteger),
    bindparam("end_step", type_=BigInteger),
)


async def whole(connection: AsyncConnection, run_ids: Sequence[UUID], key: str, *, limit: int) -> Sequence[Row[Any]]:
    """Points `(run_id, timestamp_ms, step, value)` of each run by time; at most `limit` of all runs together."""
    return (await connection.execute(_WHOLE, {"run_ids": list(run_ids), "key": key, "limit": limit})).all()


async def sampled(
    connection: AsyncConnection, run_ids: Sequence[UUID], key: str, *, limit: int, steps: tuple[int, int] | None
) -> Sequence[Row[Any]]:
    """Points `(run_id, timestamp_ms, step, value)` of each run by step, runs as given, at most `limit` of each.

    With `steps`, only points from its first to its second step, both included.
    """
    start_step, end_step = steps or (None, None)
    values = {"run_ids": list(run_ids), "key": key, "limit": limit, "start_step": start_step, "end_step": end_step}
    return (await connection.execute(_SAMPLED, values)).all()

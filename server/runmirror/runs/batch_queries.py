"""SQL that writes params, metrics and tags of a run: one statement for each kind, whatever the number.

The caller holds the run's row lock (`writes.begin`), so nothing of this run changes between or within statements.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Double, Text, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import Metric, Param

_KEYS, _VALUES = bindparam("keys", type_=ARRAY(Text)), bindparam("values", type_=ARRAY(Text))

_INSERT_PARAMS = text("""
    WITH given AS (SELECT key, value FROM unnest(:keys, :values) AS g (key, value)),
    inserted AS (
        INSERT INTO params (run_id, key, value, seq, experiment_id)
        SELECT :run_id, key, value, :seq, (SELECT experiment_id FROM runs WHERE run_id = :run_id) FROM given
        ON CONFLICT (run_id, key) DO NOTHING)
    SELECT key, p.value AS old_value, given.value AS new_value
    FROM given JOIN params p USING (key)
    WHERE p.run_id = :run_id AND p.value <> given.value
""").bindparams(_KEYS, _VALUES)

# NaN counts as 0 where MLflow compares points: its SQL store keeps NaN as 0 and a flag.
_RANK = "coalesce(nullif({}value, 'NaN'), 0)"

_INSERT_METRICS = text(f"""
    WITH given AS (
        SELECT * FROM unnest(:keys, :steps, :timestamps_ms, :values)
        WITH ORDINALITY AS g (key, step, timestamp_ms, value, place)),
    newest AS (
        SELECT DISTINCT ON (key) key, step, timestamp_ms, value FROM given
        ORDER BY key, step DESC, timestamp_ms DESC, {_RANK.format("")} DESC, place),
    known AS (SELECT key, metric_id FROM latest_metrics WHERE run_id = :run_id AND key = ANY(:keys)),
    raised AS (
        UPDATE latest_metrics l SET step = n.step, timestamp_ms = n.timestamp_ms, value = n.value, seq = :seq
        FROM newest n
        WHERE l.run_id = :run_id AND l.key = n.key
          AND (n.step, n.timestamp_ms, {_RANK.format("n.")}) > (l.step, l.timestamp_ms, {_RANK.format("l.")})),
    added AS (
        INSERT INTO latest_metrics (run_id, key, metric_id, seq, step, timestamp_ms, value, experiment_id)
        SELECT :run_id, key,
               (SELECT coalesce(max(metric_id), 0) FROM latest_metrics WHERE run_id = :run_id) + row_number() OVER (),
               :seq, step, timestamp_ms, value, (SELECT experiment_id FROM runs WHERE run_id = :run_id)
        FROM newest WHERE key NOT IN (SELECT key FROM known)
        RETURNING key, metric_id),
    numbered AS (SELECT key, metric_id FROM known UNION ALL SELECT key, metric_id FROM added)
    INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
    SELECT :run_id, metric_id, :seq, step, timestamp_ms, value FROM given JOIN numbered n USING (key)
    WHERE NOT EXISTS (
        SELECT FROM metric_chunks c
        WHERE c.run_id = :run_id AND c.metric_id = n.metric_id AND c.newest_ms >= given.timestamp_ms
          AND c.oldest_ms <= given.timestamp_ms AND c.last_step >= given.step AND c.first_step <= given.step
          AND c.timestamp_ms_array[array_position(c.step_array, given.step)] = given.timestamp_ms
          AND c.value_array[array_position(c.step_array, given.step)] = given.value)
    ON CONFLICT (run_id, metric_id, step, timestamp_ms, value) DO NOTHING
""").bindparams(
    bindparam("keys", type_=ARRAY(Text)),
    bindparam("steps", type_=ARRAY(BigInteger)),
    bindparam("timestamps_ms", type_=ARRAY(BigInteger)),
    bindparam("values", type_=ARRAY(Double)),
)

_SET_TAGS = text("""
    INSERT INTO tags (run_id, key, value, seq)
    SELECT :run_id, key, value, :seq FROM unnest(:keys, :values) AS g (key, value)
    ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value, seq = excluded.seq
""").bindparams(_KEYS, _VALUES)

_DELETE_TAG = text("""
    UPDATE tags SET value = NULL, seq = :seq WHERE run_id = :run_id AND key = :key AND value IS NOT NULL RETURNING key
""")


async def insert_params(
    connection: AsyncConnection, run_id: UUID, seq: int, params: Sequence[Param]
) -> Sequence[Row[Any]]:
    """Write params once; returns `(key, old_value, new_value)` of those that are logged with another value."""
    values = {"run_id": run_id, "seq": seq, "keys": [p.key for p in params], "values": [p.value for p in params]}
    return (await connection.execute(_INSERT_PARAMS, values)).all()


async def insert_metrics(connection: AsyncConnection, run_id: UUID, seq: int, metrics: Sequence[Metric]) -> None:
    """Append points, absorb exact repeats, and keep the latest point of each key by (step, timestamp, value)."""
    values = {
        "run_id": run_id, "seq": seq, "keys": [m.key for m in metrics], "steps": [m.step for m in metrics],
        "timestamps_ms": [m.timestamp_ms for m in metrics], "values": [m.value for m in metrics],
    }  # fmt: skip
    await connection.execute(_INSERT_METRICS, values)


async def set_tags(connection: AsyncConnection, run_id: UUID, seq: int, tags: dict[str, str]) -> None:
    values = {"run_id": run_id, "seq": seq, "keys": list(tags), "values": list(tags.values())}
    await connection.execute(_SET_TAGS, values)


async def delete_tag(connection: AsyncConnection, run_id: UUID, seq: int, key: str) -> bool:
    """Whether there was such a tag; its row stays, without a value, for the mirror."""
    return await connection.scalar(_DELETE_TAG, {"run_id": run_id, "seq": seq, "key": key}) is not None

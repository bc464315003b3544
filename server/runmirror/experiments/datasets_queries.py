"""SQL that finds the datasets of experiments."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

# By way of the runs: their index and the key of dataset_inputs begin with what is known.
_SUMMARIES = text("""
    SELECT DISTINCT d.experiment_id, d.name, d.digest, i.tags ->> 'mlflow.data.context' AS context
    FROM runs r JOIN dataset_inputs i USING (run_id) JOIN datasets d USING (dataset_id)
    WHERE r.experiment_id = ANY(:experiment_ids)
    ORDER BY d.experiment_id, d.name, d.digest, context
    LIMIT :limit
""").bindparams(bindparam("experiment_ids", type_=ARRAY(BigInteger)))


async def summaries(connection: AsyncConnection, experiment_ids: Sequence[int], *, limit: int) -> Sequence[Row[Any]]:
    """`(experiment_id, name, digest, context)`, each once; the context a run gave a dataset, or None."""
    return (await connection.execute(_SUMMARIES, {"experiment_ids": list(experiment_ids), "limit": limit})).all()

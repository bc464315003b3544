"""Writes of what a run read and made. A repeat of the same input or output is absorbed, as clients may retry."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import DatasetInput
from runmirror.errors import BadRequest
from runmirror.runs import inputs_queries, writes


async def log_inputs(
    connection: AsyncConnection, run_id: str, datasets: Sequence[DatasetInput], model_ids: Sequence[str]
) -> None:
    """Add datasets and logged models that the run read; of a dataset given twice the first counts, tags and all."""
    write = await writes.begin(connection, run_id)
    if datasets:
        first: dict[tuple[str, str], DatasetInput] = {}
        for given in datasets:
            first.setdefault((given.dataset.name, given.dataset.digest), given)
        await inputs_queries.add_datasets(
            connection,
            run_id=write.run_id,
            seq=write.seq,
            experiment_id=write.experiment_id,
            inputs=list(first.values()),
        )
    if model_ids:
        await inputs_queries.add_model_inputs(connection, write.run_id, write.seq, model_ids)


async def log_outputs(connection: AsyncConnection, run_id: str, outputs: Sequence[tuple[str, int]]) -> None:
    """Add logged models `(model_id, step)` that the run made.

    Raises `BadRequest` when one of them is an output of this run at another step already.
    """
    write = await writes.begin(connection, run_id)
    steps = dict(outputs)
    moved = [model_id for model_id, step in outputs if steps[model_id] != step]
    if steps and not moved:
        found = await inputs_queries.add_model_outputs(connection, write.run_id, write.seq, steps)
        moved = [row.model_id for row in found]
    if moved:
        raise BadRequest(f"Logged model '{moved[0]}' is an output of run {write.named} at another step already.")

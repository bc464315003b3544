"""SQL of what a run read and made: datasets, logged models as inputs, logged models as outputs."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, BigInteger, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import DatasetInput

_RUN_IDS = bindparam("run_ids", type_=ARRAY(Uuid))
_MODEL_IDS = bindparam("model_ids", type_=ARRAY(Text))
_NAMES, _DIGESTS = bindparam("names", type_=ARRAY(Text)), bindparam("digests", type_=ARRAY(Text))

_DATASETS_OF_RUNS = text("""
    SELECT i.run_id, d.name, d.digest, d.source_type, d.source, d.schema, d.profile, i.tags
    FROM dataset_inputs i JOIN datasets d USING (dataset_id)
    WHERE i.run_id = ANY(:run_ids)
    ORDER BY i.run_id, i.seq, d.name, d.digest
""").bindparams(_RUN_IDS)

_MODELS_OF_RUNS = text("""
    SELECT run_id, model_id, NULL AS step, seq FROM model_inputs WHERE run_id = ANY(:run_ids)
    UNION ALL
    SELECT run_id, model_id, step, seq FROM model_outputs WHERE run_id = ANY(:run_ids)
    ORDER BY run_id, seq, model_id
""").bindparams(_RUN_IDS)

_ADD_DATASETS = text("""
    INSERT INTO datasets (dataset_id, experiment_id, name, digest, source_type, source, schema, profile)
    SELECT dataset_id, :experiment_id, name, digest, source_type, source, schema, profile
    FROM unnest(:dataset_ids, :names, :digests, :source_types, :sources, :schemas, :profiles)
        AS g (dataset_id, name, digest, source_type, source, schema, profile)
    ON CONFLICT (experiment_id, name, digest) DO NOTHING
""").bindparams(
    _NAMES,
    _DIGESTS,
    bindparam("dataset_ids", type_=ARRAY(Uuid)),
    bindparam("source_types", type_=ARRAY(Text)),
    bindparam("sources", type_=ARRAY(Text)),
    bindparam("schemas", type_=ARRAY(Text)),
    bindparam("profiles", type_=ARRAY(Text)),
)

# A statement of its own: its snapshot sees a dataset that another run's write added while ours waited for it.
_ADD_DATASET_INPUTS = text("""
    INSERT INTO dataset_inputs (run_id, dataset_id, tags, seq)
    SELECT :run_id, d.dataset_id, g.tags, :seq
    FROM unnest(:names, :digests, :tags) AS g (name, digest, tags)
    JOIN datasets d ON d.experiment_id = :experiment_id AND d.name = g.name AND d.digest = g.digest
    ON CONFLICT (run_id, dataset_id) DO NOTHING
""").bindparams(_NAMES, _DIGESTS, bindparam("tags", type_=ARRAY(JSONB)))

_ADD_MODEL_INPUTS = text("""
    INSERT INTO model_inputs (run_id, model_id, seq) SELECT :run_id, model_id, :seq FROM unnest(:model_ids) AS model_id
    ON CONFLICT (run_id, model_id) DO NOTHING
""").bindparams(_MODEL_IDS)

# The caller holds the run's lock, so what `outputs` said when the statement began is what it still says.
_ADD_MODEL_OUTPUTS = text("""
    WITH given AS (SELECT model_id, step FROM unnest(:model_ids, :steps) AS g (model_id, step)),
    added AS (
        INSERT INTO model_outputs (run_id, model_id, step, seq) SELECT :run_id, model_id, step, :seq FROM given
        ON CONFLICT (run_id, model_id) DO NOTHING)
    SELECT model_id, o.step FROM given JOIN model_outputs o USING (model_id)
    WHERE o.run_id = :run_id AND o.step <> given.step
""").bindparams(_MODEL_IDS, bindparam("steps", type_=ARRAY(BigInteger)))


async def load_inputs_outputs(
    connection: AsyncConnection, run_ids: Sequence[UUID]
) -> dict[UUID, tuple[dict[str, Any], dict[str, Any]]]:
    """The `inputs` and `outputs` of MLflow's wire for each of these runs; `{}` where a run has none."""
    found: dict[UUID, tuple[dict[str, Any], dict[str, Any]]] = {run_id: ({}, {}) for run_id in run_ids}
    values = {"run_ids": list(run_ids)}
    for row in await connection.execute(_DATASETS_OF_RUNS, values):
        found[row.run_id][0].setdefault("dataset_inputs", []).append(_dataset_input(row))
    for row in await connection.execute(_MODELS_OF_RUNS, values):
        inputs, outputs = found[row.run_id]
        if row.step is None:
            inputs.setdefault("model_inputs", []).append({"model_id": row.model_id})
        else:
            outputs.setdefault("model_outputs", []).append({"model_id": row.model_id, "step": row.step})
    return found


async def add_datasets(
    connection: AsyncConnection, *, run_id: UUID, seq: int, experiment_id: int, inputs: Sequence[DatasetInput]
) -> None:
    """Add each input that the run does not have yet; `inputs` holds no name and digest twice."""
    inputs = sorted(inputs, key=_identity)  # writers of one experiment meet the same rows in the same order
    datasets = [given.dataset for given in inputs]
    names, digests = [dataset.name for dataset in datasets], [dataset.digest for dataset in datasets]
    added = {
        "experiment_id": experiment_id,
        "dataset_ids": [uuid4() for _ in datasets],
        "names": names,
        "digests": digests,
        "source_types": [dataset.source_type for dataset in datasets],
        "sources": [dataset.source for dataset in datasets],
        "schemas": [dataset.schema for dataset in datasets],
        "profiles": [dataset.profile for dataset in datasets],
    }
    await connection.execute(_ADD_DATASETS, added)
    tags = [{tag.key: tag.value for tag in given.tags} for given in inputs]
    read = {
        "run_id": run_id, "seq": seq, "experiment_id": experiment_id, "names": names, "digests": digests, "tags": tags,
    }  # fmt: skip
    await connection.execute(_ADD_DATASET_INPUTS, read)


async def add_model_inputs(connection: AsyncConnection, run_id: UUID, seq: int, model_ids: Sequence[str]) -> None:
    await connection.execute(_ADD_MODEL_INPUTS, {"run_id": run_id, "seq": seq, "model_ids": list(model_ids)})


async def add_model_outputs(
    connection: AsyncConnection, run_id: UUID, seq: int, steps: Mapping[str, int]
) -> Sequence[Row[Any]]:
    """`(model_id, step)` of each output that the run already has at another step; the caller rolls back."""
    values = {"run_id": run_id, "seq": seq, "model_ids": list(steps), "steps": list(steps.values())}
    return (await connection.execute(_ADD_MODEL_OUTPUTS, values)).all()


def _identity(given: DatasetInput) -> tuple[str, str]:
    return given.dataset.name, given.dataset.digest


def _dataset_input(row: Row[Any]) -> dict[str, Any]:
    dataset = {"name": row.name, "digest": row.digest, "source_type": row.source_type, "source": row.source}
    if row.schema is not None:
        dataset["schema"] = row.schema
    if row.profile is not None:
        dataset["profile"] = row.profile
    wire: dict[str, Any] = {"dataset": dataset}
    if row.tags:
        wire["tags"] = [{"key": key, "value": value} for key, value in row.tags.items()]
    return wire

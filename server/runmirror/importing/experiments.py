"""Experiments: one of the same name here is the same experiment, to which runs are added; nothing of it is changed.

Ids are given here, so those there lead to those here only by `imported`. A deleted experiment is deleted at the very
end: until then its traces can be written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.entities import LifecycleStage, Tag
from runmirror.errors import RunmirrorError
from runmirror.experiments import queries as experiment_queries
from runmirror.experiments import service
from runmirror.importing import queries, rules
from runmirror.importing.entities import OldExperiment, fingerprint
from runmirror.importing.rules import Refused

KIND = "experiment"


@dataclass(slots=True)
class Experiments:
    """Our ids by those there, and what became of them."""

    ids: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # here, by ids there
    new: int = 0
    merged: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)  # (name, why)
    to_delete: list[int] = field(default_factory=list)


async def write(engine: AsyncEngine, source_id: int, experiments: Sequence[OldExperiment]) -> Experiments:
    """Bring those that are not here yet, each in a transaction of its own."""
    told = Experiments()
    async with engine.connect() as connection:
        ids = [experiment.experiment_id for experiment in experiments]
        known = await queries.known(connection, source_id, KIND, ids)
    for experiment in experiments:
        try:
            rules.check_experiment(experiment)
            async with engine.begin() as connection:
                await _write(connection, source_id, experiment, known, told)
        except (Refused, RunmirrorError) as error:
            told.refused.append((experiment.name, getattr(error, "message", str(error))))
    return told


async def find(connection: AsyncConnection, source_id: int, experiments: Sequence[OldExperiment]) -> Experiments:
    """Where those that were imported are here, without writing anything."""
    told = Experiments()
    ids = [experiment.experiment_id for experiment in experiments]
    for key, row in (await queries.known(connection, source_id, KIND, ids)).items():
        told.ids[key] = int(row.target)
    return told


async def _write(
    connection: AsyncConnection, source_id: int, experiment: OldExperiment, known: Mapping[str, Row[Any]],
    told: Experiments,
) -> None:  # fmt: skip
    before = known.get(experiment.experiment_id)
    here = None if before is None else await experiment_queries.load(connection, [int(before.target)])
    if before is not None and here:
        key, name, is_new = int(before.target), str(here[0].name), False
    else:
        key, name, is_new = await _new_or_same(connection, experiment)
        told.new += is_new
        told.merged += not is_new
    print_ = fingerprint(experiment)
    if before is None or before.fingerprint != print_:
        if before is not None and name != experiment.name and here and here[0].lifecycle_stage == "active":
            await service.rename(connection, str(key), experiment.name)
            name = experiment.name
        tags = {k: v for k, v in experiment.tags.items() if not k.startswith("runmirror.")}
        await queries.add_experiment_tags(connection, key, tags)
        note = {"key": experiment.experiment_id, "target": str(key), "fingerprint": print_}
        await queries.note(connection, source_id, KIND, [note])
    told.ids[experiment.experiment_id] = key
    told.names[experiment.experiment_id] = name
    if experiment.lifecycle_stage == LifecycleStage.DELETED and (is_new or before is not None):
        told.to_delete.append(key)


async def _new_or_same(connection: AsyncConnection, experiment: OldExperiment) -> tuple[int, str, bool]:
    same = await experiment_queries.by_name(connection, experiment.name)
    if same is not None:
        if same.lifecycle_stage != LifecycleStage.ACTIVE and experiment.lifecycle_stage == LifecycleStage.ACTIVE:
            raise Refused("an experiment of this name is here and deleted: restore or rename it first")
        return int(same.experiment_id), str(same.name), False
    tags = [Tag(key, value) for key, value in experiment.tags.items() if not key.startswith("runmirror.")]
    key = await service.create(connection, experiment.name, "", tags)
    await queries.shape_experiment(
        connection, key, creation_time_ms=experiment.creation_time_ms,
        last_update_time_ms=experiment.last_update_time_ms,
    )  # fmt: skip
    return key, experiment.name, True

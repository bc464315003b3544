"""Logged models: each one transaction, a change of the run that made it, as when a client writes it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror import names
from runmirror.entities import Metric
from runmirror.errors import RunmirrorError, RunNotFound
from runmirror.importing import models_queries, queries, rules
from runmirror.importing.entities import OldModel, fingerprint
from runmirror.importing.rules import Refused
from runmirror.logged_models import metrics, service
from runmirror.logged_models import queries as model_queries
from runmirror.run_ids import stored_id
from runmirror.runs import writes
from runmirror.wire import finite_or_nan

KIND = "logged_model"


@dataclass(slots=True)
class Written:
    """What became of some logged models, registered models or traces."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)  # (id, why)

    def add(self, more: "Written") -> None:
        self.new += more.new
        self.changed += more.changed
        self.unchanged += more.unchanged
        self.refused += more.refused


async def write(
    engine: AsyncEngine, source_id: int, models: Sequence[OldModel], experiments: Mapping[str, int]
) -> Written:
    """Bring what is new or has changed of these."""
    told = Written()
    async with engine.connect() as connection:
        known = await queries.known(connection, source_id, KIND, [model.model_id for model in models])
    for model in models:
        before, print_ = known.get(model.model_id), fingerprint(model)
        if before is not None and before.fingerprint == print_:
            told.unchanged += 1
            continue
        try:
            rules.check_model(model)
            if model.experiment_id not in experiments:
                raise Refused(f"its experiment {model.experiment_id} was not imported")
            async with engine.begin() as connection:
                await _write(connection, model, experiments[model.experiment_id], before)
                note = {
                    "key": model.model_id, "target": model.model_id, "fingerprint": print_,
                    "artifact_uri": model.artifact_uri,
                }  # fmt: skip
                await queries.note(connection, source_id, KIND, [note])
        except (Refused, RunmirrorError, DBAPIError) as error:
            told.refused.append((model.model_id, getattr(error, "message", str(error).splitlines()[0])))
            continue
        told.new += before is None
        told.changed += before is not None
    return told


async def _write(connection: AsyncConnection, model: OldModel, experiment_id: int, before: Row[Any] | None) -> None:
    run_id = stored_id(model.source_run_id) if model.source_run_id else None
    if run_id is not None:
        with suppress(RunNotFound):  # a run of another server, as for a client
            await writes.begin(connection, run_id, stage=None)
    if before is None:
        await _create(connection, model, experiment_id)
    else:
        await model_queries.add_params(connection, model.model_id, model.params)
        await model_queries.set_tags(connection, model.model_id, model.tags)
    await models_queries.shape(
        connection, model.model_id, creation_time_ms=model.creation_time_ms,
        last_updated_time_ms=model.last_updated_time_ms, status=model.status, stage=model.lifecycle_stage,
        status_message=model.status_message or None,
    )  # fmt: skip
    by_run: dict[str, list[Metric]] = {}
    for point in model.metrics:
        by_run.setdefault(point.run_id, []).append(
            Metric(
                point.key, finite_or_nan(point.value), point.timestamp_ms, point.step, model.model_id,
                point.dataset_name, point.dataset_digest,
            )
        )  # fmt: skip
    for of_run, points in by_run.items():
        if (run := stored_id(of_run)) is not None:
            await metrics.record_model_metrics(connection, run, points)


async def _create(connection: AsyncConnection, model: OldModel, experiment_id: int) -> None:
    if await model_queries.source_run(connection, model.model_id) is not None:
        raise Refused("a logged model of this id is here already and did not come from this source")
    experiment = await model_queries.experiment(connection, experiment_id)
    if experiment is None:
        raise Refused("its experiment is gone")
    service.check_model_id(model.model_id)
    await model_queries.create(
        connection,
        model_id=model.model_id,
        experiment_id=experiment_id,
        name=model.name or names.random_run_name(stored_id(model.model_id.removeprefix("m-"))),  # type: ignore[arg-type]
        artifact_uri=f"{experiment.artifact_location}/models/{model.model_id}/artifacts",
        model_type=model.model_type,
        source_run_id=stored_id(model.source_run_id) if model.source_run_id else None,
        status=model.status,
        now_ms=model.creation_time_ms,
        params=model.params,
        tags=model.tags,
    )

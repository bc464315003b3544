"""What `runmirror replay` does and prints."""

import json
from collections.abc import Callable, Sequence
from uuid import UUID

import click
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.db import create_engine
from runmirror.mirror import model_queue, model_status, quarantine
from runmirror.mirror.commands import trouble_of
from runmirror.mirror.model_wire import ModelMirrorAnswer
from runmirror.mirror.quarantine import MOST, NOTHING_BEFORE, Choice
from runmirror.mirror.quarantine_wire import QuarantinedRun
from runmirror.mirror.verify import records
from runmirror.settings import Settings


async def replay_runs(
    settings: Settings, database_url: str, *, run_ids: Sequence[UUID], experiments: Sequence[str], dry_run: bool,
    as_json: bool, tell: Callable[[str], None],
) -> int:  # fmt: skip
    """Put the chosen runs back into the queue, a page in one transaction; tells of each, and returns how many.

    With neither runs nor experiments (by name or id): all of them. Raises `click.UsageError` for an unknown experiment.
    """
    engine = create_engine(settings, database_url)
    count, after = 0, NOTHING_BEFORE
    try:
        choice = Choice(run_ids or None, await _ids_of(engine, experiments) or None)
        while True:
            replayed = set[UUID]()
            async with engine.begin() as connection:
                page = await quarantine.chosen(connection, choice, after=after)
                if page and not dry_run:
                    replayed = set(await quarantine.replay(connection, choice, after=after))
            if not page:
                return count
            for run in page:
                if dry_run or run.run_id in replayed:
                    tell(_line(run, as_json=as_json))
                    count += 1
            after = page[-1].run_id
    finally:
        await engine.dispose()


async def replay_models(
    settings: Settings, database_url: str, *, names: Sequence[str], dry_run: bool, as_json: bool,
    tell: Callable[[str], None],
) -> int:  # fmt: skip
    """Have registered models in trouble mirrored again, of these names or all; tells of each, and returns how many.

    Raises `click.UsageError` for an unknown name.
    """
    engine = create_engine(settings, database_url)
    count = 0
    try:
        for name in names or (None,):
            async with engine.begin() as connection:
                if name is not None and not await model_status.model_mirrors(connection, name=name, most=1):
                    raise click.UsageError(f"there is no registered model {name!r}")
                found = await model_status.model_mirrors(connection, name=name, in_trouble=True, most=MOST)
                chosen = [model for model in found if model.is_replayable]
                replayed = len(chosen) if dry_run else await model_queue.replay(connection, name)
            count += replayed
            for model in chosen:
                tell(_model_line(ModelMirrorAnswer.of(model), as_json=as_json))
        return count
    finally:
        await engine.dispose()


async def _ids_of(engine: AsyncEngine, experiments: Sequence[str]) -> list[int]:
    found = []
    async with engine.connect() as connection:
        for wanted in experiments:
            experiment_id = await records.experiment_id(connection, wanted)
            if experiment_id is None:
                raise click.UsageError(f"there is no experiment {wanted!r}")
            found.append(experiment_id)
    return found


def _model_line(model: ModelMirrorAnswer, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"registered_model": model.model_dump(mode="json")})
    return f"registered model {model.name or model.remote_name!r}: {trouble_of(model)}"


def _line(run: quarantine.Quarantined, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(QuarantinedRun.of(run).model_dump(mode="json"))
    since = "" if run.quarantined_at is None else f" since {run.quarantined_at:%Y-%m-%d %H:%M} UTC"
    return f"run {run.run_id.hex} {run.run_name!r}: {run.cause.code}{since}: {run.reason}\n  {run.cause.advice}"

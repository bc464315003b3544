"""What `runmirror gc` does and tells."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror import audit
from runmirror.artifacts.places import path_of
from runmirror.artifacts.store import Store, create_store
from runmirror.db import create_engine
from runmirror.erasure import queries
from runmirror.errors import InvalidParameter
from runmirror.mirror.verify import records
from runmirror.settings import Settings

_PAGE = 50
_FIRST_RUN = UUID(int=0)
_AGE = re.compile(r"(?=.)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")

Tell = Callable[[str], None]


def parse_age(text: str) -> timedelta:
    """`30d`, `1d12h`, `90m`, as `mlflow gc` takes it. Raises `ValueError`."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an age like 30d, 12h or 1d12h30m")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Wish:
    """What to erase: of the deleted runs and logged models these, or all; of runs named, no logged models."""

    older_than: timedelta
    run_ids: Sequence[UUID] = ()
    experiments: Sequence[str] = ()  # names or ids
    dry_run: bool = False


@dataclass(slots=True)
class Outcome:
    """How many are (or would be) gone, and how many are held back."""

    runs: int = 0
    models: int = 0
    experiments: int = 0
    files: int = 0
    held_back: int = 0


async def collect(settings: Settings, database_url: str, wish: Wish, tell: Tell) -> Outcome:
    """Erase, telling of each. Raises `ValueError` for an unknown experiment."""
    engine = create_engine(settings, database_url)
    store = create_store(settings)
    try:
        return await _Collection(engine, store, wish, tell).run()
    finally:
        await store.close()
        await engine.dispose()


class _Collection:
    def __init__(self, engine: AsyncEngine, store: Store, wish: Wish, tell: Tell) -> None:
        self.engine = engine
        self.store = store
        self.wish = wish
        self.tell = tell
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        experiment_ids = await self._experiment_ids()
        async with self.engine.connect() as connection:
            before_ms = await queries.now_ms(connection) - round(self.wish.older_than.total_seconds() * 1000)
        chosen = {"before_ms": before_ms, "experiment_ids": experiment_ids}
        if not self.wish.dry_run:
            await self._remove_files()  # what an earlier call had no time for
        await self._erase_runs({**chosen, "run_ids": list(self.wish.run_ids) or None})
        if not self.wish.run_ids:
            await self._erase_models(chosen)
            async with self.engine.begin() as connection:
                gone = await queries.empty_experiments(connection, erase=not self.wish.dry_run, **chosen)
                for experiment in gone if not self.wish.dry_run else ():
                    await audit.record(connection, "experiment.erase", str(experiment.experiment_id))
            for experiment in gone:
                self.tell(f"experiment {experiment.experiment_id} ({experiment.name})")
            self.outcome.experiments = len(gone)
        return self.outcome

    async def _erase_runs(self, chosen: dict[str, Any]) -> None:
        after = _FIRST_RUN
        while True:
            async with self.engine.begin() as connection:
                page = await queries.runs(connection, after=after, most=_PAGE, **chosen)
                free = [run for run in page if run.heard and run.free]
                if free and not self.wish.dry_run:
                    paths = _folders(free, [run.run_id.hex for run in free])
                    await queries.erase_runs(connection, [run.run_id for run in free], paths)
                    for run in free:
                        await audit.record(connection, "run.erase", run.shown)
            for run in page:
                self._tell_of_run(run)
            if not self.wish.dry_run:
                await self._remove_files()
            if len(page) < _PAGE:
                return
            after = page[-1].run_id

    def _tell_of_run(self, run: Row[Any]) -> None:
        if not run.heard:
            self._hold_back(f"run {run.shown}: the workspace has not heard of its deletion yet (runmirror status)")
        elif not run.free:
            self._hold_back(f"run {run.shown}: a registered model has its files there")
        else:
            self.outcome.runs += 1
            if self.wish.dry_run:
                self.outcome.files += run.files
            self.tell(f"run {run.shown}, {run.files} files")

    async def _erase_models(self, chosen: dict[str, Any]) -> None:
        after = ""
        while True:
            async with self.engine.begin() as connection:
                page = await queries.models(connection, after=after, most=_PAGE, **chosen)
                free = [model for model in page if model.free]
                if free and not self.wish.dry_run:
                    ids = [model.model_id for model in free]
                    await queries.erase_models(connection, ids, _folders(free, ids))
                    for model_id in ids:
                        await audit.record(connection, "logged_model.erase", model_id)
            for model in page:
                if model.free:
                    self.outcome.models += 1
                    self.tell(f"logged model {model.model_id}")
                else:
                    self._hold_back(f"logged model {model.model_id}: a registered model has its files there")
            if not self.wish.dry_run:
                await self._remove_files()
            if len(page) < _PAGE:
                return
            after = page[-1].model_id

    async def _remove_files(self) -> None:
        while True:
            async with self.engine.connect() as connection:
                paths = await queries.removals(connection)
            if not paths:
                return
            for path in paths:
                self.outcome.files += len(await self.store.delete(path))
                async with self.engine.begin() as connection:
                    await queries.removed(connection, path)

    def _hold_back(self, why: str) -> None:
        self.outcome.held_back += 1
        self.tell(f"kept: {why}")

    async def _experiment_ids(self) -> list[int] | None:
        if not self.wish.experiments:
            return None
        found = []
        async with self.engine.connect() as connection:
            for name in self.wish.experiments:
                experiment_id = await records.experiment_id(connection, name)
                if experiment_id is None:
                    raise ValueError(f"no experiment {name!r}")
                found.append(experiment_id)
        return found


def _folders(owners: Sequence[Row[Any]], ids: Sequence[str]) -> list[str]:
    """Their folders in the store: that of the id where there is one, with the artifact root in it."""
    found = []
    for owner, own_id in zip(owners, ids, strict=True):
        try:
            root = path_of(owner.artifact_uri)
        except InvalidParameter:  # not in our store: the files are no concern of ours
            continue
        folder, _, last = root.rpartition("/")
        found.append(folder if last == "artifacts" and folder.rpartition("/")[2] == own_id else root)
    return found

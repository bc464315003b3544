"""What is to be imported, from where, and who is told of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.importing.entities import OldExperiment
from runmirror.importing.progress import Progress
from runmirror.importing.report import Report
from runmirror.importing.source import Source


@dataclass(frozen=True, slots=True)
class Wish:
    """What to bring: with `experiments` only what is in these, by their names there, and no registry."""

    experiments: Collection[str] = ()
    since_ms: int | None = None
    artifacts: bool = True
    registry: bool = True
    traces: bool = True
    workers: int = 4
    mirror: bool = True
    again: bool = False  # look at the files of runs that have not changed, too


class UnknownExperiment(Exception):
    """The source has none of this name."""


@dataclass(frozen=True, slots=True)
class Task:
    """`name` is what the source is called in `import_sources`."""

    engine: AsyncEngine
    source: Source
    wish: Wish
    report: Report
    progress: Progress
    name: str


async def chosen_experiments(source: Source, wish: Wish) -> Sequence[OldExperiment]:
    """Raises `UnknownExperiment`."""
    found = await source.experiments()
    if not wish.experiments:
        return found
    names = {experiment.name for experiment in found}
    if missing := [name for name in wish.experiments if name not in names]:
        raise UnknownExperiment(f"the source has no experiment {missing[0]!r}")
    return [experiment for experiment in found if experiment.name in wish.experiments]

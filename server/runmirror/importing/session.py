"""One import, from beginning to end: the phases in their order, each with several at work at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.adoption.queries import link_id_of
from runmirror.artifacts.service import Artifacts
from runmirror.importing import experiments, models, queries, registry, traces
from runmirror.importing.entities import OldExperiment, OldModel, OldRun, OldTrace
from runmirror.importing.experiments import Experiments
from runmirror.importing.files import FileCopier
from runmirror.importing.runs import Runs
from runmirror.importing.source import SourceError
from runmirror.importing.task import Task, chosen_experiments

_BATCH_RUNS = 100  # of one transaction
_PAGE_FILES = 200
_PAGE = TypeVar("_PAGE")


class Session:
    def __init__(self, task: Task, artifacts: Artifacts, *, chunks: bool) -> None:
        self._engine = task.engine
        self._artifacts = artifacts
        self._source = task.source
        self._wish = task.wish
        self._report = task.report
        self._progress = task.progress
        self._name = task.name
        self._chunks = chunks
        self._source_id = 0

    async def run(self) -> None:
        """Raises `SourceError` when the source cannot be read any more, `UnknownExperiment`."""
        chosen = await chosen_experiments(self._source, self._wish)
        async with self._engine.begin() as connection:
            self._source_id = await queries.source_id(connection, self._name)
            await self._refuse_a_circle(connection)
        here = await self._experiments(chosen)
        ids = None if not self._wish.experiments else [one.experiment_id for one in chosen]
        await self._runs(here, ids)
        if self._wish.artifacts:
            await self._files("run", "files of runs")
        await self._models(here, ids)
        if self._wish.artifacts:
            await self._files("logged_model", "files of models")
        if self._wish.registry and not self._wish.experiments:
            await self._registry()
        if self._wish.traces:
            await self._traces(here, ids)
        if here.to_delete:
            async with self._engine.begin() as connection:
                await queries.end_experiments(connection, here.to_delete)
        self._progress.end()

    async def _refuse_a_circle(self, connection: AsyncConnection) -> None:
        """What comes from a linked workspace would be sent back to it, as if it were new."""
        workspace_id = self._source.workspace_id
        if workspace_id is None or not self._wish.mirror:
            return
        if await link_id_of(connection, workspace_id) is not None:
            raise SourceError(
                "this workspace is linked here, so its runs would be copied back into it: import them with --no-mirror"
            )

    async def _experiments(self, chosen: Sequence[OldExperiment]) -> Experiments:
        self._progress.phase("experiments", len(chosen))
        here = await experiments.write(self._engine, self._source_id, chosen)
        self._progress.advance(len(chosen))
        unchanged = len(here.ids) - here.new - here.merged
        self._report.count("experiments", new=here.new, into_ones_that_are_here=here.merged, unchanged=unchanged)
        for name, why in here.refused:
            self._report.refuse("experiment", name, why)
        return here

    async def _runs(self, here: Experiments, ids: Collection[str] | None) -> None:
        self._progress.phase("runs")
        writer = Runs(
            self._engine, self._source, self._source_id, mirror=self._wish.mirror, chunks=self._chunks
        )  # fmt: skip

        async def write(some: Sequence[OldRun]) -> None:
            told = await writer.write(some, here.ids)
            self._progress.advance(len(some))
            self._report.count(
                "runs", new=told.new, changed=told.changed, unchanged=told.unchanged, points=told.points
            )  # fmt: skip
            for run_id, why in told.refused:
                self._report.refuse("run", run_id, why)

        self._report.count("runs", new=0)
        await self._each(_portions(self._source.runs(ids, self._wish.since_ms), _BATCH_RUNS), write)

    async def _files(self, kind: str, phase: str) -> None:
        """Of all that was ever imported from there: also what an earlier call had no time for."""
        self._progress.phase(phase)
        copier = FileCopier(self._engine, self._source, self._source_id, self._artifacts)

        async def copy(row: Row[object]) -> None:
            told = await copier.copy(kind, row, again=self._wish.again)
            self._progress.advance(told.files)
            self._report.count(phase, copied=told.files, bytes=told.bytes, unchanged=told.unchanged)
            for key, why in told.refused:
                self._report.refuse(kind, key, why)

        self._report.count(phase, copied=0)
        await self._each(self._imported(kind), copy)

    async def _imported(self, kind: str) -> AsyncIterator[Row[object]]:
        after = ""
        while True:
            async with self._engine.connect() as connection:
                page = await queries.page(connection, self._source_id, kind, after=after, most=_PAGE_FILES)
            for row in page:
                yield row
            if len(page) < _PAGE_FILES:
                return
            after = page[-1].key

    async def _models(self, here: Experiments, ids: Collection[str] | None) -> None:
        self._progress.phase("logged models")

        async def write(some: Sequence[OldModel]) -> None:
            told = await models.write(self._engine, self._source_id, some, here.ids)
            self._progress.advance(len(some))
            self._tell("logged models", "logged_model", told)

        self._report.count("logged models", new=0)
        await self._each(self._source.models(ids), write)

    async def _registry(self) -> None:
        self._progress.phase("registered models")
        self._report.count("registered models", new=0)
        # One after the other: a version's source may be a version of another one.
        async for model in self._source.registered_models():
            told = await registry.write(self._engine, self._source_id, model, mirror=self._wish.mirror)
            self._progress.advance(1)
            self._tell("registered models", "registered_model", told)

    async def _traces(self, here: Experiments, ids: Collection[str] | None) -> None:
        self._progress.phase("traces")

        async def write(some: Sequence[OldTrace]) -> None:
            told = await traces.write(self._engine, self._source_id, some, here.ids)
            self._progress.advance(len(some))
            self._tell("traces", "trace", told)

        self._report.count("traces", new=0)
        await self._each(self._source.traces(ids, self._wish.since_ms), write)

    def _tell(self, phase: str, kind: str, told: models.Written) -> None:
        self._report.count(phase, new=told.new, changed=told.changed, unchanged=told.unchanged)
        for key, why in told.refused:
            self._report.refuse(kind, key, why)

    async def _each(self, pages: AsyncIterator[_PAGE], act: Callable[[_PAGE], Awaitable[None]]) -> None:
        """`act` on every page, `workers` at once, without reading further ahead than one for each."""
        waiting: asyncio.Queue[_PAGE | None] = asyncio.Queue(self._wish.workers)

        async def work() -> None:
            while (page := await waiting.get()) is not None:
                await act(page)

        async def read() -> None:
            async with contextlib.aclosing(pages):  # type: ignore[type-var]
                async for page in pages:
                    await waiting.put(page)
            for _ in range(self._wish.workers):
                await waiting.put(None)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._wish.workers):
                    group.create_task(work())
                group.create_task(read())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None


async def _portions(pages: AsyncIterator[Sequence[OldRun]], size: int) -> AsyncIterator[Sequence[OldRun]]:
    async for page in pages:
        for start in range(0, len(page), size):
            yield page[start : start + size]

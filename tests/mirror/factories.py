"""Runs with something in them, written as the routes write: one transaction per write."""

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.artifacts.service import Artifacts
from runmirror.entities import Batch, Dataset, DatasetInput, LifecycleStage, Metric, Param, RunStatus, Tag
from runmirror.experiments import service as experiments
from runmirror.logged_models import service as logged_models
from runmirror.runs import hot_queries, inputs_service
from runmirror.runs import service as runs
from runmirror.runs.hot_columns import Point, Write, columns

START_MS = 1_700_000_000_000


async def log_hot(connection: AsyncConnection, run_id: UUID, metrics: Sequence[Metric]) -> None:
    """Points by the hot way."""
    write = Write(run_id, [Point(m.key, m.value, m.timestamp_ms, m.step) for m in metrics])
    raw = (await connection.get_raw_connection()).driver_connection
    assert await hot_queries.log(raw, columns([write]))


@dataclass(frozen=True)
class SourceRun:
    """A run at the source, and the writes a client would do."""

    engine: AsyncEngine
    store: Store
    run_id: UUID
    experiment_id: str

    async def log(
        self,
        *,
        metrics: Sequence[Metric] = (),
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """One log-batch."""
        batch = Batch(
            tuple(metrics),
            tuple(Param(key, value) for key, value in (params or {}).items()),
            tuple(Tag(key, value) for key, value in (tags or {}).items()),
        )
        async with self.engine.begin() as connection:
            if batch.params or batch.tags or not all(math.isfinite(metric.value) for metric in batch.metrics):
                await runs.log_batch(connection, self.run_id.hex, batch)
            else:  # as most points come: many of one metric become a chunk
                await log_hot(connection, self.run_id, batch.metrics)

    async def log_inputs(self, number: int) -> None:
        """Datasets `d0` and up."""
        inputs = [
            DatasetInput(Dataset(f"d{n}", "abc", "local", "{}", schema="{}"), (Tag("mlflow.data.context", "training"),))
            for n in range(number)
        ]
        async with self.engine.begin() as connection:
            await inputs_service.log_inputs(connection, self.run_id.hex, datasets=inputs, model_ids=[])

    async def delete_tag(self, key: str) -> None:
        async with self.engine.begin() as connection:
            await runs.delete_tag(connection, self.run_id.hex, key)

    async def update(self, status: RunStatus | None = None, *, name: str = "", end_time_ms: int | None = None) -> None:
        async with self.engine.begin() as connection:
            await runs.update_run(
                connection, self.run_id.hex, status=status, end_time_ms=end_time_ms, run_name=name
            )  # fmt: skip

    async def finish(self) -> None:
        await self.update(RunStatus.FINISHED, end_time_ms=START_MS + 60_000)

    async def move(self, to: LifecycleStage) -> None:
        async with self.engine.begin() as connection:
            await runs.move_run(connection, self.run_id.hex, to=to)

    async def upload(self, path: str, content: bytes, *, model_id: str = "") -> None:
        """Put a file below the run's artifact root, or that of a logged model."""
        root = f"{self.experiment_id}/models/{model_id}" if model_id else f"{self.experiment_id}/{self.run_id.hex}"
        await self._artifacts().upload(f"{root}/artifacts/{path}", chunks(content))

    async def delete_file(self, path: str) -> None:
        await self._artifacts().delete(f"{self.experiment_id}/{self.run_id.hex}/artifacts/{path}")

    async def log_model(self, name: str) -> str:
        async with self.engine.begin() as connection:
            return await logged_models.create(
                connection, experiment_id=self.experiment_id, name=name, model_type="", params=(), tags=(),
                source_run_id=self.run_id.hex,
            )  # fmt: skip

    async def mirror(self) -> Row[tuple[object, ...]]:
        """The run's row in the queue, with the run's seq."""
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT mirrors.*, seq FROM mirrors JOIN runs USING (run_id) WHERE run_id = :run_id"),
                {"run_id": self.run_id},
            )
            return found.one()

    async def tags(self) -> dict[str, str]:
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT key, value FROM tags WHERE run_id = :run_id AND value IS NOT NULL"),
                {"run_id": self.run_id},
            )
            return dict(tuple(row) for row in found)

    def _artifacts(self) -> Artifacts:
        def writing() -> AbstractAsyncContextManager[AsyncConnection]:
            return self.engine.begin()

        return Artifacts(self.store, reading=writing, writing=writing)


class Source:
    """Creates runs."""

    def __init__(self, engine: AsyncEngine, store: Store) -> None:
        self.engine = engine
        self.store = store

    async def experiment(self, name: str, **tags: str) -> str:
        async with self.engine.begin() as connection:
            given = [Tag(key, value) for key, value in tags.items()]
            return str(await experiments.create(connection, name, "", given))

    async def tag_experiment(self, experiment_id: str, key: str, value: str | None) -> None:
        """None deletes the tag."""
        async with self.engine.begin() as connection:
            if value is None:
                await experiments.delete_tag(connection, experiment_id, key)
            else:
                await experiments.set_tag(connection, experiment_id, Tag(key, value))

    async def run(self, name: str = "a run", *, experiment_id: str = "0", **tags: str) -> SourceRun:
        async with self.engine.begin() as connection:
            run_id = await runs.create_run(
                connection, experiment_id=experiment_id, user_id="ada", run_name=name, start_time_ms=START_MS,
                tags=[Tag(key, value) for key, value in tags.items()],
            )  # fmt: skip
        return SourceRun(self.engine, self.store, run_id, experiment_id)


def points(key: str, count: int, *, first: int = 0) -> list[Metric]:
    """`count` points of one metric at steps `first` and up."""
    return [Metric(key, step / 8, START_MS + step, step) for step in range(first, first + count)]


async def chunks(content: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]

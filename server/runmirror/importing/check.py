"""Both sides read once more and compared, page by page: what the source has, and what of it is here.

Compared of a run: status, times, user, name, stage, experiment, params, tags, last value of every metric, number of
points, datasets, models it read and made, and path and size of every file. What was written here since its import is
no difference: only rows that the import wrote are looked at.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Row

from runmirror.importing import check_queries, queries
from runmirror.importing.entities import OldModel, OldRegisteredModel, OldRun, OldTrace
from runmirror.importing.files import sizes
from runmirror.importing.runs import wrote
from runmirror.importing.source import Root, SourceError
from runmirror.importing.task import Task, chosen_experiments
from runmirror.run_ids import stored_id
from runmirror.wire import finite_or_nan


class Check:
    """Compares one source with what is here; writes nothing."""

    def __init__(self, task: Task) -> None:
        self._engine = task.engine
        self._source = task.source
        self._wish = task.wish
        self._report = task.report
        self._progress = task.progress
        self._name = task.name
        self._source_id = -1
        self._experiments: dict[str, int] = {}

    async def run(self) -> None:
        chosen = await chosen_experiments(self._source, self._wish)
        ids = None if not self._wish.experiments else [one.experiment_id for one in chosen]
        async with self._engine.connect() as connection:
            self._source_id = await queries.known_source(connection, self._name) or -1
            keys = [one.experiment_id for one in chosen]
            known = await queries.known(connection, self._source_id, "experiment", keys)
        self._experiments = {key: int(row.target) for key, row in known.items()}
        for experiment in chosen:
            if experiment.experiment_id not in self._experiments:
                self._report.differ("experiment", experiment.name, "it", there="there", here="not here")
        await self._runs(ids)
        await self._models(ids)
        if self._wish.registry and not self._wish.experiments:
            await self._registry()
        if self._wish.traces:
            await self._traces(ids)
        self._progress.end()

    async def _runs(self, ids: Collection[str] | None) -> None:
        self._progress.phase("compared: runs")
        async for page in self._source.runs(ids, self._wish.since_ms):
            await self._page(page)
            self._progress.advance(len(page))

    async def _page(self, page: Sequence[OldRun]) -> None:
        async with self._engine.connect() as connection:
            known = await queries.known(connection, self._source_id, "run", [run.run_id for run in page])
            run_ids = [run_id for run in page if run.run_id in known and (run_id := stored_id(run.run_id))]
            here = await check_queries.runs(connection, run_ids)
            files = await check_queries.files(connection, run_ids) if self._wish.artifacts else {}
        for run in page:
            note, row = known.get(run.run_id), here.get(stored_id(run.run_id))
            if note is None:
                self._report.differ("run", run.run_id, "it", there="there", here="not here")
            if note is None or row is None:  # erased here since
                continue
            self._run(run, row, note)
            if self._wish.artifacts:
                await self._files("run", Root(run.run_id, "", run.artifact_uri), files.get(row.run_id, {}))
        self._report.count("compared", runs=len(page))

    def _run(self, run: OldRun, row: Row[Any], note: Row[Any]) -> None:
        def same(what: str, there: object, here: object) -> None:
            if there != here and not (there != there and here != here):  # noqa: PLR0124 - NaN equals NaN
                self._report.differ("run", run.run_id, what, there=there, here=here)

        same("experiment", self._experiments.get(run.experiment_id), row.experiment_id)
        if wrote(note.seqs, row.info_seq):
            for what in ("status", "start_time_ms", "end_time_ms", "user_id", "lifecycle_stage"):
                same(what, getattr(run, what), getattr(row, what))
        if run.name:
            same("name", run.name, row.name if wrote(note.seqs, row.info_seq) else run.name)
        params = row.params or {}
        for key in sorted(run.params.keys() | params.keys()):
            if key in run.params or wrote(note.seqs, params[key][1]):
                same(f"param {key}", run.params.get(key), params.get(key, (None,))[0])
        tags = row.tags or {}
        ours = {key for key, (_, seq) in tags.items() if not wrote(note.seqs, seq)}
        for key in sorted((run.tags.keys() | tags.keys()) - ours):
            if not key.startswith("runmirror.") and not (key == "mlflow.runName" and key not in run.tags):
                same(f"tag {key}", run.tags.get(key), tags.get(key, (None,))[0])
        latest = row.latest or {}
        for key, (value, timestamp_ms, step) in run.latest.items():
            told = [finite_or_nan(value), timestamp_ms, step]
            found = latest.get(key)
            if found is None or wrote(note.seqs, found[3]):
                mine = None if found is None else [_number(found[0]), *found[1:3]]
                same(f"last value of metric {key}", _shown(told), _shown(mine))
        points = sum(number for seq, number in row.points or [] if wrote(note.seqs, seq))
        same("number of points", note.points if run.points is None else run.points, points)
        same(
            "datasets", sorted((given.dataset.name, given.dataset.digest) for given in run.datasets),
            sorted(map(tuple, row.datasets or [])),
        )  # fmt: skip
        same("model inputs", sorted(set(run.model_inputs)), sorted(row.model_inputs or []))
        same("model outputs", sorted(dict(run.model_outputs).items()), sorted(map(tuple, row.model_outputs or [])))

    async def _files(self, kind: str, root: Root, here: Mapping[str, int]) -> None:
        key = root.model_id or root.run_id
        try:
            listed = sizes(await self._source.list_files(root))
        except SourceError as error:
            self._report.differ(kind, key, "files", there=str(error), here=len(here))
            return
        self._report.count("compared", files=len(listed))
        for path, size in listed.items():
            mine = here.get(path)
            if mine is None or (size is not None and size != mine):
                self._report.differ(kind, key, f"file {path}", there=size, here=mine)

    async def _models(self, ids: Collection[str] | None) -> None:
        self._progress.phase("compared: models")
        async for page in self._source.models(ids):
            async with self._engine.connect() as connection:
                here = await check_queries.models(connection, [model.model_id for model in page])
            for model in page:
                await self._model(model, here.get(model.model_id))
            self._report.count("compared", logged_models=len(page))
            self._progress.advance(len(page))

    async def _model(self, model: OldModel, row: Row[Any] | None) -> None:
        if row is None:
            self._report.differ("logged_model", model.model_id, "it", there="there", here="not here")
            return
        for what, there, here in (
            ("name", model.name or row.name, row.name), ("status", model.status, row.status),
            ("stage", model.lifecycle_stage, row.lifecycle_stage), ("params", model.params, row.params or {}),
            ("number of metrics", len(model.metrics), row.metrics),
        ):  # fmt: skip
            if there != here:
                self._report.differ("logged_model", model.model_id, what, there=there, here=here)
        if self._wish.artifacts and row.source_run_id is not None and model.lifecycle_stage == "active":
            await self._files("logged_model", Root("", model.model_id, model.artifact_uri), row.files or {})

    async def _registry(self) -> None:
        self._progress.phase("compared: registry")
        async for model in self._source.registered_models():
            async with self._engine.connect() as connection:
                self._registered(model, await check_queries.registered_model(connection, model.name))
            self._report.count("compared", registered_models=1, versions=len(model.versions))
            self._progress.advance(1)

    def _registered(self, model: OldRegisteredModel, row: Row[Any] | None) -> None:
        versions = {} if row is None else {int(number): stage for number, stage in (row.versions or {}).items()}
        for what, there, here in (
            ("it", "there", "there" if row is not None else "not here"),
            ("versions", {one.version: one.stage for one in model.versions}, versions),
            ("aliases", model.aliases, {} if row is None else row.aliases or {}),
        ):
            if there != here:
                self._report.differ("registered_model", model.name, what, there=there, here=here)

    async def _traces(self, ids: Collection[str] | None) -> None:
        self._progress.phase("compared: traces")
        async for page in self._source.traces(ids, self._wish.since_ms):
            async with self._engine.connect() as connection:
                here = await check_queries.traces(connection, [trace.info.trace_id for trace in page])
            for trace in page:
                self._trace(trace, here.get(trace.info.trace_id))
            self._report.count("compared", traces=len(page))
            self._progress.advance(len(page))

    def _trace(self, trace: OldTrace, row: Row[Any] | None) -> None:
        told = [trace.info.state, len(trace.spans or ()), len(trace.info.assessments)]
        mine = None if row is None else [row.state, row.spans, row.assessments]
        if told != mine:
            what = "state, spans and assessments"
            self._report.differ("trace", trace.info.trace_id, what, there=told, here=mine)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _shown(point: list[Any] | None) -> list[Any] | None:
    """NaN as text, which equals itself."""
    return None if point is None else [str(point[0]), *point[1:]]

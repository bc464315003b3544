"""A source that is MLflow's own database: pages by primary key, a handful of statements each."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from runmirror.entities import Dataset, DatasetInput, Tag
from runmirror.importing import old_spans, old_traces, sql_queries
from runmirror.importing.entities import (
    OldExperiment,
    OldFile,
    OldModel,
    OldModelMetric,
    OldRegisteredModel,
    OldRun,
    OldTrace,
    OldVersion,
)
from runmirror.importing.old_files import Files
from runmirror.importing.source import PAGE_RUNS, PIECE_POINTS, PointsOf, Root, SourceError
from runmirror.importing.sql_database import Database, Rows, identity_of, open_database
from runmirror.importing.sql_queries import Tables, first_and_pairs
from runmirror.runs.hot_columns import Point
from runmirror.traces import keys
from runmirror.traces.assessments import Assessment
from runmirror.traces.spans import SpanIn

_PAGE_TRACES = 100
_TOGETHER = 100_000  # points of runs that are read in one go, without an order


class SqlSource:
    """See `runmirror.importing.source.Source`."""

    workspace_id: str | None = None

    def __init__(self, url: str, files: Files) -> None:
        self.identity = identity_of(url)
        self._database: Database = open_database(url)
        self._files = files
        self._tables_found: Tables | None = None

    async def experiments(self) -> Sequence[OldExperiment]:
        tables = await self._tables()
        tags = first_and_pairs(await tables.experiment_tags())
        return [
            OldExperiment(
                str(number), name, stage or "active", created or 0, updated or created or 0, tags.get(number, {})
            )
            for number, name, stage, created, updated in await tables.experiments()
        ]

    async def runs(
        self, experiment_ids: Collection[str] | None, since_ms: int | None
    ) -> AsyncIterator[Sequence[OldRun]]:
        tables, after = await self._tables(), ""
        while True:
            rows = await tables.runs(
                after=after, most=PAGE_RUNS, experiment_ids=experiment_ids, since_ms=since_ms
            )  # fmt: skip
            if rows:
                yield await self._runs(tables, rows)
            if len(rows) < PAGE_RUNS:
                return
            after = rows[-1][0]

    async def _runs(self, tables: Tables, rows: Rows) -> Sequence[OldRun]:
        ids = [row[0] for row in rows]
        params, tags = first_and_pairs(await tables.params(ids)), first_and_pairs(await tables.tags(ids))
        latest: dict[str, dict[str, tuple[float, int, int]]] = {}
        for run_id, key, value, timestamp, step, is_nan in await tables.latest(ids):
            latest.setdefault(run_id, {})[key] = (_value(value, is_nan), timestamp or 0, step)
        counts: dict[str, int] = {row[0]: row[1] for row in await tables.point_counts(ids)}
        datasets = await _datasets(tables, ids)
        inputs: dict[str, list[str]] = {}
        outputs: dict[str, list[tuple[str, int]]] = {}
        for kind, run_id, model_id, step in await tables.run_models(ids):
            if kind == "RUN_INPUT":
                inputs.setdefault(run_id, []).append(model_id)
            else:
                outputs.setdefault(run_id, []).append((model_id, step))
        return [
            OldRun(
                run_id=run_id, experiment_id=str(experiment_id), name=name or "", user_id=user_id or "",
                status=status or "RUNNING", start_time_ms=start or 0, end_time_ms=end,
                lifecycle_stage=stage or "active",
                artifact_uri=artifact_uri or "", deleted_time_ms=deleted, params=params.get(run_id, {}),
                tags=tags.get(run_id, {}), latest=latest.get(run_id, {}), datasets=tuple(datasets.get(run_id, ())),
                model_inputs=tuple(sorted(inputs.get(run_id, ()))),
                model_outputs=tuple(sorted(outputs.get(run_id, ()))), points=counts.get(run_id, 0),
            )
            for run_id, experiment_id, name, user_id, status, start, end, stage, artifact_uri, deleted in rows
        ]  # fmt: skip

    async def points(self, runs: Sequence[OldRun]) -> AsyncIterator[Sequence[PointsOf]]:
        tables = await self._tables()
        for some in _portions(runs):
            in_order = sum(run.points or 0 for run in some) > _TOGETHER
            async for rows in tables.points([run.run_id for run in some], PIECE_POINTS, in_order=in_order):
                by_run: dict[str, list[Point]] = {}
                for run_id, key, value, timestamp, step, is_nan in rows:
                    by_run.setdefault(run_id, []).append(Point(key, _value(value, is_nan), timestamp or 0, step))
                yield [PointsOf(run_id, points) for run_id, points in by_run.items()]

    async def models(self, experiment_ids: Collection[str] | None) -> AsyncIterator[Sequence[OldModel]]:
        tables, after = await self._tables(), ""
        while rows := await tables.models(after=after, most=PAGE_RUNS):
            after = rows[-1][0]
            wanted = [row for row in rows if experiment_ids is None or str(row[1]) in experiment_ids]
            if not wanted:
                continue
            params, tags, metrics = await tables.of_models([row[0] for row in wanted])
            params_of, tags_of = first_and_pairs(params), first_and_pairs(tags)
            metrics_of: dict[str, list[OldModelMetric]] = {}
            for model_id, key, value, timestamp, step, run_id, name, digest in metrics:
                metric = OldModelMetric(key, _value(value, value is None), timestamp, step, run_id, name, digest)
                metrics_of.setdefault(model_id, []).append(metric)
            yield [
                OldModel(
                    model_id=row[0], experiment_id=str(row[1]), name=row[2], artifact_uri=row[3],
                    creation_time_ms=row[4], last_updated_time_ms=row[5], status=row[6],
                    lifecycle_stage=row[7] or "active", model_type=row[8] or "", source_run_id=row[9] or "",
                    status_message=row[10] or "", params=params_of.get(row[0], {}), tags=tags_of.get(row[0], {}),
                    metrics=tuple(sorted(metrics_of.get(row[0], ()), key=_identity)),
                )
                for row in wanted
            ]  # fmt: skip

    async def registered_models(self) -> AsyncIterator[OldRegisteredModel]:
        tables = await self._tables()
        for name, created, updated, description in await tables.registered_models():
            versions, tags, aliases, version_tags = await tables.of_registered_model(name)
            tags_of = first_and_pairs(version_tags)
            yield OldRegisteredModel(
                name, created or 0, updated or created or 0, description or "",
                {key: value or "" for key, value in tags}, {row[0]: row[1] for row in aliases},
                tuple(_version(row, tags_of.get(row[1], {})) for row in versions if row[5] != "Deleted_Internal"),
                last_version=max((row[1] for row in versions), default=0),
            )  # fmt: skip

    async def traces(
        self, experiment_ids: Collection[str] | None, since_ms: int | None
    ) -> AsyncIterator[Sequence[OldTrace]]:
        tables, after = await self._tables(), ""
        while rows := await tables.traces(after=after, most=_PAGE_TRACES):
            after = rows[-1][0]
            wanted = [row for row in rows if experiment_ids is None or str(row[1]) in experiment_ids]
            if wanted := [row for row in wanted if since_ms is None or row[2] >= since_ms]:
                yield await self._traces(tables, wanted)

    async def _traces(self, tables: Tables, rows: Rows) -> Sequence[OldTrace]:
        ids = [row[0] for row in rows]
        tags = first_and_pairs(await tables.trace_pairs("trace_tags", ids))
        metadata = first_and_pairs(await tables.trace_pairs("trace_request_metadata", ids))
        assessments: dict[str, list[Assessment]] = {}
        invalid: dict[str, list[str]] = {}
        for row in await tables.assessments(ids):
            told = old_traces.assessment_of_row(_by_column(row))
            assessments.setdefault(row[0], []).append(told)
            if not row[-1]:
                invalid.setdefault(row[0], []).append(told.assessment_id)
        spans: dict[str, list[Any]] = {}
        for trace_id, content in await tables.spans(ids):
            spans.setdefault(trace_id, []).append(content)
        run_ids: dict[str, list[str]] = {}
        prompts: dict[str, list[str]] = {}
        for trace_id, kind, target in await tables.trace_links(ids):
            (run_ids if kind == "run" else prompts).setdefault(trace_id, []).append(target)
        found = []
        for row in rows:
            trace_id = row[0]
            judged = sorted(assessments.get(trace_id, ()), key=lambda one: one.assessment_id)
            info = old_traces.trace_of_row(_by_column(row), tags.get(trace_id, {}), metadata.get(trace_id, {}), judged)
            of_trace = await self._spans(info.tags, trace_id, spans.get(trace_id, []))
            links = run_ids.get(trace_id, ()), prompts.get(trace_id, ())
            found.append(OldTrace(info, of_trace, *links, invalid=invalid.get(trace_id, ())))
        return found

    async def _spans(self, tags: Any, trace_id: str, contents: Sequence[Any]) -> Sequence[SpanIn] | None:
        """From the database, or from the file that a client wrote; None when nobody here reaches that."""
        if contents and any(contents):
            return old_spans.parse_file(trace_id, f'{{"spans": [{",".join(contents)}]}}')
        root = Root("", "", tags.get(keys.ARTIFACT_LOCATION, ""))
        try:
            content = b"".join([chunk async for chunk in self._files.read(root, "traces.json")])
            return old_spans.parse_file(trace_id, content)
        except SourceError:
            return None

    async def list_files(self, root: Root) -> Sequence[OldFile]:
        return await self._files.list(root)

    def read_file(self, root: Root, path: str) -> AsyncIterator[bytes]:
        return self._files.read(root, path)

    async def close(self) -> None:
        await self._files.close()
        await self._database.close()

    async def _tables(self) -> Tables:
        if self._tables_found is None:
            self._tables_found = await sql_queries.Tables.of(self._database)
        return self._tables_found


async def _datasets(tables: Tables, ids: Sequence[str]) -> dict[str, list[DatasetInput]]:
    rows = await tables.dataset_inputs(ids)
    tags = first_and_pairs(await tables.input_tags([row[0] for row in rows]))
    found: dict[str, list[DatasetInput]] = {}
    for input_id, run_id, name, digest, source_type, source, schema, profile in sorted(
        rows, key=lambda row: (row[2], row[3])
    ):
        given = tuple(Tag(key, value) for key, value in sorted(tags.get(input_id, {}).items()))
        dataset = Dataset(name, digest, source_type, source, schema, profile)
        found.setdefault(run_id, []).append(DatasetInput(dataset, given))
    return found


def _portions(runs: Sequence[OldRun]) -> list[list[OldRun]]:
    """Those with very many points alone, in order: what is read then need not be held to be sorted."""
    small = [run for run in runs if (run.points or 0) <= _TOGETHER // 10]
    large = [[run] for run in runs if (run.points or 0) > _TOGETHER // 10]
    return ([small] if small else []) + large


def _version(row: Sequence[Any], tags: dict[str, str]) -> OldVersion:
    _, version, created, updated, description, stage, source, location, run_id, run_link = row
    return OldVersion(
        version, created or 0, updated or created or 0, description, stage or "None", source or "", run_id or "",
        run_link or "", location or "", tags,
    )  # fmt: skip


def _by_column(row: Any) -> dict[str, Any]:
    return dict(row._mapping)


def _identity(metric: OldModelMetric) -> tuple[str, str, int, int]:
    return metric.run_id, metric.key, metric.step, metric.timestamp_ms


def _value(value: float | None, is_nan: Any) -> float:
    """MLflow keeps NaN as 0 and a flag."""
    return float("nan") if is_nan or value is None else float(value)

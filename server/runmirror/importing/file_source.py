"""A source that is a folder of MLflow's file store."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from runmirror.entities import Dataset, DatasetInput, Tag
from runmirror.importing import file_store, old_spans, rest_wire
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
from runmirror.importing.old_files import Files, local_path
from runmirror.importing.source import PIECE_POINTS, PointsOf, Root, SourceError
from runmirror.runs.hot_columns import Point
from runmirror.traces import keys

_PAGE = 200
_BY_NUMBER = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_STATES_OF_V2 = {"UNSPECIFIED": "STATE_UNSPECIFIED", "TRACE_STATUS_UNSPECIFIED": "STATE_UNSPECIFIED"}
_T = TypeVar("_T")


class FileSource:
    """See `runmirror.importing.source.Source`."""

    workspace_id: str | None = None

    def __init__(self, folder: Path, files: Files) -> None:
        self._root = folder.resolve()
        if not self._root.is_dir():
            raise SourceError(f"there is no folder {self._root}")
        self.identity = f"file:{self._root}"
        self._files = files

    async def experiments(self) -> Sequence[OldExperiment]:
        found = await asyncio.to_thread(lambda: [_experiment(*one) for one in file_store.experiments(self._root)])
        if not found:
            raise SourceError(f"{self._root} is no folder of MLflow's: no experiment is in it")
        return found

    async def runs(
        self, experiment_ids: Collection[str] | None, since_ms: int | None
    ) -> AsyncIterator[Sequence[OldRun]]:
        async for page in _pages(lambda: self._all_runs(experiment_ids, since_ms)):
            yield page

    def _all_runs(self, experiment_ids: Collection[str] | None, since_ms: int | None) -> Iterator[OldRun]:
        for experiment in self._chosen(experiment_ids):
            datasets: dict[str, Dataset] = {}
            for folder in file_store.runs(experiment):
                run = _run(folder, datasets)
                if since_ms is None or run.start_time_ms >= since_ms:
                    yield run

    def _chosen(self, experiment_ids: Collection[str] | None) -> Iterator[Path]:
        for folder, _ in file_store.experiments(self._root):
            if experiment_ids is None or folder.name in experiment_ids:
                yield folder

    async def points(self, runs: Sequence[OldRun]) -> AsyncIterator[Sequence[PointsOf]]:
        piece: list[PointsOf] = []
        held = 0
        async for some in _pages(lambda: self._points(runs), size=1):
            piece += some
            held += len(some[0].points)
            if held >= PIECE_POINTS:
                yield piece
                piece, held = [], 0
        if piece:
            yield piece

    def _points(self, runs: Sequence[OldRun]) -> Iterator[PointsOf]:
        for run in runs:
            metrics = self._folder_of(run) / "metrics"
            for key in run.latest:
                points: list[Point] = []
                seen: set[tuple[int, int, str]] = set()
                for point in file_store.points(key, metrics / key):
                    same = point.timestamp, point.step, repr(point.value)
                    if same not in seen:  # a client that tried again has written it twice
                        seen.add(same)
                        points.append(point)
                    if len(points) >= PIECE_POINTS:
                        yield PointsOf(run.run_id, points)
                        points = []
                if points:
                    yield PointsOf(run.run_id, points)

    def _folder_of(self, run: OldRun) -> Path:
        for place in (self._root, self._root / ".trash"):
            if (found := place / run.experiment_id / run.run_id).is_dir():
                return found
        raise SourceError(f"the folder of run {run.run_id} is gone")

    async def models(self, experiment_ids: Collection[str] | None) -> AsyncIterator[Sequence[OldModel]]:
        def all_models() -> Iterator[OldModel]:
            for experiment in self._chosen(experiment_ids):
                for folder in file_store.folders(experiment / "models"):
                    yield _model(folder)

        async for page in _pages(all_models):
            yield page

    async def registered_models(self) -> AsyncIterator[OldRegisteredModel]:
        async for page in _pages(lambda: map(_registered_model, file_store.folders(self._root / "models"))):
            for model in page:
                yield model

    async def traces(
        self, experiment_ids: Collection[str] | None, since_ms: int | None
    ) -> AsyncIterator[Sequence[OldTrace]]:
        def all_traces() -> Iterator[OldTrace]:
            for experiment in self._chosen(experiment_ids):
                for folder in file_store.folders(experiment / "traces"):
                    trace = _trace(folder)
                    if since_ms is None or trace.info.request_time_ms >= since_ms:
                        yield trace

        async for page in _pages(all_traces):
            yield [await self._with_spans(trace) for trace in page]

    async def _with_spans(self, trace: OldTrace) -> OldTrace:
        """In an experiment with an artifact location of its own they lie there."""
        if trace.spans is not None:
            return trace
        trace_id, root = trace.info.trace_id, Root("", "", trace.info.tags.get(keys.ARTIFACT_LOCATION, ""))
        try:
            content = b"".join([chunk async for chunk in self._files.read(root, "traces.json")])
            return replace(trace, spans=old_spans.parse_file(trace_id, content))
        except SourceError:
            return trace

    async def list_files(self, root: Root) -> Sequence[OldFile]:
        return await self._files.list(self._here(root))

    def read_file(self, root: Root, path: str) -> AsyncIterator[bytes]:
        return self._files.read(self._here(root), path)

    def _here(self, root: Root) -> Root:
        """The whole folder may have been moved since the addresses in it were written."""
        folder = local_path(root.uri)
        if folder is None or folder.is_dir():
            return root
        length = 4 if root.model_id else 3  # <experiment>/<run>/artifacts, <experiment>/models/<model>/artifacts
        for place in (self._root, self._root / ".trash"):
            moved = place.joinpath(*folder.parts[-length:])
            if moved.is_dir():
                return root._replace(uri=str(moved))
        return root

    async def close(self) -> None:
        await self._files.close()


async def _pages(make: Callable[[], Iterator[_T]], size: int = _PAGE) -> AsyncIterator[list[_T]]:
    """What an iterator gives, some at a time, each time in another thread than the loop's."""
    iterator = make()

    def some() -> list[_T]:
        page: list[_T] = []
        for one in iterator:
            page.append(one)
            if len(page) >= size:
                break
        return page

    while page := await asyncio.to_thread(some):
        yield page


def _experiment(folder: Path, is_deleted: bool) -> OldExperiment:
    meta = file_store.meta(folder)
    created = int(meta.get("creation_time") or 0)
    stage = "deleted" if is_deleted else str(meta.get("lifecycle_stage") or "active")
    return OldExperiment(
        folder.name, str(meta.get("name") or folder.name), stage, created,
        int(meta.get("last_update_time") or created), file_store.texts(folder / "tags"),
    )  # fmt: skip


def _run(folder: Path, datasets: dict[str, Dataset]) -> OldRun:
    meta = file_store.meta(folder)
    latest: dict[str, tuple[float, int, int]] = {}
    count = 0
    for key, file in file_store.files(folder / "metrics"):
        seen = {(point.step, point.timestamp, repr(point.value)) for point in file_store.points(key, file)}
        if seen:
            step, timestamp, value = max(seen, key=_rank)
            latest[key] = (float(value), timestamp, step)
            count += len(seen)
    status = meta.get("status")
    inputs, outputs = _inputs(folder / "inputs"), _inputs(folder / "outputs")
    return OldRun(
        run_id=folder.name,
        experiment_id=folder.parent.name,
        name=str(meta.get("run_name") or meta.get("name") or ""),
        user_id=str(meta.get("user_id") or ""),
        status=_BY_NUMBER.get(status, str(status)) if isinstance(status, int) else str(status or "RUNNING"),
        start_time_ms=int(meta.get("start_time") or 0),
        end_time_ms=int(meta["end_time"]) if meta.get("end_time") else None,
        lifecycle_stage=str(meta.get("lifecycle_stage") or "active"),
        artifact_uri=str(meta.get("artifact_uri") or ""),
        deleted_time_ms=int(meta["deleted_time"]) if meta.get("deleted_time") else None,
        params=file_store.texts(folder / "params"),
        tags=file_store.texts(folder / "tags"),
        latest=latest,
        datasets=tuple(
            DatasetInput(_dataset(folder.parent, str(given["source_id"]), datasets), _tags(given))
            for given in inputs
            if given.get("source_type") == "DATASET"
        ),
        model_inputs=tuple(sorted(str(given["source_id"]) for given in inputs if given.get("source_type") == "MODEL")),
        model_outputs=tuple(sorted((str(given["destination_id"]), int(given.get("step") or 0)) for given in outputs)),
        points=count,
    )


def _rank(point: tuple[int, int, str]) -> tuple[int, int, float]:
    step, timestamp, value = point
    return step, timestamp, 0.0 if value == "nan" else float(value)


def _inputs(place: Path) -> list[dict[str, Any]]:
    return [file_store.meta(folder) for folder in file_store.folders(place)]


def _tags(given: Mapping[str, Any]) -> tuple[Tag, ...]:
    return tuple(Tag(str(key), str(value)) for key, value in sorted((given.get("tags") or {}).items()))


def _dataset(experiment: Path, dataset_id: str, known: dict[str, Dataset]) -> Dataset:
    if dataset_id not in known:
        meta = file_store.meta(experiment / "datasets" / dataset_id)
        known[dataset_id] = Dataset(
            str(meta.get("name")), str(meta.get("digest")), str(meta.get("source_type")), str(meta.get("source")),
            meta.get("schema"), meta.get("profile"),
        )  # fmt: skip
    return known[dataset_id]


def _model(folder: Path) -> OldModel:
    meta = file_store.meta(folder)
    metrics = []
    for key, file in file_store.files(folder / "metrics"):
        for line in file.read_text(encoding="utf-8").splitlines():
            parts = line.split()
            name, digest = (parts[4], parts[5]) if len(parts) > 5 else (None, None)
            metrics.append(
                OldModelMetric(key, float(parts[1]), int(parts[0]), int(parts[2]), parts[3], name, digest)
            )  # fmt: skip
    return OldModel(
        model_id=folder.name,
        experiment_id=folder.parent.parent.name,
        name=str(meta.get("name") or ""),
        artifact_uri=str(meta.get("artifact_location") or ""),
        creation_time_ms=int(meta.get("creation_timestamp") or 0),
        last_updated_time_ms=int(meta.get("last_updated_timestamp") or 0),
        status=_model_status(meta.get("status")),
        lifecycle_stage=str(meta.get("lifecycle_stage") or "active"),
        model_type=str(meta.get("model_type") or ""),
        source_run_id=str(meta.get("source_run_id") or ""),
        status_message=str(meta.get("status_message") or ""),
        params=file_store.texts(folder / "params"),
        tags=file_store.texts(folder / "tags"),
        metrics=tuple(dict.fromkeys(metrics)),
    )


def _model_status(told: Any) -> int:
    names = {"PENDING": 1, "READY": 2, "FAILED": 3}
    return told if isinstance(told, int) else names.get(str(told).upper(), 0)


def _registered_model(folder: Path) -> OldRegisteredModel:
    meta = file_store.meta(folder)
    versions = [
        _version(file_store.meta(place), file_store.texts(place / "tags"))
        for place in file_store.folders(folder)
        if place.name.startswith("version-")
    ]
    created = int(meta.get("creation_timestamp") or 0)
    return OldRegisteredModel(
        str(meta.get("name") or folder.name), created, int(meta.get("last_updated_timestamp") or created),
        str(meta.get("description") or ""), file_store.texts(folder / "tags"),
        {alias: int(version) for alias, version in file_store.texts(folder / "aliases").items()},
        tuple(sorted((one for one in versions if one.stage != "Deleted_Internal"), key=lambda one: one.version)),
        last_version=max((one.version for one in versions), default=0),
    )  # fmt: skip


def _version(meta: Mapping[str, Any], tags: dict[str, str]) -> OldVersion:
    created = int(meta.get("creation_timestamp") or 0)
    return OldVersion(
        int(meta["version"]), created, int(meta.get("last_updated_timestamp") or created),
        meta.get("description"), str(meta.get("current_stage") or "None"), str(meta.get("source") or ""),
        str(meta.get("run_id") or ""), str(meta.get("run_link") or ""), str(meta.get("storage_location") or ""), tags,
    )  # fmt: skip


def _trace(folder: Path) -> OldTrace:
    told = file_store.meta(folder, "trace_info.yaml")
    if "request_id" in told and "trace_id" not in told:
        told = _as_v3(told)
    told["tags"] = file_store.texts(folder / "tags")
    told["trace_metadata"] = file_store.texts(folder / "request_metadata")
    told["assessments"] = [
        file_store.meta(file.parent, file.name) for _, file in file_store.files(folder / "assessments")
    ]
    told["trace_id"] = folder.name
    told["trace_location"] = {"mlflow_experiment": {"experiment_id": folder.parent.parent.name}}
    spans = None
    file = folder / "artifacts" / "traces.json"
    if file.is_file():
        spans = old_spans.parse_file(folder.name, file.read_bytes())
    return rest_wire.trace(told, spans)


def _as_v3(told: Mapping[str, Any]) -> dict[str, Any]:
    """A trace as MLflow 2 wrote it down."""
    status = str(told.get("status") or "")
    milliseconds = int(told.get("timestamp_ms") or 0)
    execution = told.get("execution_time_ms")
    return {
        "request_time": rest_wire.time_of(milliseconds),
        "execution_duration": None if execution is None else f"{int(execution) / 1000}s",
        "state": _STATES_OF_V2.get(status, status or "STATE_UNSPECIFIED"),
    }

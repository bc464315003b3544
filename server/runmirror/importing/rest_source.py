"""A source that speaks MLflow's REST: an `mlflow server`, whatever lies behind it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from urllib.parse import quote, urlsplit

from runmirror.importing import old_spans, rest_wire
from runmirror.importing.entities import (
    OldExperiment,
    OldFile,
    OldModel,
    OldRegisteredModel,
    OldRun,
    OldTrace,
)
from runmirror.importing.rest_api import Json, NoAnswer, RestApi
from runmirror.importing.source import PAGE_RUNS, PointsOf, Root, SourceError
from runmirror.runs.hot_columns import Point
from runmirror.traces.spans import SpanIn

_V2, _V3, _AJAX = "api/2.0/mlflow", "api/3.0/mlflow", "ajax-api/2.0/mlflow"
_BULK_RUNS, _BULK_POINTS = 100, 25_000  # of one request for the points of many runs
_HISTORY_PAGE = 25_000
_AT_ONCE = 8
_ABSENT = frozenset({404, 405, 501})  # an older server has no such endpoint
_PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"


class RestSource:
    """See `runmirror.importing.source.Source`."""

    workspace_id: str | None = None

    def __init__(self, api: RestApi, identity: str) -> None:
        self.identity = identity
        self._api = api
        self._has_bulk = True
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def experiments(self) -> Sequence[OldExperiment]:
        asked = {"max_results": 1000, "view_type": "ALL"}
        return [
            rest_wire.experiment(told)
            async for page in self._api.pages(f"{_V2}/experiments/search", asked)
            for told in page.get("experiments") or []
        ]

    async def runs(
        self, experiment_ids: Collection[str] | None, since_ms: int | None
    ) -> AsyncIterator[Sequence[OldRun]]:
        """The oldest first: what is added meanwhile comes at the end and shifts no page."""
        for experiment_id in await self._ids(experiment_ids):
            asked: Json = {
                "experiment_ids": [experiment_id], "run_view_type": "ALL", "max_results": PAGE_RUNS,
                "order_by": ["attributes.start_time ASC"],
            }  # fmt: skip
            if since_ms is not None:
                asked["filter"] = f"attributes.start_time >= {since_ms}"
            async for page in self._api.pages(f"{_V2}/runs/search", asked):
                if runs := [rest_wire.run(told) for told in page.get("runs") or []]:
                    yield runs

    async def points(self, runs: Sequence[OldRun]) -> AsyncIterator[Sequence[PointsOf]]:
        # A request for each key of 100 runs, instead of one for each key of each run.
        having: dict[str, list[str]] = {}
        for run in runs:
            for key in run.latest:
                having.setdefault(key, []).append(run.run_id)
        asked = [
            (key, run_ids[start : start + _BULK_RUNS])
            for key, run_ids in having.items()
            for start in range(0, len(run_ids), _BULK_RUNS)
        ]
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            found = await asyncio.gather(*(self._together(key, run_ids) for key, run_ids in some))
            for (key, run_ids), points in zip(some, found, strict=True):
                if points is not None:
                    yield points
                    continue
                for run_id in run_ids:
                    async for piece in self._history(run_id, key):
                        yield [PointsOf(run_id, piece)]

    async def _together(self, key: str, run_ids: Sequence[str]) -> Sequence[PointsOf] | None:
        """The points of a metric of many runs; None when the server cannot give them in one answer."""
        if not self._has_bulk or len(run_ids) == 1:
            return None
        asked: dict[str, str | int | list[str]] = {
            "run_id": list(run_ids),
            "metric_key": key,
            "max_results": _BULK_POINTS,
        }
        try:
            told = (await self._api.get(f"{_AJAX}/metrics/get-history-bulk", asked)).get("metrics") or []
        except NoAnswer as error:
            if error.status in _ABSENT:
                self._has_bulk = False
            elif error.status >= 500:
                raise
            return None
        if len(told) >= _BULK_POINTS:
            return None
        by_run: dict[str, list[Json]] = {}
        for one in told:
            by_run.setdefault(str(one.get("run_id")), []).append(one)
        return [PointsOf(run_id, rest_wire.points(points)) for run_id, points in by_run.items()]

    async def _history(self, run_id: str, key: str) -> AsyncIterator[Sequence[Point]]:
        asked: Json = {"run_id": run_id, "run_uuid": run_id, "metric_key": key, "max_results": _HISTORY_PAGE}
        async for page in self._api.pages(f"{_V2}/metrics/get-history", asked, method="GET"):
            if points := rest_wire.points(page.get("metrics") or []):
                yield points

    async def models(self, experiment_ids: Collection[str] | None) -> AsyncIterator[Sequence[OldModel]]:
        for experiment_id in await self._ids(experiment_ids):
            asked = {"experiment_ids": [experiment_id], "max_results": 50}
            try:
                async for page in self._api.pages(f"{_V2}/logged-models/search", asked):
                    if models := [rest_wire.model(told) for told in page.get("models") or []]:
                        yield models
            except NoAnswer as error:
                if error.status in _ABSENT:
                    return
                raise

    async def registered_models(self) -> AsyncIterator[OldRegisteredModel]:
        seen: set[str] = set()
        for prompts in (False, True):  # prompts are not among the models, unless they are asked for
            more = {"filter": _PROMPTS} if prompts else {}
            try:
                async for page in self._api.pages(
                    f"{_V2}/registered-models/search", {"max_results": 100, **more}, method="GET"
                ):
                    for told in page.get("registered_models") or []:
                        if str(told.get("name")) not in seen:
                            seen.add(str(told.get("name")))
                            yield rest_wire.registered_model(
                                told, await self._versions(str(told.get("name")), prompts=prompts)
                            )
            except NoAnswer as error:
                if not prompts or error.status >= 500:
                    raise

    async def _versions(self, name: str, *, prompts: bool) -> Sequence[Json]:
        mark = '"' if "'" in name else "'"
        asked = {"filter": f"name={mark}{name}{mark}" + (f" AND {_PROMPTS}" if prompts else ""), "max_results": 1000}
        found: list[Json] = []
        async for page in self._api.pages(f"{_V2}/model-versions/search", asked, method="GET"):
            found += [told for told in page.get("model_versions") or [] if told.get("name") == name]
        return found

    async def traces(
        self, experiment_ids: Collection[str] | None, since_ms: int | None
    ) -> AsyncIterator[Sequence[OldTrace]]:
        for experiment_id in await self._ids(experiment_ids):
            place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
            asked: Json = {"locations": [place], "max_results": 100, "order_by": ["timestamp_ms ASC"]}
            if since_ms is not None:
                asked["filter"] = f"attributes.timestamp_ms >= {since_ms}"
            try:
                async for page in self._api.pages(f"{_V3}/traces/search", asked):
                    told = page.get("traces") or []
                    spans = await asyncio.gather(*(self._spans(str(one.get("trace_id"))) for one in told))
                    if told:
                        yield [rest_wire.trace(one, of) for one, of in zip(told, spans, strict=True)]
            except NoAnswer as error:
                if error.status in _ABSENT:
                    return
                raise

    async def _spans(self, trace_id: str) -> Sequence[SpanIn] | None:
        """None when the server does not have them either."""
        async with self._turns:
            try:
                chunks = self._api.read(f"{_AJAX}/get-trace-artifact", {"request_id": trace_id})
                return old_spans.parse_file(trace_id, b"".join([chunk async for chunk in chunks]))
            except NoAnswer:
                return None

    async def experiment_of(self, run_id: str) -> str:
        """Raises `SourceError`."""
        told = await self._api.get(f"{_V2}/runs/get", {"run_id": run_id, "run_uuid": run_id})
        return rest_wire.run(told.get("run") or {}).experiment_id

    async def list_files(self, root: Root) -> Sequence[OldFile]:
        found: list[OldFile] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            for told in await self._listing(root, folder):
                path = str(told.get("path") or "")
                if told.get("is_dir"):
                    if path.startswith(f"{folder}/" if folder else "") and path != folder:
                        folders.append(path)
                else:
                    found.append(OldFile(path, None if told.get("file_size") is None else int(told["file_size"])))
        return found

    async def _listing(self, root: Root, folder: str) -> Sequence[Json]:
        if root.model_id:
            path = f"{_V2}/logged-models/{quote(root.model_id)}/artifacts/directories"
            asked: Json = {"artifact_directory_path": folder} if folder else {}
        else:
            path = f"{_V2}/artifacts/list"
            asked = {"run_id": root.run_id, "run_uuid": root.run_id} | ({"path": folder} if folder else {})
        return [told async for page in self._api.pages(path, asked, method="GET") for told in page.get("files") or []]

    def read_file(self, root: Root, path: str) -> AsyncIterator[bytes]:
        if root.model_id:
            place = f"{_AJAX}/logged-models/{quote(root.model_id)}/artifacts/files"
            return self._api.read(place, {"artifact_file_path": path})
        return self._api.read("get-artifact", {"run_uuid": root.run_id, "run_id": root.run_id, "path": path})

    async def close(self) -> None:
        await self._api.close()

    async def _ids(self, experiment_ids: Collection[str] | None) -> Sequence[str]:
        if experiment_ids is not None:
            return list(experiment_ids)
        return [experiment.experiment_id for experiment in await self.experiments()]


class ServerFiles:
    """The files of a database, as the server over it gives them: see `runmirror.importing.old_files.Files`."""

    def __init__(self, source: RestSource) -> None:
        self._source = source

    async def list(self, root: Root) -> Sequence[OldFile]:
        return await self._source.list_files(root)

    def read(self, root: Root, path: str) -> AsyncIterator[bytes]:
        if not (root.run_id or root.model_id):
            raise SourceError("spans in files are read from a folder, or from the server itself")
        return self._source.read_file(root, path)

    async def close(self) -> None:
        await self._source.close()


def identity_of(address: str) -> str:
    """Without user and password, and without the slash at its end."""
    url = urlsplit(address)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2].lower()}{url.path.rstrip('/')}"

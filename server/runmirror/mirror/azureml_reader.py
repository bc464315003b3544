"""What stands in an Azure ML workspace, read back: see `runmirror.mirror.verify.reader.Reader`."""

import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runmirror.entities import LifecycleStage, Metric, RunStatus
from runmirror.mirror.azureml_http import AzureClient, Json, Refused
from runmirror.mirror.azureml_transport import Answer
from runmirror.mirror.azureml_workspace import Workspace
from runmirror.mirror.target import RemoteRun, RunState, TargetUnauthorized, TargetUnavailable
from runmirror.mirror.verify.reader import RemoteContent, RemoteCopy

HISTORY_PAGE = 25_000  # what MLflow's own client asks Azure ML for
ABSENT = "RESOURCE_DOES_NOT_EXIST"
_PIECE = 8 * 1024**2


class AzureMLReader:
    """Reads by the routes that azureml-mlflow itself reads by."""

    def __init__(self, client: AzureClient, workspace: Workspace) -> None:
        self._client = client
        self._mlflow_url = f"{workspace.api_url}/mlflow/v2.0{workspace.workspace_id}/api/2.0/mlflow"
        self._history_url = f"{workspace.api_url}/history/v1.0{workspace.workspace_id}"

    async def run(self, run: RemoteRun) -> RemoteCopy | None:
        answer = await self._get_or_none("/runs/get", {"run_id": run.run_id, "run_uuid": run.run_id})
        if answer is None:
            return None
        with _readable():
            found = answer["run"]
            info, data = found["info"], found.get("data") or {}
            end = info.get("end_time")
            return RemoteCopy(
                experiment_id=str(info["experiment_id"]),
                state=RunState(
                    str(info.get("run_name") or ""),
                    RunStatus(info["status"]),
                    None if end is None else int(end),
                    LifecycleStage(info.get("lifecycle_stage") or LifecycleStage.ACTIVE),
                ),
                params=_pairs(data.get("params")),
                tags=_pairs(data.get("tags")),
                metric_keys=frozenset(str(metric["key"]) for metric in data.get("metrics") or []),
                inputs=tuple(
                    (str(entry["dataset"].get("name")), str(entry["dataset"].get("digest")))
                    for entry in (found.get("inputs") or {}).get("dataset_inputs") or []
                ),
            )

    async def copies(self, experiment_id: str, run_id: str) -> Sequence[RemoteRun]:
        wanted: Json = {
            "experiment_ids": [experiment_id],
            "filter": f"tags.\"runmirror.run_id\" = '{run_id}'",
            "run_view_type": "ALL",
            "max_results": 100,
        }
        found: list[RemoteRun] = []
        while True:
            answer = await self._client.call(_anytime, "POST", f"{self._mlflow_url}/runs/search", body=wanted)
            with _readable():
                found += [RemoteRun(experiment_id, str(run["info"]["run_id"])) for run in answer.get("runs") or []]
            if not answer.get("next_page_token"):
                return found
            wanted["page_token"] = answer["next_page_token"]

    async def experiment_name(self, experiment_id: str) -> str | None:
        answer = await self._get_or_none("/experiments/get", {"experiment_id": experiment_id})
        with _readable():
            return None if answer is None else str(answer["experiment"]["name"])

    async def points(self, run: RemoteRun, key: str) -> AsyncIterator[Metric]:
        wanted: dict[str, str | int] = {
            "run_id": run.run_id, "run_uuid": run.run_id, "metric_key": key, "max_results": HISTORY_PAGE,
        }  # fmt: skip
        while True:
            answer = await self._get_or_none("/metrics/get-history", wanted)
            if answer is None:
                return
            for told in answer.get("metrics") or []:
                yield metric_in(told)
            if not answer.get("next_page_token"):
                return
            wanted["page_token"] = str(answer["next_page_token"])

    async def paths(self, run: RemoteRun) -> AsyncIterator[str]:
        params: dict[str, str | int] = {}
        while True:
            try:
                answer = await self._client.call(_anytime, "GET", self._artifacts_url(run), params=params)
            except Refused as error:
                if error.is_absent:
                    return
                raise
            with _readable():
                page = [str(artifact["path"]) for artifact in answer.get("value") or []]
                # Its own clients follow `nextLink`; we go to no host that an answer names, so only its token counts.
                query = parse_qs(urlsplit(str(answer.get("nextLink") or "")).query)
            for path in page:
                yield path
            token = answer.get("continuationToken") or query.get("continuationToken", [None])[0]
            if not token:
                return
            params = {"continuationToken": str(token)}

    async def content(self, run: RemoteRun, path: str) -> RemoteContent | None:
        try:
            answer = await self._blob("HEAD", await self._url(run, path))
        except Refused as error:
            if error.is_absent:
                return None
            raise
        md5 = answer.headers.get("content-md5")
        with _readable():
            return RemoteContent(
                int(answer.headers["content-length"]), base64.b64decode(md5).hex() if md5 else None
            )  # fmt: skip

    async def read(self, run: RemoteRun, path: str) -> AsyncIterator[bytes]:
        """Piece by piece, each by a URL of its own: a signed URL may live shorter than a long download."""
        url = await self._url(run, path)
        head = await self._blob("HEAD", url)
        same = {"If-Match": head.headers["etag"]} if "etag" in head.headers else {}
        with _readable():
            size = int(head.headers["content-length"])
        for start in range(0, size, _PIECE):
            end = min(start + _PIECE, size) - 1
            url = url if start == 0 else await self._url(run, path)
            answer = await self._blob("GET", url, {**same, "x-ms-range": f"bytes={start}-{end}"})
            yield answer.content

    def _artifacts_url(self, run: RemoteRun) -> str:
        return f"{self._history_url}/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts"

    async def _url(self, run: RemoteRun, path: str) -> str:
        url = f"{self._artifacts_url(run)}/contentinfo"
        return str((await self._client.call(_anytime, "GET", url, params={"path": path})).get("contentUri"))

    async def _blob(self, method: str, url: str, headers: dict[str, str] | None = None) -> Answer:
        try:
            return await self._client.blob(_anytime, method, url, headers=headers)
        except Refused as error:
            if error.status in {401, 403}:
                raise TargetUnauthorized(str(error)) from None
            raise

    async def _get_or_none(self, path: str, params: dict[str, str | int]) -> Json | None:
        try:
            return await self._client.call(_anytime, "GET", self._mlflow_url + path, params=params)
        except Refused as error:
            if error.code == ABSENT:
                return None
            raise


@contextmanager
def _readable() -> Iterator[None]:
    """An answer of another shape is no answer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError):
        raise TargetUnavailable("an answer of Azure ML cannot be read") from None


def _anytime() -> None:
    """A read needs no lease."""


def _pairs(told: Any) -> dict[str, str]:
    return {str(pair["key"]): str(pair.get("value", "")) for pair in told or []}


def metric_in(told: Json) -> Metric:
    try:
        return Metric(str(told["key"]), float(told["value"]), int(told["timestamp"]), int(told.get("step") or 0))
    except (KeyError, TypeError, ValueError):
        raise TargetUnavailable("Azure ML's answer holds a metric that cannot be read") from None

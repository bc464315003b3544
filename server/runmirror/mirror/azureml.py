"""An Azure ML workspace as a `Target`: MLflow's REST for runs, run history and Blob storage for files."""

import copy
import math
import re
from collections.abc import Sequence
from typing import Any, Self

from runmirror.entities import Batch, DatasetInput, LifecycleStage, Metric, Param, RunStatus, Tag
from runmirror.mirror.azureml_artifacts import Copier
from runmirror.mirror.azureml_endpoints import AzureEndpoints
from runmirror.mirror.azureml_http import AzureClient, Json, Refused
from runmirror.mirror.azureml_reader import ABSENT, HISTORY_PAGE, AzureMLReader, metric_in
from runmirror.mirror.azureml_registry import AzureRegistry
from runmirror.mirror.azureml_services import AzureServices
from runmirror.mirror.azureml_upload import CopyByUrl, Sizes
from runmirror.mirror.azureml_workspace import Workspace
from runmirror.mirror.target import (
    BornThere,
    Copied,
    Guard,
    NewRun,
    OverLimit,
    RemoteFile,
    RemoteRun,
    RemoteRunVanished,
    RunState,
    TargetUnavailable,
    tags_of,
)
from runmirror.settings import Settings

_ROOT_TAG = "mlflow.rootRunId"  # the service's own
_TOO_LARGE = re.compile(r"FieldName=(?P<field>.+?), Limit=(?P<limit>\d+), Size=\d+")
# The service's names of what has a limit; behind Value and Rows the key may follow.
_FIELDS = {
    "Parameters": "params", "Parameters/Key": "param_key", "Parameters/Value": "param_value",
    "Parameters/Count": "params_per_request", "Tags": "tags", "Tags/Key": "tag_key", "Tags/Value": "tag_value",
    "Tags/Count": "tags_per_request", "Metrics/Names": "metrics", "MetricV2Dto.Name": "metric_key",
    "MetricV2Dto.Value/Count": "metrics_per_request", "Metrics": "metrics_per_request", "Metrics/Rows": "points",
    "InputDatasets": "inputs", "DisplayName": "run_name", "ExperimentName": "experiment_name",
}  # fmt: skip


class AzureMLTarget:
    """See `runmirror.mirror.target.Target`."""

    def __init__(
        self, client: AzureClient, workspace: Workspace, settings: Settings, *, sizes: Sizes | None = None
    ) -> None:
        self._client = client
        self._workspace = workspace
        self._settings = settings
        self._sizes = sizes or Sizes()
        self._by_url = CopyByUrl(wanted=settings.mirror_copy_by_url)
        self._guard: Guard = lambda: None
        self._mlflow_url = f"{workspace.api_url}/mlflow/v2.0{workspace.workspace_id}/api/2.0/mlflow"

    def under(self, guard: Guard) -> Self:
        bound = copy.copy(self)
        bound._guard = guard
        return bound

    async def close(self) -> None:
        await self._client.close()

    def reader(self) -> AzureMLReader:
        return AzureMLReader(self._client, self._workspace)

    def portal_url(self, run: RemoteRun) -> str | None:
        return self._workspace.portal_url(run.run_id)

    async def probe(self) -> None:
        try:
            await self._post("/experiments/search", {"max_results": 1, "view_type": "ACTIVE_ONLY"})
        except Refused as error:
            raise TargetUnavailable(f"the workspace does not answer as one: {error}") from None

    async def ensure_experiment(self, name: str) -> str:
        if (found := await self._experiment_named(name)) is not None:
            return found
        try:
            return _text(await self._post("/experiments/create", {"name": name}), "experiment_id")
        except Refused as error:
            # Another worker was faster.
            if "ALREADY_EXISTS" in error.code and (found := await self._experiment_named(name)) is not None:
                return found
            raise

    async def _experiment_named(self, name: str) -> str | None:
        try:
            answer = await self._get("/experiments/get-by-name", {"experiment_name": name})
        except Refused as error:
            if error.code == ABSENT:
                return None
            raise
        return _text(answer, "experiment", "experiment_id")

    async def find_run(self, experiment_id: str, run_id: str) -> RemoteRun | None:
        wanted: Json = {
            "experiment_ids": [experiment_id],
            "filter": f"tags.\"runmirror.run_id\" = '{run_id}'",
            "run_view_type": "ALL",
            "max_results": 10,
        }
        # A page may be empty and still have a next one.
        while True:
            answer = await self._post("/runs/search", wanted)
            if answer.get("runs"):
                return RemoteRun(experiment_id, min(_text(run, "info", "run_id") for run in answer["runs"]))
            if not answer.get("next_page_token"):
                return None
            wanted["page_token"] = answer["next_page_token"]

    async def create_run(self, experiment_id: str, run: NewRun) -> RemoteRun:
        body: Json = {
            "experiment_id": experiment_id,
            "user_id": run.user_id,
            "run_name": run.name,
            "start_time": run.start_time_ms,
            "tags": [{"key": tag.key, "value": tag.value} for tag in tags_of(run)],
        }
        answer = await self._post("/runs/create", body, has_effect=True)
        return RemoteRun(experiment_id, _text(answer, "run", "info", "run_id"))

    async def stage_of(self, run: RemoteRun) -> LifecycleStage:
        return _stage(_text(await self._run(run), "info", "lifecycle_stage"))

    async def _run(self, run: RemoteRun) -> Json:
        answer = await self._of_run(run, self._get("/runs/get", {"run_id": run.run_id, "run_uuid": run.run_id}))
        _text(answer, "run", "info", "run_id")
        found: Json = answer["run"]
        return found

    async def look_up(self, run_id: str) -> BornThere | None:
        """The run of that id, whoever made it."""
        try:
            found = await self._run(RemoteRun("", run_id))
        except RemoteRunVanished:
            return None
        except Refused as error:
            if error.status in {400, 404}:  # no id that it could have given
                return None
            raise
        return _born_there(found)

    async def experiment_name(self, experiment_id: str) -> str | None:
        try:
            answer = await self._get("/experiments/get", {"experiment_id": experiment_id})
        except Refused as error:
            if error.is_absent or error.code == ABSENT:
                return None
            raise
        return _text(answer, "experiment", "name")

    async def set_stage(self, run: RemoteRun, stage: LifecycleStage) -> None:
        verb = "restore" if stage is LifecycleStage.ACTIVE else "delete"
        await self._of_run(run, self._post(f"/runs/{verb}", {"run_id": run.run_id}))

    async def set_hidden(self, run: RemoteRun, is_hidden: bool) -> None:
        history = f"{self._workspace.api_url}/history/v1.0{self._workspace.workspace_id}"
        url = f"{history}/experimentids/{run.experiment_id}/runs/{run.run_id}"
        body: Json = {"runId": run.run_id, "hidden": is_hidden}
        try:
            await self._client.call(self._guard, "PATCH", url, body=body)
        except Refused as error:
            if error.is_absent:
                raise RemoteRunVanished(f"run {run.run_id} is not in the workspace any more: {error}") from None
            raise

    async def log_batch(self, run: RemoteRun, batch: Batch) -> None:
        body: Json = {"run_id": run.run_id}
        if batch.metrics:
            body["metrics"] = [_metric_out(metric) for metric in batch.metrics]
        if batch.params:
            body["params"] = [{"key": param.key, "value": param.value} for param in batch.params]
        if batch.tags:
            body["tags"] = [{"key": tag.key, "value": tag.value} for tag in batch.tags]
        await self._of_run(run, self._post("/runs/log-batch", body, has_effect=bool(batch.metrics)))

    async def log_inputs(self, run: RemoteRun, inputs: Sequence[DatasetInput]) -> None:
        body: Json = {"run_id": run.run_id, "datasets": [_input_out(given) for given in inputs]}
        await self._of_run(run, self._post("/runs/log-inputs", body, has_effect=True))

    async def inputs_of(self, run: RemoteRun) -> Sequence[tuple[str, str]]:
        held = (await self._run(run)).get("inputs") or {}
        datasets = [entry.get("dataset") or {} for entry in held.get("dataset_inputs") or []]
        return [(str(dataset.get("name")), str(dataset.get("digest"))) for dataset in datasets]

    async def tag_keys(self, run: RemoteRun) -> Sequence[str]:
        held = (await self._run(run)).get("data") or {}
        return [str(tag["key"]) for tag in held.get("tags") or [] if tag["key"] != _ROOT_TAG]

    async def delete_tag(self, run: RemoteRun, key: str) -> None:
        try:
            await self._post("/runs/delete-tag", {"run_id": run.run_id, "key": key})
        except Refused as error:
            # The tag or the run: a run that is gone is noticed by the next write that needs it.
            if error.code != ABSENT:
                raise

    async def history(self, run: RemoteRun, key: str, *, most: int | None = None) -> Sequence[Metric]:
        """With `most`, it is enough to see that there are more."""
        wanted: dict[str, str | int] = {
            "run_id": run.run_id, "run_uuid": run.run_id, "metric_key": key, "max_results": HISTORY_PAGE,
        }  # fmt: skip
        points: list[Metric] = []
        while True:
            answer = await self._of_run(run, self._get("/metrics/get-history", wanted))
            points += [metric_in(metric) for metric in answer.get("metrics") or []]
            if not answer.get("next_page_token") or (most is not None and len(points) > most):
                return points
            wanted["page_token"] = str(answer["next_page_token"])

    async def update_run(self, run: RemoteRun, state: RunState) -> LifecycleStage:
        body: Json = {"run_id": run.run_id, "run_uuid": run.run_id, "status": state.status, "run_name": state.name}
        if state.end_time_ms is not None:
            body["end_time"] = state.end_time_ms
        answer = await self._of_run(run, self._post("/runs/update", body))
        return _stage(_text(answer, "run_info", "lifecycle_stage"))

    async def rename(self, run: RemoteRun, name: str) -> None:
        body: Json = {"run_id": run.run_id, "run_uuid": run.run_id, "run_name": name}
        await self._of_run(run, self._post("/runs/update", body))

    async def copy_files(self, run: RemoteRun, files: Sequence[RemoteFile]) -> Copied:
        return await self._copier(run).copy(files) if files else Copied(0, ())

    async def artifact_paths(self, run: RemoteRun) -> Sequence[str]:
        return await self._copier(run).paths()

    def _copier(self, run: RemoteRun) -> Copier:
        where = self._workspace
        return Copier(
            self._client,
            self._guard,
            history_url=f"{where.api_url}/history/v1.0{where.workspace_id}",
            artifact_url=f"{where.api_url}/artifact/v2.0{where.workspace_id}",
            run=run,
            at_once=self._settings.mirror_artifact_concurrency,
            per_request=self._settings.mirror_artifacts_per_request,
            sizes=self._sizes,
            by_url=self._by_url,
        )

    def registry(self) -> AzureRegistry:
        return AzureRegistry(self._client, self._guard, self._mlflow_url)

    def services(self) -> AzureServices:
        """The web services of model management: ACI and AKS."""
        return AzureServices(self._client, self._guard, self._workspace)

    def endpoints(self) -> AzureEndpoints:
        """The managed online endpoints."""
        return AzureEndpoints(self._client, self._guard, self._settings.azureml_arm_endpoint, self._workspace)

    async def _get(self, path: str, params: dict[str, str | int]) -> Json:
        return await self._client.call(self._guard, "GET", self._mlflow_url + path, params=params)

    async def _post(self, path: str, body: Json, *, has_effect: bool = False) -> Json:
        url = self._mlflow_url + path
        try:
            return await self._client.call(self._guard, "POST", url, body=body, has_effect=has_effect)
        except Refused as error:
            raise _over_limit(error) or error from None

    async def _of_run(self, run: RemoteRun, answer: Any) -> Json:
        """The answer to a call about a run that must be there."""
        try:
            found: Json = await answer
        except Refused as error:
            if error.code == ABSENT:
                raise RemoteRunVanished(f"run {run.run_id} is not in the workspace any more: {error}") from None
            raise
        return found


def _over_limit(error: Refused) -> OverLimit | None:
    """What a refusal tells of a limit, if it tells of one that we know."""
    told = _TOO_LARGE.search(str(error))
    if told is None:
        return None
    field = told["field"]
    name = _FIELDS.get(field) or _FIELDS.get("/".join(field.split("/")[:2]))
    return None if name is None else OverLimit(str(error), name=name, limit=int(told["limit"]))


def _text(answer: Json, *keys: str) -> str:
    """What stands there under the keys. An answer without it is no answer: it may have taken effect all the same."""
    found: Any = answer
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str) or not found:
        raise TargetUnavailable(f"Azure ML's answer lacks {'.'.join(keys)}", uncertain=True)
    return found


def _stage(told: str) -> LifecycleStage:
    return LifecycleStage.DELETED if told == "deleted" else LifecycleStage.ACTIVE


def _born_there(told: Json) -> BornThere:
    info, data = told["info"], told.get("data") or {}
    try:
        status, end_ms = RunStatus(str(info.get("status"))), info.get("end_time")
        stage = _stage(str(info.get("lifecycle_stage")))
        state = RunState(str(info.get("run_name") or ""), status, int(end_ms) if end_ms else None, stage)
        batch = Batch(
            metrics=tuple(metric_in(metric) for metric in data.get("metrics") or []),
            params=tuple(Param(str(param["key"]), str(param.get("value", ""))) for param in data.get("params") or []),
            tags=tuple(Tag(str(tag["key"]), str(tag.get("value", ""))) for tag in data.get("tags") or []),
        )
        return BornThere(
            _text(told, "info", "run_id"), _text(told, "info", "experiment_id"), str(info.get("user_id") or ""),
            int(info.get("start_time") or 0), state, batch,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise TargetUnavailable("Azure ML's answer holds a run that cannot be read") from None


def _input_out(given: DatasetInput) -> Json:
    of = given.dataset
    dataset = {"name": of.name, "digest": of.digest, "source_type": of.source_type, "source": of.source}
    dataset |= {} if of.schema is None else {"schema": of.schema}
    dataset |= {} if of.profile is None else {"profile": of.profile}
    return {"dataset": dataset, "tags": [{"key": tag.key, "value": tag.value} for tag in given.tags]}


def _metric_out(metric: Metric) -> Json:
    """JSON has no NaN and no infinities: they travel as text."""
    value: float | str = metric.value
    if math.isnan(metric.value):
        value = "NaN"
    elif math.isinf(metric.value):
        value = "Infinity" if metric.value > 0 else "-Infinity"
    return {"key": metric.key, "value": value, "timestamp": metric.timestamp_ms, "step": metric.step}

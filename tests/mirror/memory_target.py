"""A target in memory, which keeps every point it is sent and can be told to fail."""

import copy
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from runmirror.entities import Batch, DatasetInput, LifecycleStage, Metric, Param, RunStatus, Tag
from runmirror.mirror.azureml_registry import AzureRegistry
from runmirror.mirror.link import Link
from runmirror.mirror.target import (
    Copied,
    Guard,
    NewRun,
    OverLimit,
    RemoteFile,
    RemoteRun,
    RemoteRunVanished,
    RunState,
    SourceChanged,
    TargetRejected,
    tags_of,
)
from runmirror.settings import Settings

MOST_PARAMS = 200


@dataclass
class Remote:
    """A run as it stands in the target."""

    run_id: str
    experiment_id: str
    name: str
    tags: dict[str, str]
    status: RunStatus = RunStatus.RUNNING
    end_time_ms: int | None = None
    stage: LifecycleStage = LifecycleStage.ACTIVE
    hidden: bool = False
    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    inputs: list[DatasetInput] = field(default_factory=list)


@dataclass
class Failure:
    """Raise `error` at the next `times` calls of `method`, before or after they take effect."""

    method: str
    error: Exception
    times: int = 1
    after: bool = False
    run_id: str | None = None


class MemoryTarget:
    """See `runmirror.mirror.target.Target`."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, Remote] = {}
        self.calls: list[str] = []
        self.failures: list[Failure] = []
        self.before: Callable[[str], object] | None = None
        self.refuses: Callable[[Metric | Param | Tag], bool] = lambda _: False
        self._guard: Guard = lambda: None
        self._numbers = itertools.count(1)

    async def open(self, settings: Settings, link: Link) -> tuple[Self, Link]:
        return self, link

    def under(self, guard: Guard) -> Self:
        bound = copy.copy(self)
        bound._guard = guard
        return bound

    async def close(self) -> None: ...

    def registry(self) -> AzureRegistry:
        raise AssertionError("registered models are tested against the emulated workspace only")

    def portal_url(self, run: RemoteRun) -> str | None:
        return f"https://portal.example/runs/{run.run_id}"

    def of(self, run_id: str) -> Remote:
        """The one run that mirrors ours. Raises `AssertionError` when there are none or two."""
        found = [run for run in self.runs.values() if run.tags.get("runmirror.run_id") == run_id]
        assert len(found) == 1, f"{len(found)} remote runs for {run_id}"
        return found[0]

    async def probe(self) -> None:
        self._begin("probe")
        self._end("probe")

    async def ensure_experiment(self, name: str) -> str:
        self._begin("ensure_experiment")
        found = self.experiments.setdefault(name, f"experiment-{next(self._numbers)}")
        self._end("ensure_experiment")
        return found

    async def find_run(self, experiment_id: str, run_id: str) -> RemoteRun | None:
        self._begin("find_run")
        for run in self.runs.values():
            if run.experiment_id == experiment_id and run.tags["runmirror.run_id"] == run_id:
                return RemoteRun(experiment_id, run.run_id)
        return None

    async def create_run(self, experiment_id: str, run: NewRun) -> RemoteRun:
        self._begin("create_run")
        if any(self.refuses(tag) for tag in run.tags):
            raise TargetRejected("there is something in it that is not taken")
        remote_id = f"remote-{next(self._numbers)}"
        tags = {tag.key: tag.value for tag in tags_of(run)}
        self.runs[remote_id] = Remote(remote_id, experiment_id, run.name, tags)
        self._end("create_run")
        return RemoteRun(experiment_id, remote_id)

    async def stage_of(self, run: RemoteRun) -> LifecycleStage:
        self._begin("stage_of")
        return self._find(run).stage

    async def set_stage(self, run: RemoteRun, stage: LifecycleStage) -> None:
        self._begin("set_stage")
        self._find(run).stage = stage
        self._end("set_stage")

    async def set_hidden(self, run: RemoteRun, is_hidden: bool) -> None:
        self._begin("set_hidden", run)
        self._find(run).hidden = is_hidden
        self._end("set_hidden", run)

    async def log_batch(self, run: RemoteRun, batch: Batch) -> None:
        self._begin("log_batch", run)
        remote = self._active(run)
        if len(remote.params.keys() | {param.key for param in batch.params}) > MOST_PARAMS:
            raise OverLimit(f"FieldName=Parameters, Limit={MOST_PARAMS}", name="params", limit=MOST_PARAMS)
        if any(self.refuses(thing) for thing in (*batch.metrics, *batch.params, *batch.tags)):
            raise TargetRejected("there is something in it that is not taken")
        self._check_params(remote, batch.params)
        remote.metrics += batch.metrics
        remote.params |= {param.key: param.value for param in batch.params}
        remote.tags |= {tag.key: tag.value for tag in batch.tags}
        self._end("log_batch", run)

    def _check_params(self, remote: Remote, params: Sequence[Param]) -> None:
        for param in params:
            if remote.params.get(param.key, param.value) != param.value:
                raise TargetRejected(f"param {param.key} changed")

    async def log_inputs(self, run: RemoteRun, inputs: Sequence[DatasetInput]) -> None:
        self._begin("log_inputs", run)
        self._active(run).inputs += inputs
        self._end("log_inputs", run)

    async def inputs_of(self, run: RemoteRun) -> Sequence[tuple[str, str]]:
        self._begin("inputs_of", run)
        return [(given.dataset.name, given.dataset.digest) for given in self._find(run).inputs]

    async def tag_keys(self, run: RemoteRun) -> Sequence[str]:
        self._begin("tag_keys", run)
        return list(self._find(run).tags)

    async def delete_tag(self, run: RemoteRun, key: str) -> None:
        self._begin("delete_tag", run)
        self._active(run).tags.pop(key, None)
        self._end("delete_tag", run)

    async def history(self, run: RemoteRun, key: str) -> Sequence[Metric]:
        self._begin("history", run)
        return [metric for metric in self._find(run).metrics if metric.key == key]

    async def copy_files(self, run: RemoteRun, files: Sequence[RemoteFile]) -> Copied:
        self._begin("copy_files", run)
        remote, sent, changed = self._find(run), 0, []
        for file in files:
            try:
                content = b"".join([chunk async for chunk in await file.read(0, file.size_bytes)])
                if file.md5 not in {None, hashlib.md5(content).hexdigest()}:
                    raise SourceChanged(file.path)
            except SourceChanged:
                changed.append(file)
            else:
                remote.files[file.path] = content
                sent += len(content)
        self._end("copy_files", run)
        return Copied(sent, tuple(changed))

    async def artifact_paths(self, run: RemoteRun) -> Sequence[str]:
        self._begin("artifact_paths", run)
        return list(self._find(run).files)

    async def update_run(self, run: RemoteRun, state: RunState) -> LifecycleStage:
        self._begin("update_run", run)
        remote = self._active(run)
        remote.name, remote.status = state.name, state.status
        remote.end_time_ms = state.end_time_ms if state.end_time_ms is not None else remote.end_time_ms
        self._end("update_run", run)
        return remote.stage

    async def rename(self, run: RemoteRun, name: str) -> None:
        self._begin("rename", run)
        self._active(run).name = name
        self._end("rename", run)

    def _find(self, run: RemoteRun) -> Remote:
        if run.run_id not in self.runs:
            raise RemoteRunVanished(run.run_id)
        return self.runs[run.run_id]

    def _active(self, run: RemoteRun) -> Remote:
        found = self._find(run)
        if found.stage is LifecycleStage.DELETED:
            raise TargetRejected(f"the run {run.run_id} must be in the 'active' state")
        return found

    def _begin(self, method: str, run: RemoteRun | None = None) -> None:
        self._guard()
        self.calls.append(method)
        if self.before is not None:
            self.before(method)
        self._fail(method, run, after=False)

    def _end(self, method: str, run: RemoteRun | None = None) -> None:
        self._fail(method, run, after=True)

    def _fail(self, method: str, run: RemoteRun | None, *, after: bool) -> None:
        for failure in self.failures:
            fits = failure.run_id is None or (
                run is not None and self._find(run).tags.get("runmirror.run_id") == failure.run_id
            )
            if failure.method == method and failure.after == after and failure.times and fits:
                failure.times -= 1
                raise failure.error

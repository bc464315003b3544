"""What a mirror writes to, as far as the worker knows it, and everything that can go wrong there."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from runmirror.artifacts.files import Link
from runmirror.entities import Batch, DatasetInput, LifecycleStage, Metric, RunStatus, Tag

if TYPE_CHECKING:
    from runmirror.mirror.azureml_registry import AzureRegistry

Guard = Callable[[], None]
"""Called before every request; raises when the caller's lease may not outlive that request."""


class TargetError(Exception):
    """The root. A message never holds a token or the query of a URL."""


class TargetRejected(TargetError):
    """The target understood and refuses what this run asks: repeating it changes nothing."""


class OverLimit(TargetRejected):
    """Something is larger than the target's limit; `name` is that of a field of `runmirror.mirror.limits.Limits`."""

    def __init__(self, message: str, *, name: str, limit: int) -> None:
        super().__init__(message)
        self.name = name
        self.limit = limit


class RemoteRunVanished(TargetRejected):
    """The run that was mirrored so far is not there any more."""


class TargetOutage(TargetError):
    """Nobody's run can be mirrored now; `retry_after_s` is the target's own wish.

    `uncertain`: a request with an effect was sent and not answered, so it may have taken effect, now or soon.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, uncertain: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.uncertain = uncertain


class TargetThrottled(TargetOutage):
    """Too many requests."""


class TargetUnavailable(TargetOutage):
    """No connection, no answer in time, a server error, or an answer that cannot be read."""


class TargetUnauthorized(TargetOutage):
    """No token to be had, or one that is refused: a role, a secret or an identity is missing."""


class RunRestored(Exception):
    """The run was deleted at the target, which stood in the way, and is restored: it can be mirrored again."""


class ParentNotMirrored(Exception):
    """The run's parent has no remote run yet, and is about to get one."""


class SourceChanged(Exception):
    """A file at the source is not, or no longer, what its row says."""


class SourceUnavailable(Exception):
    """The artifact store of the source cannot be read now."""


@dataclass(frozen=True, slots=True)
class RemoteRun:
    experiment_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run is created with; the rest of it follows in batches."""

    run_id: str  # ours, kept as a tag, by which the run is found again
    name: str
    user_id: str
    start_time_ms: int
    source: str
    parent_run_id: str | None = None  # the target's id of the run it is nested in
    experiment_name: str | None = None  # where the target does not take that name for the experiment itself
    tags: tuple[Tag, ...] = ()  # of the run itself


@dataclass(frozen=True, slots=True)
class BornThere:
    """A run as the target has it, which it made itself; of each metric the newest point."""

    run_id: str
    experiment_id: str
    user_id: str
    start_time_ms: int
    state: "RunState"
    batch: Batch


@dataclass(frozen=True, slots=True)
class RunState:
    """The part of a run that is overwritten, not added to."""

    name: str
    status: RunStatus
    end_time_ms: int | None
    stage: LifecycleStage


async def no_link() -> None:
    """Of a file that no other machine can read."""
    return


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to copy: `read(start, end)` streams its bytes, `end` exclusive; it may raise `SourceChanged`.

    `link()` is a URL by which another machine may read it, or None; it may raise `SourceChanged` too.

    `revision_path` is where it goes when `path` already holds something else that may not be overwritten.
    """

    path: str
    revision_path: str
    size_bytes: int
    md5: str | None  # hex
    read: Callable[[int, int], Awaitable[AsyncIterator[bytes]]]
    link: Callable[[], Awaitable[Link | None]] = no_link


@dataclass(frozen=True, slots=True)
class Copied:
    """How many bytes were sent, and which files could not be: at the source they are not what was said.

    `revised`: those that stand at their `revision_path`, because `path` keeps an earlier content.
    """

    sent_bytes: int
    changed: tuple[RemoteFile, ...]
    revised: tuple[RemoteFile, ...] = ()


class Target(Protocol):
    """Writes that are safe to repeat, except `create_run`, `log_inputs` and the metrics of `log_batch`."""

    def under(self, guard: Guard) -> Self:
        """The same target, whose every request asks `guard` first."""
        ...

    async def ensure_experiment(self, name: str) -> str:
        """Find or create an experiment: its remote id."""
        ...

    async def find_run(self, experiment_id: str, run_id: str) -> RemoteRun | None:
        """The run that was created for our `run_id`, whatever its stage."""
        ...

    async def create_run(self, experiment_id: str, run: NewRun) -> RemoteRun: ...

    async def stage_of(self, run: RemoteRun) -> LifecycleStage: ...

    async def set_stage(self, run: RemoteRun, stage: LifecycleStage) -> None: ...

    async def set_hidden(self, run: RemoteRun, is_hidden: bool) -> None:
        """Archive a run, or bring it back: it stays where it is, but lists leave it out."""
        ...

    async def log_batch(self, run: RemoteRun, batch: Batch) -> None:
        """One request, of which nothing is kept when it is refused; `OverLimit` if the target says why."""
        ...

    async def log_inputs(self, run: RemoteRun, inputs: Sequence[DatasetInput]) -> None:
        """One request."""
        ...

    async def inputs_of(self, run: RemoteRun) -> Sequence[tuple[str, str]]:
        """Name and digest of every dataset input."""
        ...

    async def tag_keys(self, run: RemoteRun) -> Sequence[str]:
        """The tags that count against the limit."""
        ...

    async def delete_tag(self, run: RemoteRun, key: str) -> None:
        """Absent is fine."""
        ...

    async def history(self, run: RemoteRun, key: str) -> Sequence[Metric]:
        """Every point of one metric."""
        ...

    async def copy_files(self, run: RemoteRun, files: Sequence[RemoteFile]) -> Copied:
        """Copy what is not there yet."""
        ...

    async def artifact_paths(self, run: RemoteRun) -> Sequence[str]:
        """Every path that the run has there."""
        ...

    async def update_run(self, run: RemoteRun, state: RunState) -> LifecycleStage:
        """Set name, status and end time; the answer is the stage the run has there."""
        ...

    async def rename(self, run: RemoteRun, name: str) -> None:
        """The name alone: whose run it is keeps what it says of its status."""
        ...

    def registry(self) -> "AzureRegistry":
        """The target's registered models."""
        ...

    def portal_url(self, run: RemoteRun) -> str | None: ...

    async def probe(self) -> None:
        """One cheap read that needs the same rights as the rest."""
        ...

    async def close(self) -> None: ...


def tags_of(run: NewRun) -> tuple[Tag, ...]:
    """The tags of a new run: those by which a mirrored run names its source, and its own."""
    named = {
        "runmirror.run_id": run.run_id,
        "runmirror.source": run.source,
        "runmirror.experiment_name": run.experiment_name,
        "mlflow.parentRunId": run.parent_run_id,
    }
    tags = {key: value for key, value in named.items() if value is not None} | {tag.key: tag.value for tag in run.tags}
    return tuple(Tag(key, value) for key, value in tags.items())

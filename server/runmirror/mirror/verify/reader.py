"""Reading a copy back, as far as the comparison knows the target."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from runmirror.entities import Metric
from runmirror.mirror.target import RemoteRun, RunState


@dataclass(frozen=True, slots=True)
class RemoteCopy:
    """A run as it stands in the target.

    `metric_keys` are those it knows a latest value of, `inputs` names and digests of its datasets.
    """

    experiment_id: str
    state: RunState
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metric_keys: frozenset[str]
    inputs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteContent:
    """What lies behind a path: its size, and the MD5 in hex where the target keeps one."""

    size_bytes: int
    md5: str | None


class Reader(Protocol):
    """Reads that change nothing. They raise `TargetError`."""

    async def run(self, run: RemoteRun) -> RemoteCopy | None:
        """None when it is not there."""
        ...

    async def copies(self, experiment_id: str, run_id: str) -> Sequence[RemoteRun]:
        """Every run of the experiment that names ours, whatever its stage."""
        ...

    async def experiment_name(self, experiment_id: str) -> str | None: ...

    def points(self, run: RemoteRun, key: str) -> AsyncIterator[Metric]:
        """Every point of one metric, a page in memory at a time."""
        ...

    def paths(self, run: RemoteRun) -> AsyncIterator[str]:
        """Every registered path, with content or without."""
        ...

    async def content(self, run: RemoteRun, path: str) -> RemoteContent | None:
        """None when nothing was uploaded to the path."""
        ...

    def read(self, run: RemoteRun, path: str) -> AsyncIterator[bytes]:
        """The bytes of a file, in pieces."""
        ...

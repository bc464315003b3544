"""What a source of an import can tell."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple, Protocol

from runmirror.importing.entities import (
    OldExperiment,
    OldFile,
    OldModel,
    OldRegisteredModel,
    OldRun,
    OldTrace,
)
from runmirror.runs.hot_columns import Point

PAGE_RUNS = 500
PIECE_POINTS = 20_000


class SourceError(Exception):
    """The source cannot be read, or holds what makes no sense; says why, in words for the operator."""


class FilesElsewhere(SourceError):
    """The files are where the source's own metadata leads, and nobody here reaches that."""


class PointsOf(NamedTuple):
    """Some points of one metric of one run."""

    run_id: str
    points: Sequence[Point]


class Root(NamedTuple):
    """Whose files: a run's, or a logged model's (`model_id` not empty), at `uri` as the source says."""

    run_id: str
    model_id: str
    uri: str


class Source(Protocol):
    """Pages are small enough to be held; what is asked of all experiments is asked with None."""

    @property
    def identity(self) -> str:
        """Its address without credentials: the same one at every call."""
        ...

    @property
    def workspace_id(self) -> str | None:
        """The ARM id of the Azure ML workspace that it is, if it is one."""
        ...

    async def experiments(self) -> Sequence[OldExperiment]:
        """All of them, deleted ones too."""
        ...

    def runs(self, experiment_ids: Collection[str] | None, since_ms: int | None) -> AsyncIterator[Sequence[OldRun]]:
        """Every run once, deleted ones too."""
        ...

    def points(self, runs: Sequence[OldRun]) -> AsyncIterator[Sequence[PointsOf]]:
        """All points of these runs, in pieces of about `PIECE_POINTS`."""
        ...

    def models(self, experiment_ids: Collection[str] | None) -> AsyncIterator[Sequence[OldModel]]:
        """Logged models, deleted ones too where the source shows them."""
        ...

    def registered_models(self) -> AsyncIterator[OldRegisteredModel]:
        """With their versions; prompts too."""
        ...

    def traces(
        self, experiment_ids: Collection[str] | None, since_ms: int | None
    ) -> AsyncIterator[Sequence[OldTrace]]: ...

    async def list_files(self, root: Root) -> Sequence[OldFile]:
        """All files below an artifact root. Raises `FilesElsewhere`."""
        ...

    def read_file(self, root: Root, path: str) -> AsyncIterator[bytes]:
        """Raises `SourceError`."""
        ...

    async def close(self) -> None: ...

"""Which place in the store an `artifact_uri` means, and whose artifact root a place in the store is below."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from runmirror.artifacts.safe_path import safe_path
from runmirror.errors import InvalidParameter
from runmirror.wire import RUN_ID

MODEL_ID = re.compile(r"^m-[0-9a-f]{32}\Z")
_OURS = re.compile(r"^mlflow-artifacts:(?://[^/]*)?/(?P<path>[^?#]+)$")


@dataclass(frozen=True, slots=True)
class Root:
    """Where the artifacts of a run lie in the store, or those of a logged model (`model_id` not empty).

    `run_id` is the run that a change is recorded with: None for a logged model that no run made.
    """

    run_id: UUID | None
    model_id: str
    path: str


@dataclass(frozen=True, slots=True)
class Place:
    """A path relative to a root; empty means the root itself and all below."""

    root: Root
    path: str

    @property
    def store_path(self) -> str:
        return f"{self.root.path}/{self.path}" if self.path else self.root.path


def path_of(artifact_uri: str) -> str:
    """The place in the store that an `mlflow-artifacts:` URI means.

    Raises `InvalidParameter` for every other URI: the server opens no address that a client gave it.
    """
    match = _OURS.match(artifact_uri)
    if match is None:
        raise InvalidParameter(
            f"The artifacts are at {artifact_uri!r}, which this server does not serve (only mlflow-artifacts:/…)."
        )
    return safe_path(match["path"].strip("/"))


def roots_of(owners: Iterable[tuple[UUID | None, str, str]]) -> Iterator[Root]:
    """The roots of (run_id, model_id, artifact_uri) that lie in the store; the others are no concern of it."""
    for run_id, model_id, artifact_uri in owners:
        try:
            yield Root(run_id, model_id, path_of(artifact_uri))
        except InvalidParameter:
            continue


def ids_in(path: str) -> tuple[list[UUID], list[str]]:
    """The segments of a store path that may be ids: of runs, and of logged models."""
    segments = path.split("/")
    runs = [UUID(segment) for segment in segments if RUN_ID.match(segment)]
    return runs, [segment for segment in segments if MODEL_ID.match(segment)]


def place_below(roots: Iterable[Root], path: str) -> Place | None:
    """The deepest of the roots that `path` lies in, and where in it."""
    around = [root for root in roots if path == root.path or path.startswith(root.path + "/")]
    if not around:
        return None
    deepest = max(around, key=lambda root: len(root.path))
    return Place(deepest, path[len(deepest.path) + 1 :])


def roots_below(roots: Iterable[Root], path: str) -> list[Root]:
    """The roots that lie below `path`, and so go when it goes."""
    return [root for root in roots if root.path.startswith(path + "/")]

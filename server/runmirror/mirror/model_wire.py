"""What the status of registered models looks like on the wire."""

from datetime import datetime
from typing import Self

from runmirror.mirror.model_status import ModelMirror, VersionMirror
from runmirror.wire import Wire


class VersionMirrorAnswer(Wire):
    """`remote_version` is Azure's number; `problem` says why the version is not there; without both it waits."""

    version: int
    remote_version: str | None = None
    problem: str | None = None

    @classmethod
    def of(cls, version: VersionMirror) -> Self:
        return cls(version=version.version, remote_version=version.remote_version, problem=version.problem)


class ModelMirrorAnswer(Wire):
    """`state` is as of runs; `name` is left out of a model that is deleted here. `problems`: what Azure refuses."""

    name: str | None = None
    state: str
    workspace: str | None = None
    remote_name: str | None = None
    behind_since: datetime | None = None
    mirrored_at: datetime | None = None
    waits_for_run: str | None = None
    attempt: int
    last_error: str | None = None
    last_error_at: datetime | None = None
    problems: list[str]
    versions: list[VersionMirrorAnswer]

    @classmethod
    def of(cls, model: ModelMirror) -> Self:
        return cls(
            name=model.name,
            state=model.state,
            workspace=model.workspace,
            remote_name=model.remote_name,
            behind_since=model.behind_since,
            mirrored_at=model.mirrored_at,
            waits_for_run=None if model.waits_for_run is None else model.waits_for_run.hex,
            attempt=model.attempt,
            last_error=model.last_error,
            last_error_at=model.last_error_at,
            problems=[*model.problems],
            versions=[VersionMirrorAnswer.of(version) for version in model.versions],
        )


class ModelMirrorsAnswer(Wire):
    """Those in trouble first, no more than a thousand."""

    registered_models: list[ModelMirrorAnswer]

"""Artifacts by identity: write-once registration, listing, and the signed URLs behind them."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from azureml_emulator import limits
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AzureError, InvalidParameter, Json, NotFound, ResourceConflict, camel_body
from azureml_emulator.paging import page_of
from azureml_emulator.sas import READ, WRITE
from azureml_emulator.state import Artifact

RUN_ORIGIN = "ExperimentRun"


def iso(milliseconds: int | None) -> str | None:
    """A time as the history services write it."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="microseconds")


def check_path(emulator: Emulator, path: str) -> None:
    """Refuse paths that name no file."""
    limits.at_most(emulator.settings.limits.artifact_path, len(path), "ArtifactPath")
    if any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path:
        raise InvalidParameter(f"Invalid artifact path '{path}'")


def find(emulator: Emulator, origin: str, container: str, path: str) -> Artifact:
    artifact = emulator.state.artifacts.get(f"{origin}/{container}/{path}")
    if artifact is None:
        raise NotFound(f"Artifact not found: ArtifactId {origin}/{container}/{path}")
    return artifact


def register(emulator: Emulator, origin: str, container: str, path: str) -> Artifact:
    """Make the entry for one path: a path is registered once, ever."""
    check_path(emulator, path)
    artifact = Artifact(origin, container, path, etag=f'"0x8D{secrets.token_hex(6).upper()}"')
    if artifact.artifact_id in emulator.state.artifacts:
        raise ResourceConflict(f"Resource Conflict: ArtifactId {artifact.artifact_id} already exists.")
    emulator.state.artifacts[artifact.artifact_id] = artifact
    return artifact


def register_batch(emulator: Emulator, origin: str, container: str, paths: Sequence[str]) -> Json:
    """Register many paths: one that fails does not spoil the others."""
    limits.at_most(emulator.settings.limits.artifacts_per_batch, len(paths), "Paths")
    artifacts: Json = {}
    contents: Json = {}
    errors: Json = {}
    for path in paths:
        try:
            artifact = register(emulator, origin, container, path)
        except AzureError as error:
            errors[path] = camel_body(error)
        else:
            artifacts[path] = write_artifact(artifact)
            contents[path] = write_content(emulator, artifact, WRITE)
    return {"artifacts": artifacts, "artifactContentInformation": contents, "errors": errors}


def remove(emulator: Emulator, artifact: Artifact) -> None:
    """Forget an artifact and its bytes, so that its path may be registered again."""
    del emulator.state.artifacts[artifact.artifact_id]
    blob = emulator.state.blobs.pop(artifact.artifact_id, None)
    if blob is not None:
        blob.file.unlink(missing_ok=True)


def write_artifact(artifact: Artifact) -> Json:
    return {
        "artifactId": artifact.artifact_id,
        "origin": artifact.origin,
        "container": artifact.container,
        "path": artifact.path,
        "etag": artifact.etag,
        "createdTime": iso(artifact.created_ms),
        "dataPath": {
            "dataStoreName": "workspaceartifactstore",
            "relativePath": artifact.artifact_id,
            "sqlDataPath": None,
        },
        "tags": {},
    }


def write_content(emulator: Emulator, artifact: Artifact, permissions: str = READ) -> Json:
    """An artifact with a URL that reads or writes its blob for a while."""
    return {
        "contentUri": emulator.signer.url(artifact.artifact_id, permissions, emulator.settings.sas_lifetime),
        "origin": artifact.origin,
        "container": artifact.container,
        "path": artifact.path,
        "tags": {},
    }


def list_page(
    emulator: Emulator, url: str, found: Sequence[Artifact], token: str | None, *, signed: bool = False
) -> Json:
    """One page of artifacts: one client follows nextLink, the other continuationToken."""
    page, following = page_of(found, emulator.settings.artifact_page_size, token)
    value = [write_content(emulator, a) if signed else write_artifact(a) for a in page]
    link = f"{url}{'&' if '?' in url else '?'}continuationToken={following}" if following else None
    return {"value": value, "continuationToken": following, "nextLink": link}

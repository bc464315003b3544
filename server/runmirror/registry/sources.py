"""Where the files of a model version come from: only places inside our own store, checked before anything is stored.

    runs:/<run_id>/path            below the artifact root of that run, which `run_id` must name too
    models:/m-<hex>                a logged model, which `model_id` must name too
    mlflow-artifacts:/path         below the artifact root of the run or logged model that the request names
    models:/<name>/<version>       a copy of another version (also /latest, /<stage> and @<alias>)

Every other URI is refused, whatever the tags of the version say: the server opens no address that a client gave it.
A prompt has no files. Its source is the placeholder that MLflow's client sends, which is no place and is not served.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.artifacts import queries as artifact_queries
from runmirror.artifacts.places import MODEL_ID, path_of
from runmirror.artifacts.safe_path import safe_path
from runmirror.errors import DoesNotExist, InvalidParameter, ModelVersionNotFound, RegisteredModelNotFound
from runmirror.registry import rules, source_queries
from runmirror.run_ids import is_foreign, shown_id, stored_id

MAX_LENGTH = 2000
PROMPT_PLACEHOLDERS = frozenset({"dummy-source", "prompt-template"})

_RUNS = re.compile(r"runs:/([a-zA-Z0-9][a-zA-Z0-9_\-]{0,255})(?:/([^?#]*))?")
_MODELS = re.compile(r"models:/([^/?]+)(?:/([^/?]+))?")


@dataclass(frozen=True, slots=True)
class Source:
    """`uri` as it is shown; `storage_location` is what a client downloads; `run_id` ("" if none) made the files.

    `model_id` is the logged model that the version is one of, or None; `made_by` the run that made that.
    """

    uri: str
    storage_location: str
    run_id: str
    model_id: str | None = None
    made_by: UUID | None = None


@dataclass(frozen=True, slots=True)
class VersionRef:
    """`models:/name/…`: exactly one of the three is given, or none for the newest version."""

    name: str
    version: str | None = None
    stage: str | None = None
    alias: str | None = None


async def resolve(
    connection: AsyncConnection, uri: str, *, run_id: str | None, model_id: str | None, tags: Mapping[str, str]
) -> Source:
    """What `uri` means. Raises `InvalidParameter` (or `DoesNotExist`) unless it lies in our store and fits the ids."""
    if len(uri) > MAX_LENGTH or not uri.isprintable():
        raise InvalidParameter(f"Invalid model version source: '{uri[:200]}'.")
    if run_id and not await _names_a_run(connection, run_id):
        raise InvalidParameter(f"Invalid value {run_id[:80]!r} for parameter 'run_id' supplied: not a run id.")
    if rules.is_prompt(tags):
        if uri not in PROMPT_PLACEHOLDERS:
            raise InvalidParameter(f"Invalid prompt source: '{uri}'. Prompt sources must use an MLflow placeholder.")
        return Source(uri, uri, run_id or "")
    if uri.startswith("models:") and (ref := parse_version_ref(uri)) is not None:
        return await _of_version(connection, uri, ref, run_id, model_id)
    if model_id:
        return await _of_logged_model(connection, uri, run_id or "", model_id)
    return await _of_run(connection, uri, run_id or "")


async def store_path(connection: AsyncConnection, storage_location: str) -> str:
    """The place in the store of a version's files. Raises `InvalidParameter` for a location that is none."""
    if match := _RUNS.fullmatch(storage_location):
        return await _path_in_run(connection, storage_location, match)
    return path_of(storage_location)


def parse_version_ref(uri: str) -> VersionRef | None:
    """The registered model and version that a `models:` URI means, None when it means a logged model."""
    match = _MODELS.fullmatch(uri)
    if match is None or not match[1].strip() or (match[2] is not None and not match[2].strip()):
        raise _outside(uri, "model_id")
    name, suffix = match[1], match[2]
    if suffix is None:
        if "@" not in name:
            return None
        name, _, alias = name.rpartition("@")
        if not alias.strip():
            raise _outside(uri, "model_id")
        return VersionRef(name, alias=None if alias.lower() == rules.LATEST else alias)
    if suffix.isdigit():
        return VersionRef(name, version=suffix)
    return VersionRef(name) if suffix.lower() == rules.LATEST else VersionRef(name, stage=suffix)


async def _of_version(
    connection: AsyncConnection, uri: str, ref: VersionRef, run_id: str | None, model_id: str | None
) -> Source:
    rules.check_model_name(ref.name)
    version = None if ref.version is None else rules.parse_version(ref.name, ref.version)
    stage = None if ref.stage is None else rules.stored_stage(ref.stage)
    row = await source_queries.source_version(connection, ref.name, version=version, stage=stage, alias=ref.alias)
    if row is None:
        raise RegisteredModelNotFound(ref.name)
    if (row.prompt or "").lower() == "true":
        raise InvalidParameter(
            f"Invalid model version source: '{uri}'. Prompt versions cannot be used as model version sources."
        )
    if row.version is None:
        raise _no_version(ref, version)
    # MLflow knows no logged model of a stored version, so naming one never fits.
    if (run_id is not None and run_id != row.run_id) or model_id:
        raise InvalidParameter(
            f"Invalid model version source: '{uri}'. The run_id and model_id request parameters must match the "
            "referenced model version."
        )
    await store_path(connection, row.storage_location)  # a prompt's version inside an ordinary model has no files
    return Source(f"models:/{ref.name}/{row.version}", row.storage_location, row.run_id)


async def _of_logged_model(connection: AsyncConnection, uri: str, run_id: str, model_id: str) -> Source:
    row = await source_queries.logged_model(connection, model_id) if MODEL_ID.fullmatch(model_id) else None
    if row is None:
        raise _outside(uri, "model_id")
    if uri == f"models:/{model_id}":
        location = row.artifact_uri
    elif _lies_below(uri, row.artifact_uri):
        location = uri
    else:
        raise _outside(uri, "model_id")
    path_of(location)
    made_by = row.source_run_id
    return Source(uri, location, run_id or (shown_id(made_by, row.azure_run_id) if made_by else ""), model_id, made_by)


async def _of_run(connection: AsyncConnection, uri: str, run_id: str) -> Source:
    if match := _RUNS.fullmatch(uri):
        if match[1] != run_id:
            raise _outside(uri, "run_id")
        await _path_in_run(connection, uri, match)
        return Source(uri, uri, run_id)
    if uri.startswith("models:"):
        raise _outside(uri, "model_id")
    root = await _artifact_root(connection, run_id)
    if root is None or not _lies_below(uri, root):
        raise _outside(uri, "run_id")
    path_of(uri)
    return Source(uri, uri, run_id)


async def _path_in_run(connection: AsyncConnection, uri: str, match: re.Match[str]) -> str:
    root = await _artifact_root(connection, match[1])
    if root is None:
        raise _outside(uri, "run_id")
    below = (match[2] or "").removesuffix("/")
    return f"{path_of(root)}/{safe_path(below)}" if below else path_of(root)


async def _names_a_run(connection: AsyncConnection, run_id: str) -> bool:
    """Any id of our shape, of a run that may be another server's; or the name of a run that was adopted here."""
    if is_foreign(run_id):
        return await _artifact_root(connection, run_id) is not None
    return stored_id(run_id) is not None


async def _artifact_root(connection: AsyncConnection, run_id: str) -> str | None:
    key = stored_id(run_id)
    return None if key is None else await artifact_queries.artifact_uri(connection, key)


def _lies_below(uri: str, root: str) -> bool:
    """Compared as text: what is spelled in another way is another place. `path_of` refuses the tricks in the rest."""
    return uri == root or uri.startswith(root.rstrip("/") + "/")


def _outside(uri: str, named_by: str) -> InvalidParameter:
    return InvalidParameter(
        f"Invalid model version source: '{uri}'. The {named_by} request parameter must identify the resource that "
        "contains the source."
    )


def _no_version(ref: VersionRef, version: int | None) -> DoesNotExist | InvalidParameter:
    """Why none was found; a stage or alias that cannot exist is refused here, after MLflow has looked for the model."""
    if version is not None:
        return ModelVersionNotFound(ref.name, version)
    if ref.stage is not None:
        rules.canonical_stage(ref.stage)
    if ref.alias is not None:
        rules.check_alias(ref.alias)
        return InvalidParameter(f"Registered model alias {ref.alias} not found.")
    of_stage = f" and stage '{ref.stage}'" if ref.stage is not None else ""
    return DoesNotExist(f"No versions of model with name '{ref.name}'{of_stage} found")

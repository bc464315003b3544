"""From what a request names to where it lies: experiments, or registered models.

Ids are read here by the very functions that read them where the request is carried out, so that both mean the same.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.artifacts.location import SCHEME
from runmirror.artifacts.safe_path import safe_path
from runmirror.auth import queries
from runmirror.auth.levels import Kind
from runmirror.auth.subjects import Thing
from runmirror.errors import (
    ArtifactNotFound,
    DoesNotExist,
    EvaluationDatasetNotFound,
    ExperimentNotFound,
    InvalidParameter,
    LoggedModelNotFound,
    RegisteredModelNotFound,
    RunNotFound,
)
from runmirror.registry.sources import parse_version_ref
from runmirror.run_ids import stored_id
from runmirror.search.clauses import parse_experiment_ids
from runmirror.traces.keys import ID, TraceNotFound

Places = dict[str, list[int]]
Finder = Callable[[AsyncConnection, Sequence[Any]], Awaitable[Mapping[Any, list[int]]]]

# What never moves from one experiment to another, nor is made anew under an id that was in use.
SETTLED = frozenset({Thing.EXPERIMENT, Thing.RUN, Thing.LOGGED_MODEL})


def kind_of(thing: Thing) -> Kind:
    return Kind.REGISTERED_MODEL if thing in {Thing.REGISTERED_MODEL, Thing.VERSION_SOURCE} else Kind.EXPERIMENT


def not_found(thing: Thing, given: str) -> DoesNotExist:
    """What is said of a thing that is not there, as the route itself would."""
    if thing is Thing.EXPERIMENT_NAME:
        return DoesNotExist(f"Could not find experiment with name '{given}'")
    return _NOT_FOUND[thing](given)


_NOT_FOUND: Mapping[Thing, Callable[[str], DoesNotExist]] = {
    Thing.EXPERIMENT: ExperimentNotFound,
    Thing.RUN: RunNotFound,
    Thing.LOGGED_MODEL: LoggedModelNotFound,
    Thing.TRACE: TraceNotFound,
    Thing.DATASET: EvaluationDatasetNotFound,
    Thing.REGISTERED_MODEL: RegisteredModelNotFound,
    Thing.VERSION_SOURCE: RegisteredModelNotFound,
    Thing.FILE: ArtifactNotFound,
    Thing.TREE: ArtifactNotFound,
}


async def places_of(connection: AsyncConnection, thing: Thing, given: Sequence[str]) -> Places:
    """Of each of the given that is there, the experiments it lies in, or the registered model it is.

    Raises `InvalidParameter` for what cannot be read.
    """
    match thing:
        case Thing.EXPERIMENT:
            return await _experiments(connection, given)
        case Thing.RUN:
            keys = {text: key for text in given if (key := stored_id(text)) is not None}
            found = await queries.experiments_of_runs(connection, list(keys.values()))
            return {text: found[key] for text, key in keys.items() if key in found}
        case Thing.TRACE:
            return dict(await queries.experiments_of_traces(connection, [text for text in given if ID.fullmatch(text)]))
        case Thing.FILE | Thing.TREE:
            return {text: await _around(connection, text, below=thing is Thing.TREE) for text in given}
        case Thing.VERSION_SOURCE:
            names = {text: name for text in given if (name := _version_source(text)) is not None}
            found = await queries.registered_models(connection, list(names.values()))
            return {text: found[name] for text, name in names.items() if name in found}
    return dict(await _BY_TEXT[thing](connection, [text for text in given if "\0" not in text]))


_BY_TEXT: Mapping[Thing, Finder] = {
    Thing.EXPERIMENT_NAME: queries.experiments_by_name,
    Thing.LOGGED_MODEL: queries.experiments_of_logged_models,
    Thing.DATASET: queries.experiments_of_datasets,
    Thing.REGISTERED_MODEL: queries.registered_models,
}


async def _experiments(connection: AsyncConnection, given: Sequence[str]) -> Places:
    keys = {text: numbers[0] for text in given if (numbers := parse_experiment_ids([text]))}
    found = await queries.experiments(connection, list(keys.values()))
    return {text: found[key] for text, key in keys.items() if key in found}


async def _around(connection: AsyncConnection, path: str, *, below: bool) -> list[int]:
    """The experiments in whose place a path of the store lies; with `below`, those too whose places lie below it.

    The root, and what lies in no experiment's place, is nobody's.
    """
    path = safe_path(path.removesuffix("/"))
    found = set(await queries.experiments_around(connection, _prefixes(path)))
    if found and below:
        found.update(await queries.experiments_below(connection, f"{SCHEME}{path}/"))
    return sorted(found)


async def experiments_touched(connection: AsyncConnection, location: str) -> list[int]:
    """The experiments whose places contain that of a new one at this location, or would lie in it."""
    around = await queries.experiments_around(connection, _prefixes(location.removeprefix(SCHEME)))
    return sorted({*around, *await queries.experiments_below(connection, f"{location}/")})


def _prefixes(path: str) -> list[str]:
    segments = path.split("/")
    return [SCHEME + "/".join(segments[:length]) for length in range(1, len(segments) + 1)]


def _version_source(uri: str) -> str | None:
    """The registered model of whose versions this is one; what else can be a source, the request names by its id."""
    if not uri.startswith("models:"):
        return None
    try:
        ref = parse_version_ref(uri)
    except InvalidParameter:
        return None
    return None if ref is None else ref.name

"""What MLflow accepts as names and values of params, metrics and tags, and how it says no.

Source: `mlflow.utils.validation` (limits, character set, which values are cut and which are refused).
"""

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from uuid import UUID

from runmirror.errors import AzureExperimentNotFound, InvalidParameter
from runmirror.wire import EXPERIMENT_ID

MAX_KEY_LENGTH = 250
MAX_PARAM_VALUE_LENGTH = 6000
MAX_TAG_VALUE_LENGTH = 8000
MAX_EXPERIMENT_NAME_LENGTH = 500
MAX_EXPERIMENT_TAG_VALUE_LENGTH = 20000
MAX_METRICS_PER_BATCH = 1000
MAX_PARAMS_PER_BATCH = MAX_TAGS_PER_BATCH = 100
MAX_ENTITIES_PER_BATCH = 1000

_NOTHING: Mapping[str, int] = MappingProxyType({})
# Of the experiments that a request names by Azure ML's ids: ours. Empty until the request had to be repeated for them.
known_experiments: ContextVar[Mapping[str, int]] = ContextVar("known_experiments", default=_NOTHING)

_AZURE_EXPERIMENT_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NAME = re.compile(r"[/\w.\- :]+")
_BAD_CHARACTERS = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), "
    "colon(:) and slashes (/)."
)


def check_name(name: str, path: str) -> None:
    """Raise `InvalidParameter` unless `name` may name a param, metric or tag; `path` says where it stood."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter(_invalid(path, name, _BAD_CHARACTERS))
    if ("/" in name or "." in name) and _resolves_elsewhere(name):
        raise InvalidParameter(
            _invalid(
                path, name, "Names may be treated as files in certain cases, and must not resolve to other names when "
                f"treated as such. This name would resolve to {posixpath.normpath(name)!r}",
            )
        )  # fmt: skip
    if len(name) > MAX_KEY_LENGTH:
        raise InvalidParameter(_too_long(path, MAX_KEY_LENGTH))


def cut(value: str, limit: int) -> str:
    """The value as MLflow keeps it: params and run tags are cut at their limit, not refused."""
    return value if len(value) <= limit else value[:limit]


def check_experiment_name(name: str) -> None:
    if len(name) > MAX_EXPERIMENT_NAME_LENGTH:
        raise InvalidParameter(_too_long("name", MAX_EXPERIMENT_NAME_LENGTH))


def check_experiment_tag(key: str, value: str) -> None:
    check_name(key, "key")
    if len(value) > MAX_EXPERIMENT_TAG_VALUE_LENGTH:
        raise InvalidParameter(_too_long("value", MAX_EXPERIMENT_TAG_VALUE_LENGTH))


def check_unique_params(keys: Iterable[str]) -> None:
    seen: set[str] = set()
    repeated = [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
    if repeated:
        raise InvalidParameter(
            f"Duplicate parameter keys have been submitted: {repeated}. Please ensure the request contains only one "
            "param value per param key."
        )


def check_batch_size(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise InvalidParameter(
            f"A batch logging request can contain at most {limit} {what}. Got {size} {what}. Please split up {what} "
            "across multiple requests and try again."
        )


def parse_experiment_id(experiment_id: str) -> int:
    """The id as stored. Raises `InvalidParameter` for what cannot be one."""
    if is_azure_experiment_id(experiment_id):
        return here(experiment_id)
    if not EXPERIMENT_ID.match(experiment_id) or int(experiment_id) >= 2**63:
        raise InvalidParameter(f"Invalid experiment ID '{experiment_id[:64]}'. Experiment ID must be a valid integer.")
    return int(experiment_id)


def is_azure_experiment_id(experiment_id: str) -> bool:
    """Azure ML's ids of experiments are UUIDs with dashes."""
    return len(experiment_id) == 36 and _AZURE_EXPERIMENT_ID.fullmatch(experiment_id) is not None


def here(azure_experiment_id: str) -> int:
    """Our id of an experiment that a client names by Azure ML's.

    Raises `AzureExperimentNotFound`, at which `runmirror.adoption` finds out and repeats the request.
    """
    try:
        return known_experiments.get()[azure_experiment_id.lower()]
    except KeyError:
        raise AzureExperimentNotFound(azure_experiment_id) from None


def random_run_name(run_id: UUID) -> str:
    """A name people can say, for a run that was given none: adjective-noun-number, drawn from the id."""
    digits = int(run_id.hex[-12:], 16)
    adjective = _ADJECTIVES[digits % len(_ADJECTIVES)]
    noun = _NOUNS[digits // 1_009 % len(_NOUNS)]
    return f"{adjective}-{noun}-{digits // 1_000_003 % 1000}"


def _resolves_elsewhere(name: str) -> bool:
    resolved = posixpath.normpath(name)
    return resolved != name or resolved == "." or resolved.startswith(("..", "/"))


def _invalid(path: str, value: str, why: str) -> str:
    return f"Invalid value {json.dumps(value[:300])} for parameter '{path}' supplied: {why}"


def _too_long(path: str, limit: int) -> str:
    return f"'{path}' exceeds the maximum length of {limit} characters"


_ADJECTIVES = (
    "amber", "brisk", "calm", "clear", "cobalt", "crisp", "deft", "eager", "early", "fabled", "fair", "fleet", "gentle",
    "golden", "hardy", "keen", "lively", "lucid", "mellow", "merry", "mirrored", "nimble", "patient", "quiet", "rapid",
    "silver", "sound", "steady", "sunny", "tidal", "vivid", "wise",
)  # fmt: skip
_NOUNS = (
    "alder", "badger", "beacon", "birch", "comet", "crane", "delta", "falcon", "fjord", "garnet", "glacier", "harbor",
    "heron", "island", "jay", "kestrel", "lagoon", "lake", "lark", "lynx", "maple", "marlin", "meadow", "otter", "pond",
    "prism", "raven", "reef", "river", "sparrow", "summit", "tern",
)  # fmt: skip

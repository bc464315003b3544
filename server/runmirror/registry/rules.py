"""What MLflow accepts as names, versions, stages, aliases and tags of the registry, and how it says no.

Source: `mlflow.utils.validation`, `mlflow.entities.model_registry.model_version_stages`.
"""

import json
import posixpath
import re
from collections.abc import Mapping, Sequence

from runmirror.entities import Tag
from runmirror.errors import InvalidParameter, ModelVersionNotFound
from runmirror.names import check_name
from runmirror.wire import missing

MAX_NAME_LENGTH = 256  # the width of MLflow's column; a name is indexed
MAX_ALIAS_LENGTH = 255
MAX_TAG_VALUE_LENGTH = 100_000
LATEST = "latest"

STAGES = ("None", "Staging", "Production", "Archived")
ACTIVE_STAGES = ("Staging", "Production")

IS_PROMPT = "mlflow.prompt.is_prompt"
PROMPT_TEXT = "mlflow.prompt.text"
PROMPT_TYPE = "_mlflow_prompt_type"

_ALIAS = re.compile(r"[\w\-]+")
_VERSION_ALIAS = re.compile(r"[vV]\d+")
_CANONICAL = {stage.lower(): stage for stage in STAGES}
_GREATEST_VERSION = 2**31 - 1


def check_model_name(name: str, parameter: str = "name") -> None:
    if not name.strip():
        raise InvalidParameter(missing(parameter))
    if "/" in name or ":" in name:
        raise InvalidParameter(f"Invalid model name '{name[:300]}'. Names cannot contain '/' or ':'.")
    if posixpath.normpath(name) != name or name == "." or name.startswith(".."):
        raise InvalidParameter(
            f"Invalid value {json.dumps(name)} for parameter 'name' supplied: Names may be treated as files in certain "
            "cases, and must not resolve to other names when treated as such. This name would resolve to "
            f"{posixpath.normpath(name)!r}"
        )
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidParameter(f"'{parameter}' exceeds the maximum length of {MAX_NAME_LENGTH} characters")


def parse_version(name: str, version: str) -> int:
    """The version's number. Raises `ModelVersionNotFound` for a number that cannot have been given out."""
    try:
        number = int(version)
    except ValueError:
        raise InvalidParameter(f"Parameter 'version' must be an integer, got '{version[:80]}'.") from None
    if not 0 < number <= _GREATEST_VERSION:
        raise ModelVersionNotFound(name, number)
    return number


def canonical_stage(stage: str) -> str:
    try:
        return _CANONICAL[stage.lower()]
    except KeyError:
        raise InvalidParameter(
            f"Invalid Model Version stage: {stage[:80]}. Value must be one of {', '.join(STAGES)}."
        ) from None


def stored_stage(stage: str) -> str:
    """The stage as stored; one that does not exist stays as it is, and no version is in it."""
    return _CANONICAL.get(stage.lower(), stage)


def check_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias):
        raise InvalidParameter(
            f"Invalid alias name: '{alias[:300]}'. Names may only contain alphanumerics, underscores (_), and dashes "
            "(-)."
        )
    if len(alias) > MAX_ALIAS_LENGTH:
        raise InvalidParameter(
            f"'Registered model alias name' exceeds the maximum length of {MAX_ALIAS_LENGTH} characters"
        )


def check_new_alias(alias: str) -> None:
    """An alias that may be set: not one that means something by itself."""
    check_alias(alias)
    if alias.lower() == LATEST:
        raise InvalidParameter("'latest' alias name (case insensitive) is reserved.")
    if _VERSION_ALIAS.fullmatch(alias):
        raise InvalidParameter(f"Version alias name '{alias}' is reserved.")


def check_tag(tag: Tag) -> None:
    check_name(tag.key, "key")
    if len(tag.value) > MAX_TAG_VALUE_LENGTH:
        if tag.key == PROMPT_TEXT:
            raise InvalidParameter(f"Prompt text exceeds max length of {MAX_TAG_VALUE_LENGTH} characters.")
        raise InvalidParameter(f"'value' exceeds the maximum length of {MAX_TAG_VALUE_LENGTH} characters")


def tags_by_key(tags: Sequence[Tag]) -> dict[str, str]:
    """Of a key that is given twice the last value counts."""
    return {tag.key: tag.value for tag in tags}


def is_prompt(tags: Mapping[str, str]) -> bool:
    return tags.get(IS_PROMPT, "false").lower() == "true"

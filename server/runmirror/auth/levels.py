"""What may be done to an experiment or a registered model, and the words for it."""

from enum import IntEnum, StrEnum

from runmirror.errors import InvalidParameter
from runmirror.routing import Permission


class Level(IntEnum):
    """Each includes those before it. `DENY` counts more than whatever else is granted."""

    DENY = -1
    NONE = 0
    READ = 1
    EDIT = 2
    MANAGE = 3


class Kind(StrEnum):
    """What a grant can be about: everything else lies in an experiment, or is part of a registered model."""

    EXPERIMENT = "experiment"
    REGISTERED_MODEL = "registered_model"


NEEDED = {Permission.READ: Level.READ, Permission.EDIT: Level.EDIT, Permission.MANAGE: Level.MANAGE}

# The roles by their names in settings, and MLflow's words. A model can be used by whoever can read it: USE is READ.
ROLES = {"none": Level.NONE, "reader": Level.READ, "editor": Level.EDIT, "manager": Level.MANAGE}
_BY_WORD = {
    "DENY": Level.DENY,
    "NO_PERMISSIONS": Level.NONE,
    "READ": Level.READ,
    "USE": Level.READ,
    "EDIT": Level.EDIT,
    "MANAGE": Level.MANAGE,
}
_WORDS = {level: word for word, level in _BY_WORD.items() if word != "USE"}


def parse_level(word: str) -> Level:
    """Raises `InvalidParameter` for a word that MLflow does not have."""
    try:
        return _BY_WORD[word]
    except KeyError:
        raise InvalidParameter(
            f"Invalid permission '{word[:80]}'. Valid permissions are: {', '.join(_BY_WORD)}"
        ) from None


def word_for(level: int) -> str:
    return _WORDS[Level(level)]

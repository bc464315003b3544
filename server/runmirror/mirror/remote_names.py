"""What an experiment is called in the workspace.

Azure ML takes 1 to 255 of ASCII letters, digits, `_` and `-`, beginning with a letter or digit (`azureml-core` enforces
it; the service's own rule is not documented), MLflow nearly anything.
"""

import re

_TAKEN_AS_IT_IS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]*")
_REFUSED = re.compile(r"[^A-Za-z0-9_\-]+")
_ID_ROOM = 25  # the longest id, and what joins it


def experiment_name(name: str, experiment_id: int, longest: int = 255) -> str:
    """The name itself where Azure takes it; else the nearest it takes, with our id, so that no two become one."""
    if _TAKEN_AS_IT_IS.fullmatch(name) and len(name) <= longest:
        return name
    nearest = _REFUSED.sub("_", name).strip("_-")[: max(longest - _ID_ROOM, 1)] or "experiment"
    return f"{nearest}-{experiment_id}"

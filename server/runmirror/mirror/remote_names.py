"""What an experiment is called in the workspace.

Azure ML takes 1 to 255 of ASCII letters, digits, `_` and `-`, beginning with a letter or digit (`azureml-core` enforces
it; the service's own rule is not documented), MLflow nearly anything.
"""

import re

_TAKEN_AS_IT_IS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,254}")
_REFUSED = re.compile(r"[^A-Za-z0-9_\-]+")
_ROOM = 230  # leaves place for the longest id


def experiment_name(name: str, experiment_id: int) -> str:
    """The name itself where Azure takes it; else the nearest it takes, with our id, so that no two become one."""
    if _TAKEN_AS_IT_IS.fullmatch(name):
        return name
    nearest = _REFUSED.sub("_", name).strip("_-")[:_ROOM] or "experiment"
    return f"{nearest}-{experiment_id}"

"""What an experiment and a registered model are called in the workspace.

Azure ML takes 1 to 255 of ASCII letters, digits, `_` and `-`, beginning with a letter or digit (`azureml-core` enforces
it; the service's own rule is not documented), MLflow nearly anything. Of a model's name it takes `.` as well.
"""

import re

_TAKEN_AS_IT_IS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]*")
_TAKEN_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}")
_MODEL_ROOM = 230  # leaves place for the longest id
_REFUSED = re.compile(r"[^A-Za-z0-9_\-]+")
_ID_ROOM = 25  # the longest id, and what joins it


def experiment_name(name: str, experiment_id: int, longest: int = 255) -> str:
    """The name itself where Azure takes it; else the nearest it takes, with our id, so that no two become one."""
    if _TAKEN_AS_IT_IS.fullmatch(name) and len(name) <= longest:
        return name
    nearest = _REFUSED.sub("_", name).strip("_-")[: max(longest - _ID_ROOM, 1)] or "experiment"
    return f"{nearest}-{experiment_id}"


def model_names(name: str, registered_model_id: int) -> tuple[str, ...]:
    """The names a registered model may have, the best first; the last one has our id."""
    nearest = re.sub(r"[^A-Za-z0-9_.\-]+", "_", name).strip("_.-")[:_MODEL_ROOM] or "model"
    own = f"{nearest}-{registered_model_id}"
    return (name, own) if _TAKEN_MODEL.fullmatch(name) else (own,)

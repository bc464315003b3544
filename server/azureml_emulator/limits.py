"""What Azure ML refuses: every limit is a field here and can be changed while the emulator runs."""

import re
from dataclasses import dataclass
from typing import Any

from azureml_emulator.errors import AzureError, InvalidParameter

MIB = 1024 * 1024


@dataclass
class Limits:
    """The documented or observed limits of the service."""

    params_per_run: int = 200
    metric_names_per_run: int = 50
    points_per_metric_name: int = 1_000_000
    metrics_per_batch: int = 200
    values_per_metric_in_batch: int = 250
    params_per_batch: int = 100
    tags_per_batch: int = 100
    tags_per_run: int = 50
    tag_key: int = 100
    tag_value: int = 1000
    metric_name: int = 255
    param_key: int = 255
    param_value: int = 500
    run_name: int = 256
    run_description: int = 5000
    run_properties: int = 50
    run_inputs: int = 200
    experiment_name: int = 255
    experiment_tags: int = 50
    experiment_tag_key: int = 250
    experiment_tag_value: int = 1000
    artifact_path: int = 5000
    artifacts_per_batch: int = 100
    metric_columns: int = 15
    request_body: int = MIB

    # Patterns are facts of the service, not sizes, and stay as they are.
    EXPERIMENT_NAME = re.compile(r"[a-zA-Z0-9][\w\-]*", re.ASCII)
    RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}", re.ASCII)
    MODEL_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-._]{0,254}")


class OverLimit(AzureError):
    """A field is longer, or a list larger, than the service keeps."""

    status, code, error_code = 400, "ValidationError", "INVALID_PARAMETER_VALUE"

    def __init__(self, field: str, limit: int, size: int) -> None:
        super().__init__(
            f"A field of the entity is over the size limit. FieldName={field}, Limit={limit}, Size={size}. "
            "See https://aka.ms/azure-machine-learning-limits for service limits documentation."
        )


def at_most(limit: int, size: int, field: str) -> None:
    """Refuse a size above its limit in the words of the service."""
    if size > limit:
        raise OverLimit(field, limit, size)


def check_experiment_name(limits: Limits, name: str) -> None:
    """Refuse names that azureml-core could not open again."""
    at_most(limits.experiment_name, len(name), "ExperimentName")
    if not Limits.EXPERIMENT_NAME.fullmatch(name):
        raise InvalidParameter(
            f"Experiment name '{name}' is invalid: it must start with a letter or digit and hold only "
            "letters, digits, underscores and dashes"
        )


def check_tag(limits: Limits, key: str, value: str) -> None:
    """Hold one run tag against its two lengths."""
    at_most(limits.tag_key, len(key), "Tags/Key")
    at_most(limits.tag_value, len(value), f"Tags/Value/{key}")


def check_experiment_tag(limits: Limits, key: str, value: str) -> None:
    """Hold one experiment tag against its two lengths."""
    at_most(limits.experiment_tag_key, len(key), "Tags/Key")
    at_most(limits.experiment_tag_value, len(value), f"Tags/Value/{key}")


def check_param(limits: Limits, key: str, value: str) -> None:
    """Hold one param against its two lengths."""
    at_most(limits.param_key, len(key), "Parameters/Key")
    at_most(limits.param_value, len(value), f"Parameters/Value/{key}")


def change(limits: Limits, wanted: dict[str, Any]) -> None:
    """Set limits by name; an unknown name or a value that is no size changes nothing."""
    for name, value in wanted.items():
        if name not in limits.__dataclass_fields__:
            raise InvalidParameter(f"Unknown limit '{name}'")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InvalidParameter(f"Limit '{name}' must be a whole number")
    for name, value in wanted.items():
        setattr(limits, name, value)

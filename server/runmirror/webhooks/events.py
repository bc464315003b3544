"""The events a webhook may ask for, and what each one says.

Source: `mlflow.entities.webhook` (which actions an entity has), `mlflow.webhooks.types` (the payloads). Nothing here
ever exceeds a budget policy, since runmirror is no gateway; a webhook may ask for that event and be tested with it.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Payload = Mapping[str, Any]

_MODEL = {"name": "example_model"}
_MODEL_VERSION = {**_MODEL, "version": "1"}
_PROMPT = {"name": "example_prompt"}
_PROMPT_VERSION = {**_PROMPT, "version": "1"}
_KEY = {"key": "example_key"}
_KEY_VALUE = {**_KEY, "value": "example_value"}
_ALIAS = {"alias": "example_alias"}
_TAGS = {"tags": {"example_key": "example_value"}}

# What a webhook is sent when it is tested: the same as MLflow sends.
EXAMPLES: dict[str, Payload] = {
    "registered_model.created": {**_MODEL, **_TAGS, "description": "An example registered model"},
    "model_version.created": {
        **_MODEL_VERSION, "source": "models:/123", "run_id": "abcd1234abcd5678", **_TAGS,
        "description": "An example model version",
    },
    "model_version_tag.set": {**_MODEL_VERSION, **_KEY_VALUE},
    "model_version_tag.deleted": {**_MODEL_VERSION, **_KEY},
    "model_version_alias.created": {**_MODEL, **_ALIAS, "version": "1"},
    "model_version_alias.deleted": {**_MODEL, **_ALIAS},
    "prompt.created": {**_PROMPT, **_TAGS, "description": "An example prompt"},
    "prompt_version.created": {
        **_PROMPT_VERSION, "template": "Hello {{name}}!", **_TAGS, "description": "An example prompt version",
    },
    "prompt_tag.set": {**_PROMPT, **_KEY_VALUE},
    "prompt_tag.deleted": {**_PROMPT, **_KEY},
    "prompt_version_tag.set": {**_PROMPT_VERSION, **_KEY_VALUE},
    "prompt_version_tag.deleted": {**_PROMPT_VERSION, **_KEY},
    "prompt_alias.created": {**_PROMPT, **_ALIAS, "version": "1"},
    "prompt_alias.deleted": {**_PROMPT, **_ALIAS},
    "budget_policy.exceeded": {
        "budget_policy_id": "bp-abc123", "budget_unit": "USD", "budget_amount": 100.0, "current_spend": 105.5,
        "duration_unit": "MONTHS", "duration_value": 1, "target_scope": "ENDPOINT", "workspace": "default",
        "target_value": "ep-abc123", "window_start": 1704067200000,
    },
}  # fmt: skip


def actions_of(entity: str) -> list[str]:
    return sorted(action for known, action in (event.split(".") for event in EXAMPLES) if known == entity)


def body_of(event: str, data: Payload) -> str:
    """What is sent, now, for `event`."""
    entity, action = event.split(".")
    return json.dumps({"entity": entity, "action": action, "timestamp": datetime.now(UTC).isoformat(), "data": data})

"""JSON inside a text, as clients send it."""

import json
from typing import Any

from runmirror.errors import InvalidParameter


def parse(text: str, parameter: str) -> Any:
    """The value. Raises `InvalidParameter` when the text is no JSON, or nests too deep to be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(
            f"Invalid value for parameter '{parameter}' supplied: no valid JSON ({error})."
        ) from None


def parse_object(text: str, parameter: str) -> dict[str, Any]:
    """The object. Raises `InvalidParameter` when the text is anything else."""
    found = parse(text, parameter)
    if not isinstance(found, dict):
        raise InvalidParameter(f"Invalid value for parameter '{parameter}' supplied: expected a JSON object.")
    return found

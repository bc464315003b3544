"""Reading request bodies: what is missing or of the wrong type is refused by name."""

import json
from typing import Any

from starlette.requests import Request

from azureml_emulator.errors import BodyTooLarge, InvalidParameter

Json = dict[str, Any]


async def read_any(request: Request, limit: int | None = None) -> Any:
    """Parse the body, whatever kind of JSON its content type claims to be."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if limit is not None and len(body) > limit:
            raise BodyTooLarge(f"Request body is over the limit of {limit} bytes")
    try:
        return json.loads(body or b"{}")
    except ValueError:
        raise InvalidParameter("The request body is not JSON") from None


async def read_json(request: Request, limit: int | None = None) -> Json:
    """Parse the body as an object."""
    value = await read_any(request, limit)
    if not isinstance(value, dict):
        raise InvalidParameter("The request body is not a JSON object")
    return value


def optional_text(body: Json, key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidParameter(f"'{key}' must be a string")
    return value


def text(body: Json, key: str) -> str:
    """A string that must be there and not be empty."""
    value = optional_text(body, key)
    if not value:
        raise InvalidParameter(f"Missing value for required parameter '{key}'")
    return value


def optional_integer(body: Json, key: str) -> int | None:
    """A whole number; protobuf's JSON may write it as a string."""
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidParameter(f"'{key}' must be an integer")


def integer(body: Json, key: str) -> int:
    value = optional_integer(body, key)
    if value is None:
        raise InvalidParameter(f"Missing value for required parameter '{key}'")
    return value


def number(body: Json, key: str) -> float:
    """A number; NaN and the infinities come as strings."""
    value = body.get(key)
    if value in ("NaN", "Infinity", "-Infinity") or (isinstance(value, int | float) and not isinstance(value, bool)):
        return float(value)
    raise InvalidParameter(f"'{key}' must be a number, got {value!r}")


def objects(body: Json, key: str) -> list[Json]:
    """A list of objects, empty when absent."""
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InvalidParameter(f"'{key}' must be a list of objects")
    return value


def texts(body: Json, key: str) -> list[str]:
    """A list of strings, empty when absent."""
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise InvalidParameter(f"'{key}' must be a list of strings")
    return value


def text_map(body: Json, key: str) -> dict[str, str | None]:
    """An object of strings, empty when absent; a null value stays."""
    value = body.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidParameter(f"'{key}' must be an object")
    return {str(name): None if entry is None else str(entry) for name, entry in value.items()}


def written_number(value: float) -> float | str:
    """A number as JSON can carry it."""
    if value != value:  # noqa: PLR0124 - only NaN differs from itself
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value

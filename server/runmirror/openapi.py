"""The OpenAPI document says what every route takes and can answer, where FastAPI does not know it.

FastAPI writes 422 with a shape of its own to each operation; we never answer so. `null` is an absent field, as for
MLflow, and a route that answers files answers them in their own types.
"""

from typing import Any

from fastapi import FastAPI, Response
from fastapi.routing import APIRoute

from runmirror.routing import routes_of

_ERROR = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
}
_ANSWERS = {
    "4XX": "The request was refused; the message says why. 429: nothing was done, come again after Retry-After.",
    "501": "Known, and not served.",
    "503": "What is behind us is away, and whether the request took effect is not known.",
    "504": "The database needed too long.",
}
_FILES = {
    "200": {"description": "In its own type, or nothing."},
    "206": {"description": "The part that `Range` asked for."},
    "304": {"description": "The client has this version already."},
}


def describe(app: FastAPI) -> None:
    """Have the app tell its document so."""
    written = app.openapi

    def told() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = written()
            _complete(document, files=_operations_of_files(app))
            _rename_bounds(document)
        return app.openapi_schema or {}

    app.openapi = told  # type: ignore[method-assign]


def _operations_of_files(app: FastAPI) -> set[str | None]:
    """Those that make their answer themselves, and do not say of what shape it is."""
    routes = [context.original_route for context in routes_of(app)]
    return {
        route.operation_id
        for route in routes
        if isinstance(route, APIRoute)
        and route.response_model is None
        and route.endpoint.__annotations__.get("return") is Response
    }


def _complete(document: dict[str, Any], files: set[str | None]) -> None:
    for path in document["paths"].values():
        for operation in path.values():
            answers = operation["responses"]
            answers.pop("422", None)
            if operation["operationId"] in files:
                answers |= _FILES
            for status, text in _ANSWERS.items():
                answers.setdefault(status, _error(text))
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for schema in schemas.values():
        required = set(schema.get("required", ()))
        for name, field in schema.get("properties", {}).items():
            if name not in required:
                schema["properties"][name] = _or_null(field)
    schemas["Error"] = _ERROR


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    if {"type": "null"} in field.get("anyOf", ()):
        return field
    said = {name: field[name] for name in ("title", "default", "description") if name in field}
    return said | {"anyOf": [{name: value for name, value in field.items() if name not in said}, {"type": "null"}]}


def _rename_bounds(part: Any) -> None:
    """As JSON Schema calls them: pydantic passes on its own names from behind a validator."""
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _rename_bounds(inner)
    if isinstance(part, dict) and part.get("type") in {"integer", "number"}:
        for name, renamed in (("ge", "minimum"), ("le", "maximum")):
            if name in part:
                part[renamed] = part.pop(name)


def _error(description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": description, "content": content}

"""The OpenAPI document says what every route can answer: its own answer, and errors as MLflow shapes them.

FastAPI writes 422 with a shape of its own to each operation; we never answer so.
"""

from typing import Any

from fastapi import FastAPI

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


def describe(app: FastAPI) -> None:
    """Have the app tell its document with these answers."""
    written = app.openapi

    def told() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = written()
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    operation["responses"] |= {status: _error(text) for status, text in _ANSWERS.items()}
            schemas = document["components"]["schemas"]
            schemas["Error"] = _ERROR
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
        return app.openapi_schema or {}

    app.openapi = told  # type: ignore[method-assign]


def _error(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }

"""The emulator's error tree, and the shape in which each Azure service says the same thing."""

import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import escape

from starlette.responses import JSONResponse, Response

Json = dict[str, Any]


class AzureError(Exception):
    """A refusal: HTTP status, the service's code, MLflow's error_code and the specific inner code."""

    status = 400
    code = "UserError"
    error_code = "INVALID_PARAMETER_VALUE"
    inner = "BadArgument"

    def __init__(self, message: str, *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.status = status or self.status


class InvalidParameter(AzureError):
    """The request is not one the service can read."""


class BodyTooLarge(AzureError):
    """The request body is over the service's limit."""

    status, code, inner = 413, "RequestBodyTooLarge", "RequestBodyTooLarge"


class NotFound(AzureError):
    """The thing named does not exist."""

    status, error_code, inner = 404, "RESOURCE_DOES_NOT_EXIST", "NotFoundError"


class UnknownRoute(NotFound):
    """Nothing of this emulator answers there; the control port lists such requests."""

    code, error_code, inner = "NotFound", "ENDPOINT_NOT_FOUND", "RouteNotFound"


class AlreadyExists(AzureError):
    """The thing named exists, and names are unique."""

    status, error_code, inner = 400, "RESOURCE_ALREADY_EXISTS", "ConflictError"


class ResourceConflict(AzureError):
    """A write-once thing would have been written twice."""

    status, error_code, inner = 409, "RESOURCE_CONFLICT", "ConflictError"


class Unauthorized(AzureError):
    """No token, or one that proves nothing here."""

    status, code, inner = 401, "InvalidAuthenticationToken", "AuthorizationError"


class BlobError(AzureError):
    """A refusal in blob storage's words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message, code=code, status=status)


class Internal(AzureError):
    """The emulator itself failed: its standard error says why."""

    status, code, error_code, inner = 500, "ServiceError", "INTERNAL_ERROR", "InternalServerError"


def _now() -> str:
    return datetime.now(UTC).isoformat()


def camel_body(error: AzureError) -> Json:
    """The error of the history, artifact and metric services."""
    return {
        "error": {
            "code": error.code,
            "severity": None,
            "message": error.message,
            "messageFormat": None,
            "messageParameters": {},
            "referenceCode": None,
            "detailsUri": None,
            "target": None,
            "details": [],
            "innerError": {"code": error.inner, "innerError": None},
            "debugInfo": None,
            "additionalInfo": None,
        },
        "correlation": {"operation": secrets.token_hex(16), "request": secrets.token_hex(8)},
        "environment": "emulator",
        "location": "emulator",
        "time": _now(),
        "componentName": "run-history",
        "statusCode": error.status,
    }


def answer_mlflow(error: AzureError) -> Response:
    """The MLflow endpoint answers in PascalCase and adds what MLflow's clients branch on."""
    body = {
        "Error": {
            "Code": error.code,
            "Severity": None,
            "Message": error.message,
            "MessageFormat": None,
            "MessageParameters": None,
            "ReferenceCode": None,
            "DetailsUri": None,
            "Target": None,
            "Details": [],
            "InnerError": None,
            "DebugInfo": None,
            "AdditionalInfo": None,
        },
        "Correlation": {"operation": secrets.token_hex(16), "request": secrets.token_hex(8)},
        "Environment": "emulator",
        "Location": "emulator",
        "Time": _now(),
        "ComponentName": "mlflow",
        "statusCode": error.status,
        "error_code": error.error_code,
    }
    return JSONResponse(body, error.status)


def answer_camel(error: AzureError) -> Response:
    """Run history and its neighbours."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(camel_body(error), error.status, headers)


def answer_arm(error: AzureError) -> Response:
    """Resource Manager."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse({"error": {"code": error.code, "message": error.message}}, error.status, headers)


def answer_models(error: AzureError) -> Response:
    """Model management."""
    body = {
        "code": error.code,
        "statusCode": error.status,
        "message": error.message,
        "details": [{"code": error.inner, "message": error.message}],
        "correlation": {"RequestId": secrets.token_hex(8)},
    }
    return JSONResponse(body, error.status)


def answer_plain(error: AzureError) -> Response:
    """The emulator's own control port."""
    return JSONResponse({"error": error.message}, error.status)


def answer_blob(error: AzureError) -> Response:
    """Blob storage speaks XML and repeats the code in a header."""
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
    )
    headers = {"x-ms-error-code": error.code, "x-ms-request-id": secrets.token_hex(16)}
    return Response(body, error.status, headers, media_type="application/xml")


def answer_oauth(error: AzureError) -> Response:
    """Entra: the OAuth error word is the code, the AADSTS number starts the message."""
    number = error.message.split(":", 1)[0].removeprefix("AADSTS")
    body = {
        "error": error.code,
        "error_description": error.message,
        "error_codes": [int(number)] if number.isdigit() else [],
        "timestamp": _now(),
        "trace_id": secrets.token_hex(16),
        "correlation_id": secrets.token_hex(16),
    }
    return JSONResponse(body, error.status)

"""How an error of ours becomes an HTTP answer, for handlers and middleware alike."""

from fastapi.responses import JSONResponse

from runmirror.errors import RunmirrorError, Unauthenticated


def error_answer(error: RunmirrorError, *, status: int | None = None) -> JSONResponse:
    """MLflow's shape of an error."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = error.challenge
    body = {"error_code": error.code, "message": error.message}
    return JSONResponse(body, status_code=status or error.status, headers=headers)

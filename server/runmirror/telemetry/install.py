"""Whether traces are sent, and where to."""

from typing import TYPE_CHECKING

from runmirror.settings import Settings

if TYPE_CHECKING:
    from runmirror.telemetry.tracing import Tracing


def open_tracing(settings: Settings, service: str) -> "Tracing | None":
    """None unless the settings name a place. Raises `RuntimeError` without the packages for it."""
    endpoint = settings.otel_traces_endpoint
    if not endpoint and settings.otel_endpoint:
        endpoint = f"{settings.otel_endpoint.rstrip('/')}/v1/traces"
    if not endpoint or settings.otel_sdk_disabled:
        return None
    try:
        from runmirror.telemetry.tracing import Tracing  # noqa: PLC0415 - only who sends traces needs it
    except ImportError as error:
        raise RuntimeError(
            f"to send traces to {endpoint}, install 'runmirror[otel]' ({error.name} is missing)"
        ) from error
    return Tracing(endpoint, service)

"""What `activate()` does: environment variables first, so that child processes start with them."""

import os
import re
import sys
from collections.abc import MutableMapping
from typing import Optional
from urllib.parse import urlsplit

TRACKING_URI = "RUNMIRROR_TRACKING_URI"
AUTH_PROVIDER = "runmirror"
_AZURE_EXPERIMENT_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Credentials for another server: where they are set MLflow takes them, and sends them to whatever server it has.
_FOREIGN_CREDENTIALS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def activate(tracking_uri: Optional[str] = None) -> str:  # noqa: UP045 - jobs may have Python 3.9
    """Log to the server at `tracking_uri` (or RUNMIRROR_TRACKING_URI) from here on, in child processes too.

    Call it before the first run is started; again is fine. `MLFLOW_RUN_ID` stays: the server adopts the job's run. The
    answer is the server's address. Raises `ValueError` when there is none.
    """
    uri = (tracking_uri or os.environ.get(TRACKING_URI) or "").rstrip("/")
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(
            f"{uri!r} is not the address of a runmirror server: pass https://…, or set {TRACKING_URI}"
            if uri
            else f"the address of the runmirror server is missing: pass it, or set {TRACKING_URI}"
        )
    _set_environment(os.environ, uri)
    # What a process that has imported MLflow was told before goes before its environment.
    import mlflow  # noqa: PLC0415 - the variables have to be there before MLflow looks at them

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    _forget_providers()
    return uri


def _set_environment(environment: MutableMapping[str, str], uri: str) -> None:
    # A user's own for this very server stay; a job's are Azure ML's, whatever the address beside them.
    already_there = environment.get("MLFLOW_TRACKING_URI", "").rstrip("/") == uri and not _is_job(environment)
    environment[TRACKING_URI] = environment["MLFLOW_TRACKING_URI"] = environment["MLFLOW_REGISTRY_URI"] = uri
    if not already_there:
        for name in _FOREIGN_CREDENTIALS:
            environment.pop(name, None)
    environment["MLFLOW_TRACKING_AUTH"] = AUTH_PROVIDER
    # MLflow takes both for one experiment; of the two, the name is the one that means the same here. By itself an id of
    # Azure ML's is understood by the server.
    given = environment.get("MLFLOW_EXPERIMENT_ID", "")
    if environment.get("MLFLOW_EXPERIMENT_NAME") and _AZURE_EXPERIMENT_ID.fullmatch(given):
        del environment["MLFLOW_EXPERIMENT_ID"]


def _is_job(environment: MutableMapping[str, str]) -> bool:
    return "AZUREML_RUN_ID" in environment or "AZUREML_RUN_TOKEN" in environment


def _forget_providers() -> None:
    """A provider that was registered before knows another address or token."""
    if (auth := sys.modules.get("runmirror_client.auth")) is not None:
        auth.forget()

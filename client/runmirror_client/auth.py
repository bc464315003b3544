"""Signs MLflow's requests to the runmirror server: chosen by MLFLOW_TRACKING_AUTH=runmirror."""

import os
import threading
import time
from typing import Any, Optional
from urllib.parse import urlsplit

from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from requests import PreparedRequest
from requests.auth import AuthBase

from runmirror_client.guard import AUTH_PROVIDER, TRACKING_URI

TOKEN = "RUNMIRROR_TOKEN"  # noqa: S105 - the name of a variable
SCOPE = "RUNMIRROR_TOKEN_SCOPE"
_RENEW_BEFORE_S = 300.0
_RETRY_S = 30.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}


class EntraTokens:
    """Tokens of one scope: kept while they last, renewed before they end. The process's threads share them."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._lock = threading.Lock()
        self._credential: Any = None
        self._token = ""
        self._expires_at = self._renew_at = 0.0

    def get(self) -> str:
        """Raises what azure-identity raises when there is no token to be had and the last one has ended."""
        with self._lock:
            if time.time() >= self._renew_at:
                self._renew()
            return self._token

    def _renew(self) -> None:
        try:
            # A new object each time: an old one may answer from a cache that is about to end.
            got = _credential().get_token(self._scope)
        except Exception:
            now = time.time()
            if now >= self._expires_at:
                raise
            self._renew_at = min(now + _RETRY_S, self._expires_at)
            return
        now = time.time()
        self._token, self._expires_at = got.token, float(got.expires_on)
        self._renew_at = self._expires_at - min(_RENEW_BEFORE_S, (self._expires_at - now) / 2)


def _credential() -> Any:
    try:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(f"{SCOPE} is set: pip install 'runmirror-client[entra]'") from error
    # A job's compute names its own identity so.
    client_id = os.environ.get("AZURE_CLIENT_ID") or os.environ.get("DEFAULT_IDENTITY_CLIENT_ID")
    return DefaultAzureCredential(managed_identity_client_id=client_id)


_tokens: dict[str, EntraTokens] = {}
_tokens_lock = threading.Lock()


def forget() -> None:
    """Tokens belong to the settings under which they were fetched."""
    with _tokens_lock:
        _tokens.clear()


def _entra_token(scope: str) -> str:
    with _tokens_lock:
        tokens = _tokens.setdefault(scope, EntraTokens(scope))
    return tokens.get()


class RunmirrorAuth(AuthBase):
    """Adds a token to requests to the server, and to no other."""

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        if _goes_to_server(r.url or "") and (token := _token()):
            r.headers["Authorization"] = f"Bearer {token}"
        return r


def _token() -> Optional[str]:  # noqa: UP045 - jobs may have Python 3.9
    if token := os.environ.get(TOKEN):
        return token
    scope = os.environ.get(SCOPE)
    return _entra_token(scope) if scope else None


def _goes_to_server(url: str) -> bool:
    """Whether the request is to the server's scheme, host and port, and nobody on the way can read it."""
    server, asked = _origin(os.environ.get(TRACKING_URI, "")), _origin(url)
    scheme, host, _ = asked
    return asked == server and host != "" and (scheme == "https" or host in _LOOPBACK)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)


class RunmirrorAuthProvider(RequestAuthProvider):
    """What MLflow finds by the entry point."""

    def get_name(self) -> str:
        return AUTH_PROVIDER

    def get_auth(self) -> RunmirrorAuth:
        return RunmirrorAuth()

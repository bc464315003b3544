"""Tokens for Azure from azure-identity: renewed before they expire, and once more when one is refused."""

import asyncio
import base64
import json
import logging
import time
from dataclasses import dataclass

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.identity import CredentialUnavailableError, DefaultAzureCredential

from runmirror.mirror.keeper import clock_s
from runmirror.mirror.redact import redact
from runmirror.mirror.target import TargetOutage, TargetUnauthorized, TargetUnavailable
from runmirror.settings import Settings

log = logging.getLogger(__name__)

_RENEW_BEFORE_S = 300.0
_RETRY_RENEWAL_S = 30.0
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    expires_at: float  # on `clock_s`, which nobody sets back
    renew_at: float


class Tokens:
    """The current token of one scope, whichever credential of `DefaultAzureCredential`'s chain gives it.

    Every renewal asks a new credential object: an old one may answer from a cache that is about to expire.
    """

    def __init__(self, settings: Settings) -> None:
        self._scope = settings.azureml_arm_endpoint.rstrip("/") + "/.default"
        self._ca_bundle = settings.ca_bundle
        self._token: _Token | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> str:
        """A token that lives a while. Raises `TargetUnauthorized` or `TargetUnavailable`."""
        token = self._token
        if token is None or clock_s() >= token.renew_at:
            async with self._lock:
                token = self._token
                if token is None or clock_s() >= token.renew_at:
                    token = await self._renew()
        return token.text

    async def replace(self, refused: str) -> str:
        """Another token than `refused`, unless somebody else has fetched one meanwhile."""
        async with self._lock:
            token = self._token
            if token is None or token.text == refused:
                self._token = None
                token = await self._renew()
        return token.text

    async def tenant_id(self) -> str | None:
        """The tenant the token is of, as far as it can be read."""
        try:
            payload = (await self.get()).split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            return str(claims["tid"])
        except (IndexError, ValueError, KeyError, TypeError):
            return None

    async def _renew(self) -> _Token:
        try:
            text, lifetime_s = await self._ask()
        except TargetOutage as error:
            old = self._token
            if old is not None and clock_s() < old.expires_at:
                log.warning("token not renewed, the old one still lives: %s", error)
                wait = min(_RETRY_RENEWAL_S, (old.expires_at - clock_s()) / 2)
                self._token = _Token(old.text, old.expires_at, clock_s() + wait)
                return self._token
            raise
        now = clock_s()
        renew_at = now + lifetime_s - min(_RENEW_BEFORE_S, lifetime_s / 2)
        self._token = _Token(text, now + lifetime_s, renew_at)
        return self._token

    async def _ask(self) -> tuple[str, float]:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await asyncio.to_thread(self._ask_blocking)
        except TimeoutError:
            raise TargetUnavailable("no token from Microsoft Entra in time") from None
        except (ClientAuthenticationError, CredentialUnavailableError) as error:
            raise TargetUnauthorized(f"no token from Microsoft Entra: {redact(str(error.message))}") from None
        except AzureError as error:
            raise TargetUnavailable(f"no token from Microsoft Entra: {redact(str(error.message))}") from None
        except (OSError, ValueError) as error:
            raise TargetUnauthorized(f"no token from Microsoft Entra: {redact(str(error))}") from None

    def _ask_blocking(self) -> tuple[str, float]:
        # requests, below azure-identity, reads REQUESTS_CA_BUNDLE but not SSL_CERT_FILE: an explicit path serves both.
        trust = {} if self._ca_bundle is None else {"connection_verify": self._ca_bundle}
        with DefaultAzureCredential(retry_total=1, connection_timeout=10, read_timeout=30, **trust) as credential:
            token = credential.get_token(self._scope)
        return token.token, max(token.expires_on - time.time(), 0.0)

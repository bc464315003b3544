"""Access tokens of an OpenID Connect issuer, Microsoft Entra ID above all: whether one is good, and what it says.

Keys are fetched when a token names one that is not known, at most every `ASK_AGAIN_S`, and anew every `KEYS_LIFE_S`.
While the issuer cannot be reached the known ones go on being good.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from pydantic import BaseModel, ConfigDict, ValidationError

from runmirror.errors import Busy

log = logging.getLogger(__name__)

ASK_AGAIN_S = 30.0
KEYS_LIFE_S = 24 * 3600.0
_ALGORITHMS = ["RS256"]
_LEEWAY_S = 60
TIMEOUT_S = 5.0
_MOST_BYTES = 1024 * 1024


class Claims(BaseModel):
    """What a good token says, as far as it matters here; `oid` is who it is in Entra, `sub` elsewhere."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sub: str
    exp: int
    oid: str = ""
    preferred_username: str = ""
    upn: str = ""
    appid: str = ""
    azp: str = ""
    nonce: str = ""
    roles: list[str] = []
    groups: list[str] = []

    @property
    def who(self) -> str:
        return self.oid or self.sub

    @property
    def claimed(self) -> list[str]:
        """The names of groups here that they are in, as far as there are any."""
        return [name for name in (*self.roles, *self.groups) if "\0" not in name]

    @property
    def shown(self) -> str:
        """For people: others may have had this name before, so nothing is granted by it."""
        return self.preferred_username or self.upn or self.appid


class Endpoints(BaseModel):
    """Where the issuer has browsers sign in, as it says itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    authorization_endpoint: str
    token_endpoint: str
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]
    authorization_response_iss_parameter_supported: bool = False


class Issuer:
    """Checks signature, issuer, audience and times of tokens, by keys that are fetched from the issuer."""

    def __init__(self, issuer: str, audience: str, ca_bundle: str | None = None) -> None:
        self._issuer, self._audience = issuer, audience
        self.tls = ssl.create_default_context(cafile=ca_bundle)
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._about: Mapping[str, Any] = {}
        self._asked_at = self._fetched_at = -KEYS_LIFE_S
        self._fetching = asyncio.Lock()

    @property
    def name(self) -> str:
        return self._issuer

    async def endpoints(self) -> Endpoints:
        """Raises `Busy` while the issuer cannot be asked, and `ValueError` for one without any to be trusted."""
        await self._key("")
        found = Endpoints.model_validate(self._about)
        check_address(found.authorization_endpoint)
        check_address(found.token_endpoint)
        return found

    async def claims(self, token: str, *, audience: str | None = None) -> Claims | None:
        """None for a token that is not good. Raises `Busy` when that cannot be told, for want of any keys."""
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            if key is None:
                return None
            told = jwt.decode(
                token, key, algorithms=_ALGORITHMS, audience=audience or self._audience, issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )  # fmt: skip
            return Claims.model_validate(told)
        except (jwt.PyJWTError, ValidationError, ValueError):
            return None

    async def _key(self, kid: str) -> jwt.PyJWK | None:
        now = time.monotonic()
        is_old = now - self._fetched_at > KEYS_LIFE_S
        if (kid not in self._keys or is_old) and now - self._asked_at > ASK_AGAIN_S:
            async with self._fetching:
                if time.monotonic() - self._asked_at > ASK_AGAIN_S:  # nobody else did meanwhile
                    await self._fetch()
        if not self._keys:
            raise Busy("The keys of the identity provider cannot be fetched; try again.")
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        self._asked_at = time.monotonic()
        try:
            async with httpx.AsyncClient(verify=self.tls, timeout=TIMEOUT_S, follow_redirects=False) as client:
                about = await _json(client, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                if about.get("issuer") != self._issuer:
                    raise ValueError(f"it calls itself {about.get('issuer')!r}")
                told = await _json(client, check_address(str(about.get("jwks_uri", ""))))
            keys = {str(key["kid"]): jwt.PyJWK(key, "RS256") for key in told["keys"] if _is_for_signatures(key)}
        except (httpx.HTTPError, jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the keys of %s cannot be fetched: %s: %s", self._issuer, type(error).__name__, error)
            return
        self._keys, self._about, self._fetched_at = keys, about, time.monotonic()


def check_address(url: str) -> str:
    """Raises `ValueError` for an address that anybody on the way could answer for: https, or this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}):
        return url
    raise ValueError(f"{url!r} is not an https address")


def _is_for_signatures(key: Mapping[str, Any]) -> bool:
    return key.get("kty") == "RSA" and key.get("use", "sig") == "sig" and "kid" in key


async def _json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    return await read_json(client.stream("GET", url))


async def read_json(asked: AbstractAsyncContextManager[httpx.Response]) -> dict[str, Any]:
    """The JSON object of an answer that is neither an error nor too long. Raises `httpx.HTTPError`, `ValueError`."""
    async with asked as answer:
        answer.raise_for_status()
        body = b""
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > _MOST_BYTES:
                raise ValueError("its answer is too long")
    told = httpx.Response(200, content=body).json()
    if not isinstance(told, dict):
        raise ValueError("its answer is no JSON object")
    return told

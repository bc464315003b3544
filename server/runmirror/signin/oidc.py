"""OpenID Connect's authorization code flow, with PKCE, state and nonce: what is asked of the provider, and believed."""

import base64
import hashlib
import hmac
import logging
import secrets
import time
from typing import Annotated
from urllib.parse import quote, urlencode, urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from runmirror.auth.issuer import TIMEOUT_S, Claims, Endpoints, Issuer, read_json
from runmirror.errors import BadRequest, Busy
from runmirror.settings import Settings
from runmirror.signin.places import checked_next

log = logging.getLogger(__name__)

FLOW_S = 600
_SCOPE = "openid profile email"


_Chance = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]  # Rust has no \Z, and its $ is that


class NotSignedIn(BadRequest):
    """For people; what the provider said is in the log and not in the answer."""


class Flow(BaseModel):
    """What a browser keeps in a cookie while it is at the provider: whoever comes back has to be the one that left."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: _Chance
    nonce: _Chance
    verifier: _Chance
    next: str
    begun_at: int

    @classmethod
    def begin(cls, place: str) -> "Flow":
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(state=state, nonce=nonce, verifier=verifier, next=checked_next(place), begun_at=int(time.time()))

    @classmethod
    def read(cls, cookie: str | None) -> "Flow | None":
        """None for what cannot be one, and for one that took too long."""
        try:
            flow = cls.model_validate_json(base64.urlsafe_b64decode(cookie or ""))
        except (ValueError, ValidationError):
            return None
        checked_next(flow.next)
        return flow if 0 <= time.time() - flow.begun_at <= FLOW_S else None

    @property
    def cookie(self) -> str:
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode()

    @property
    def challenge(self) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()


class Answer(BaseModel):
    """What the provider has the browser bring back."""

    state: str = ""
    code: str = ""
    error: str = ""
    iss: str | None = None


class Provider:
    """The issuer of access tokens, as browsers sign in there."""

    def __init__(self, issuer: Issuer, client_id: str, client_secret: SecretStr | None) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._secret = client_secret.get_secret_value() if client_secret else ""

    async def address(self, flow: Flow, callback: str) -> str:
        """Where the browser goes. Raises `Busy`, and `NotSignedIn` when the provider has no place for it."""
        endpoint = (await self._endpoints()).authorization_endpoint
        asked = {
            "response_type": "code", "client_id": self._client_id, "redirect_uri": callback, "scope": _SCOPE,
            "state": flow.state, "nonce": flow.nonce, "code_challenge": flow.challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(asked)}"

    async def finish(self, flow: Flow | None, answer: Answer, callback: str) -> Claims:
        """Who has signed in. Raises `NotSignedIn` at whatever is not as it was begun, and `Busy`."""
        if flow is None or not hmac.compare_digest(flow.state.encode(), answer.state.encode()):
            raise NotSignedIn("This sign-in was not begun in this browser, or too long ago.")
        endpoints = await self._endpoints()
        if answer.iss is None and endpoints.authorization_response_iss_parameter_supported:
            raise NotSignedIn("The answer does not say which identity provider it is from.")
        if answer.iss not in {None, self._issuer.name}:
            raise NotSignedIn("The answer is from another identity provider.")
        if answer.error or not answer.code:
            log.warning("the identity provider refused a sign-in: %.60r", answer.error)
            raise NotSignedIn("The identity provider did not sign you in.")
        claims = await self._issuer.claims(
            await self._exchange(endpoints, flow, answer.code, callback), audience=self._client_id
        )
        if claims is None or claims.azp not in {"", self._client_id}:
            raise NotSignedIn("The identity provider's answer is not good.")
        if not hmac.compare_digest(claims.nonce.encode(), flow.nonce.encode()):
            raise NotSignedIn("The identity provider's answer is to another sign-in.")
        return claims

    async def _endpoints(self) -> Endpoints:
        try:
            return await self._issuer.endpoints()
        except ValueError as error:
            log.warning("browsers cannot sign in at %s: %s", self._issuer.name, error)
            raise NotSignedIn("The identity provider does not tell where browsers sign in.") from error

    async def _exchange(self, endpoints: Endpoints, flow: Flow, code: str, callback: str) -> str:
        """The ID token for a code, which is good once and only with the verifier."""
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": callback, "client_id": self._client_id,
            "code_verifier": flow.verifier,
        }  # fmt: skip
        basic = None
        if self._secret and "client_secret_basic" in endpoints.token_endpoint_auth_methods_supported:
            basic = httpx.BasicAuth(quote(self._client_id, safe=""), quote(self._secret, safe=""))
        elif self._secret:
            form["client_secret"] = self._secret
        try:
            async with httpx.AsyncClient(verify=self._issuer.tls, timeout=TIMEOUT_S, follow_redirects=False) as client:
                told = await read_json(
                    client.stream("POST", endpoints.token_endpoint, data=form, auth=basic or httpx.USE_CLIENT_DEFAULT)
                )
        except httpx.HTTPError as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
            log.warning("no answer to a sign-in from the identity provider: %s %s", type(error).__name__, status or "")
            if 400 <= status < 500:
                raise NotSignedIn("The identity provider did not confirm the sign-in; begin it again.") from error
            raise Busy("The identity provider cannot be reached; try again.") from error
        except ValueError as error:
            raise NotSignedIn("The identity provider's answer is not good.") from error
        return str(told.get("id_token", ""))


def provider(settings: Settings, issuer: Issuer | None) -> Provider | None:
    """None where browsers cannot sign in so."""
    if issuer is None or not settings.oidc_client_id:
        return None
    return Provider(issuer, settings.oidc_client_id, settings.oidc_client_secret)

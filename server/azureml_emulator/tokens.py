"""Access tokens: signed, bound to an audience, and really expiring."""

import math
import secrets
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from azureml_emulator.errors import Unauthorized

ARM_AUDIENCES = frozenset({"https://management.azure.com", "https://management.core.windows.net"})
RUN_AUDIENCE = "https://run.azureml.ms"
DATA_AUDIENCES = ARM_AUDIENCES | {RUN_AUDIENCE}


class Issuer:
    """Entra's signing key for one tenant: it issues tokens, and the services check them against it."""

    def __init__(self, tenant_id: str) -> None:
        self.tenant_id = tenant_id
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.key_id = secrets.token_hex(8)

    def issue(self, audience: str, subject: str, lifetime: float, **claims: Any) -> str:
        now = time.time()
        payload = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.tenant_id}/",
            "iat": int(now),
            "nbf": int(now),
            # Whole seconds, as Entra writes them; rounded up so that two seconds are never one.
            "exp": math.ceil(now + lifetime),
            "tid": self.tenant_id,
            "appid": subject,
            "oid": subject,
            "sub": subject,
            "idtyp": "app",
            "ver": "1.0",
            "uti": secrets.token_hex(8),
            **claims,
        }
        return jwt.encode(payload, self.key, algorithm="RS256", headers={"kid": self.key_id})

    def check(self, authorization: str, audiences: frozenset[str]) -> dict[str, Any]:
        """Return the claims of a request's bearer token, or refuse with the reason."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("The request has no Bearer token", code="AuthenticationFailed")
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self.key.public_key(), algorithms=["RS256"], options={"verify_aud": False, "require": ["exp"]}
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("The access token expiry UTC time is past", code="ExpiredAuthenticationToken") from None
        except jwt.InvalidTokenError as error:
            raise Unauthorized(f"The access token is invalid: {error}") from None
        if str(claims.get("aud", "")).rstrip("/") not in audiences:
            raise Unauthorized(
                f"The access token is for audience '{claims.get('aud')}', not for this service",
                code="InvalidAuthenticationTokenAudience",
            )
        return claims

    def public_keys(self) -> dict[str, Any]:
        """The key set document of the tenant."""
        key = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {"keys": [{**key, "kid": self.key_id, "use": "sig", "alg": "RS256"}]}

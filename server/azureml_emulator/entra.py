"""Entra: openid-configuration, keys and the client-credentials grant, and managed identity."""

import hmac
import time
from urllib.parse import parse_qsl

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AzureError, NotFound
from azureml_emulator.workspace import LOGIN_HOST

# Resources that every tenant knows; a token for any other cannot be had.
RESOURCES = frozenset(
    {
        "https://management.azure.com",
        "https://management.core.windows.net",
        "https://ml.azure.com",
        "https://storage.azure.com",
        "https://vault.azure.net",
        "https://graph.microsoft.com",
        "https://graph.windows.net",
    }
)
IDENTITY_HEADER = "emulated-identity"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class OAuthError(AzureError):
    """A refused grant: the OAuth word and the AADSTS text."""

    def __init__(self, word: str, text: str, status: int = 400) -> None:
        super().__init__(text, code=word, status=status)


def _check_tenant(emulator: Emulator, request: Request) -> str:
    tenant: str = request.path_params["tenant"]
    if tenant.lower() != emulator.workspace.tenant_id:
        raise OAuthError("invalid_tenant", f"AADSTS90002: Tenant '{tenant}' not found.")
    return tenant


async def openid_configuration(emulator: Emulator, request: Request) -> Response:
    tenant = _check_tenant(emulator, request)
    base = f"https://{LOGIN_HOST}/{tenant}"
    new = "/v2.0/" in request.url.path
    oauth = f"{base}/oauth2/v2.0" if new else f"{base}/oauth2"
    return JSONResponse(
        {
            "token_endpoint": f"{oauth}/token",
            "authorization_endpoint": f"{oauth}/authorize",
            "device_authorization_endpoint": f"{oauth}/devicecode",
            "jwks_uri": f"{base}/discovery/v2.0/keys" if new else f"{base}/discovery/keys",
            "issuer": f"{base}/v2.0" if new else f"https://sts.windows.net/{tenant}/",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "response_types_supported": ["code", "id_token", "token"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "tenant_region_scope": "WW",
            "cloud_instance_name": "microsoftonline.com",
        }
    )


async def keys(emulator: Emulator, request: Request) -> Response:
    _check_tenant(emulator, request)
    return JSONResponse(emulator.issuer.public_keys())


async def instance_discovery(_emulator: Emulator, request: Request) -> Response:
    """Clients with an authority of their own ask which names mean the same cloud."""
    version = request.query_params.get("api-version", "1.1")
    aliases = [LOGIN_HOST, "login.windows.net", "login.microsoft.com", "sts.windows.net"]
    endpoint = f"https://{LOGIN_HOST}/common/v2.0/.well-known/openid-configuration"
    metadata = {"preferred_network": LOGIN_HOST, "preferred_cache": "login.windows.net", "aliases": aliases}
    return JSONResponse({"tenant_discovery_endpoint": endpoint, "api-version": version, "metadata": [metadata]})


async def token(emulator: Emulator, request: Request) -> Response:
    """The client-credentials grant, with a secret or a signed assertion."""
    _check_tenant(emulator, request)
    fields = dict(parse_qsl((await request.body()).decode(errors="replace"), keep_blank_values=True))
    if fields.get("grant_type") != "client_credentials":
        raise OAuthError("unsupported_grant_type", "AADSTS70003: Only client_credentials is emulated.")
    client = fields.get("client_id", "")
    if client.lower() != emulator.workspace.client_id:
        text = f"AADSTS700016: Application with identifier '{client}' was not found in the directory."
        raise OAuthError("unauthorized_client", text)
    _check_credential(emulator, fields)
    audience = _audience(fields)
    lifetime = emulator.settings.token_lifetime
    answer = {
        "token_type": "Bearer",
        "expires_in": int(lifetime),
        "ext_expires_in": int(lifetime),
        "access_token": emulator.issuer.issue(audience, client, lifetime),
    }
    if "resource" in fields:
        # The older endpoint writes numbers as strings.
        expiry = str(int(time.time() + lifetime))
        answer |= {"expires_in": str(int(lifetime)), "expires_on": expiry, "resource": fields["resource"]}
    return JSONResponse(answer)


def _check_credential(emulator: Emulator, fields: dict[str, str]) -> None:
    if "client_assertion" in fields:
        _check_assertion(fields)
    elif "client_secret" not in fields:
        text = "AADSTS7000218: The request body must contain 'client_assertion' or 'client_secret'."
        raise OAuthError("invalid_client", text, 401)
    elif not hmac.compare_digest(fields["client_secret"].encode(), emulator.workspace.client_secret.encode()):
        text = "AADSTS7000215: Invalid client secret provided."
        raise OAuthError("invalid_client", text, 401)


def _check_assertion(fields: dict[str, str]) -> None:
    """Its signature cannot be checked: the emulator knows no certificate of the client's."""
    if fields.get("client_assertion_type") != ASSERTION:
        raise OAuthError("invalid_request", f"AADSTS900144: client_assertion_type must be {ASSERTION}.")
    try:
        jwt.decode(fields["client_assertion"], options={"verify_signature": False, "verify_exp": True})
    except jwt.ExpiredSignatureError:
        text = "AADSTS700024: Client assertion is not within its valid time range."
        raise OAuthError("invalid_client", text, 401) from None
    except jwt.InvalidTokenError:
        raise OAuthError("invalid_client", "AADSTS50027: JWT token is invalid or malformed.", 401) from None


def _audience(fields: dict[str, str]) -> str:
    scope = fields.get("scope")
    if scope is None:
        audience = fields.get("resource", "")
    elif not scope.endswith("/.default"):
        raise OAuthError("invalid_scope", "AADSTS1002012: The scope of client credentials must end with /.default.")
    else:
        audience = scope.removesuffix("/.default")
    if audience.rstrip("/") not in RESOURCES:
        raise OAuthError("invalid_resource", f"AADSTS500011: The resource principal '{audience}' was not found.")
    return audience


async def managed_identity(emulator: Emulator, request: Request) -> Response:
    """The App Service kind of managed identity, on the control port because it is plain HTTP."""
    if request.headers.get("x-identity-header") != IDENTITY_HEADER:
        raise NotFound("Wrong or missing X-IDENTITY-HEADER")
    resource = request.query_params.get("resource", "")
    audience = _audience({"resource": resource})
    lifetime = emulator.settings.token_lifetime
    return JSONResponse(
        {
            "access_token": emulator.issuer.issue(audience, emulator.workspace.client_id, lifetime),
            "expires_on": str(int(time.time() + lifetime)),
            "resource": resource,
            "token_type": "Bearer",
            "client_id": emulator.workspace.client_id,
        }
    )


ROUTES = [
    ("GET", "/common/discovery/instance", instance_discovery),
    ("GET", "/{tenant}/v2.0/.well-known/openid-configuration", openid_configuration),
    ("GET", "/{tenant}/.well-known/openid-configuration", openid_configuration),
    ("GET", "/{tenant}/discovery/v2.0/keys", keys),
    ("GET", "/{tenant}/discovery/keys", keys),
    ("POST", "/{tenant}/oauth2/v2.0/token", token),
    ("POST", "/{tenant}/oauth2/token", token),
]

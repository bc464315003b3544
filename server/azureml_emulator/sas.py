"""Shared access signatures: a blob URL carries its own permissions, expiry and proof."""

import base64
import hashlib
import hmac
import math
import secrets
import time
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from starlette.requests import Request

from azureml_emulator.errors import AzureError

CONTAINER = "azureml"
VERSION = "2021-12-02"
READ = "r"
WRITE = "rcw"


class SasRefused(AzureError):
    """The signature, the time or the permission does not fit."""

    status, code = 403, "AuthenticationFailed"

    def __init__(self, reason: str, *, code: str | None = None) -> None:
        super().__init__(f"Server failed to authenticate the request. {reason}", code=code)


class Signer:
    """The storage account's key: it signs blob URLs and recognises its own."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.key = secrets.token_bytes(32)

    def _signature(self, blob: str, permissions: str, expiry: str) -> str:
        text = "\n".join([permissions, expiry, f"/blob/{self.account}/{CONTAINER}/{blob}", VERSION, "b"])
        return base64.b64encode(hmac.digest(self.key, text.encode(), hashlib.sha256)).decode()

    def url(self, blob: str, permissions: str, lifetime: float) -> str:
        """Sign a URL for one blob."""
        end = datetime.fromtimestamp(math.ceil(time.time() + lifetime), UTC)
        expiry = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        query = {"sv": VERSION, "se": expiry, "sr": "b", "sp": permissions}
        query["sig"] = self._signature(blob, permissions, expiry)
        return f"https://{self.account}.blob.core.windows.net/{CONTAINER}/{quote(blob)}?{urlencode(query)}"

    def check(self, request: Request, blob: str, needed: str) -> None:
        """Refuse unless the URL is signed for this blob, still valid, and allows one of the needed letters."""
        if "authorization" in request.headers:
            raise SasRefused("A blob URL is its own credential: no Authorization header belongs beside it.")
        query = request.query_params
        permissions, expiry = query.get("sp", ""), query.get("se", "")
        expected = self._signature(blob, permissions, expiry)
        if not hmac.compare_digest(expected.encode(), query.get("sig", "").encode()):
            raise SasRefused("Signature did not match.")
        if datetime.fromisoformat(expiry) <= datetime.now(UTC):
            raise SasRefused("Signature not valid in the specified time frame.")
        if not set(needed) & set(permissions):
            raise SasRefused("The permission is missing.", code="AuthorizationPermissionMismatch")

"""Transfers between clients and Azure Blob: shared access signatures for one blob, one right and a limited time.

The parts of a multipart upload are blocks that nobody sees until their list is committed. How many they are stands in
the upload's id and so in the name of every block: an upload cannot end with other parts than it began with, and
nothing about it has to be remembered here.
"""

import asyncio
import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, BlobSasPermissions, ContentSettings, UserDelegationKey, generate_blob_sas
from azure.storage.blob.aio import BlobClient, BlobServiceClient

from runmirror.artifacts.blob_errors import code_of, told
from runmirror.artifacts.files import CannotSign, InvalidParts, Written

CONTENT_TYPE = "application/octet-stream"
_UPLOAD_ID = re.compile(r"[0-9a-f]{26}p(?P<count>[0-9]{5})")
_CLOCKS_APART = timedelta(minutes=5)
_KEY_LIFETIME = timedelta(days=1)  # Azure's own limit is seven days


class BlobDirect:
    """A `Direct`: signs with the account's key, or with a key that Azure lends to an identity of Entra."""

    def __init__(self, service: BlobServiceClient, blob: Callable[[str], BlobClient]) -> None:
        self._service = service
        self._blob = blob
        self._lent: tuple[UserDelegationKey, datetime] | None = None
        self._lending = asyncio.Lock()

    async def sign_parts(self, path: str, count: int, lifetime: timedelta) -> tuple[str, Sequence[str]]:
        upload_id = f"{secrets.token_hex(13)}p{count:05d}"
        url = await self._sign(path, BlobSasPermissions(write=True), lifetime)
        blocks = (quote(b64encode(name.encode()), safe="") for name in _blocks(upload_id, count))
        return upload_id, [f"{url}&comp=block&blockid={block}" for block in blocks]

    async def commit_parts(self, path: str, upload_id: str, count: int) -> Written:
        match = _UPLOAD_ID.fullmatch(upload_id)
        if match is None or int(match["count"]) != count:
            raise InvalidParts
        blob = self._blob(path)
        blocks = [BlobBlock(name) for name in _blocks(upload_id, count)]
        with told(path):
            try:
                await blob.commit_block_list(blocks, content_settings=ContentSettings(content_type=CONTENT_TYPE))
            except HttpResponseError as error:
                if code_of(error) in {"InvalidBlockList", "InvalidBlobOrBlock", "InvalidBlockId"}:
                    raise InvalidParts from error
                raise
            properties = await blob.get_blob_properties()
        return Written(properties.size, md5=None)

    async def sign_download(self, path: str, lifetime: timedelta, *, disposition: str, content_type: str) -> str:
        return await self._sign(
            path, BlobSasPermissions(read=True), lifetime, content_disposition=disposition, content_type=content_type
        )

    async def sign_read(self, path: str, lifetime: timedelta) -> str:
        """A URL of the bytes as they are."""
        return await self._sign(path, BlobSasPermissions(read=True), lifetime)

    async def sign_upload(self, path: str, lifetime: timedelta) -> tuple[str, Mapping[str, str]]:
        url = await self._sign(path, BlobSasPermissions(write=True), lifetime)
        return url, {"x-ms-blob-type": "BlockBlob", "Content-Type": CONTENT_TYPE}

    async def _sign(self, path: str, permission: BlobSasPermissions, lifetime: timedelta, **answer: Any) -> str:
        blob = self._blob(path)
        expiry = datetime.now(UTC) + lifetime
        key: str | None = getattr(self._service.credential, "account_key", None)
        signature = generate_blob_sas(
            str(self._service.account_name),
            blob.container_name,
            blob.blob_name,
            account_key=key,
            user_delegation_key=None if key else await self._lent_key(path, expiry),
            permission=permission,
            expiry=expiry,
            protocol="https" if blob.url.startswith("https:") else None,
            **answer,
        )
        return f"{blob.url}?{signature}"

    async def _lent_key(self, path: str, until: datetime) -> UserDelegationKey:
        """A key valid beyond `until`; one serves many URLs."""
        if not hasattr(self._service.credential, "get_token"):
            raise CannotSign("the server's own credential is a signature, which cannot sign others")
        async with self._lending:
            if self._lent is not None and self._lent[1] >= until:
                return self._lent[0]
            now = datetime.now(UTC)
            expiry = max(until, now + _KEY_LIFETIME)
            with told(path):
                try:
                    key = await self._service.get_user_delegation_key(now - _CLOCKS_APART, expiry)
                except HttpResponseError as error:
                    if code_of(error) != "AuthorizationPermissionMismatch":
                        raise
                    raise CannotSign(
                        "the server's identity may not sign for the storage account (it needs Storage Blob Delegator)"
                    ) from error
            self._lent = key, expiry
            return key


def name_of_block(upload_id: str, number: int) -> str:
    """Of one length for all uploads, which Azure demands of all blocks that a blob has at once."""
    return f"{upload_id}-{number:05d}"


def _blocks(upload_id: str, count: int) -> Iterator[str]:
    return (name_of_block(upload_id, number) for number in range(1, count + 1))

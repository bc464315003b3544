"""Artifacts in Azure Blob Storage; this and `blob_direct.py` are all of the server that imports `azure.storage`.

A file is uploaded as blocks that nobody sees until their list is committed; what a broken upload staged, Azure throws
away after a week. There are no folders: a folder is what names have in common up to a slash.
"""

import asyncio
import hashlib
import io
import logging
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, Self
from uuid import uuid4

import aiohttp
from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import DefaultAzureCredential
from azure.storage.blob import (
    BlobBlock,
    BlobProperties,
    ContentSettings,
)
from azure.storage.blob.aio import BlobClient, BlobServiceClient, ExponentialRetry

from runmirror.artifacts.blob_direct import BlobDirect, name_of_block
from runmirror.artifacts.blob_errors import code_of, told
from runmirror.artifacts.files import CannotSign, Direct, Entry, Link, Opened, Stat, Written
from runmirror.artifacts.safe_path import safe_path
from runmirror.errors import ArtifactNotFound, Busy, InvalidParameter, Unavailable

log = logging.getLogger(__name__)

BLOCK_BYTES = 4 * 1024**2  # Azure takes 50,000 blocks: 195 GiB a file
BLOCKS_IN_FLIGHT = 2
SINGLE_PUT_BYTES = 1024**2  # what the client sends as raw bytes, which aiohttp writes to the socket at one go
READ_BYTES = 4 * 1024**2
DELETES_IN_FLIGHT = 8
PROBE_S = 5
NO_LINKS_S = 600.0  # an operator may give the right to sign at any time

_ADDRESS = re.compile(
    r"^wasbs?://(?P<container>[a-z0-9$][a-z0-9-]{1,62})@(?P<host>[a-z0-9]{3,24}\.blob\.[a-z0-9.-]+)(?:/(?P<prefix>.*))?$"
)


class BlobStore:
    """A `Store` in one container, below `prefix`. The container must exist."""

    def __init__(
        self, service: BlobServiceClient, container: str, prefix: str, credential: Any = None, *, direct: bool = True
    ) -> None:
        self.service = service
        self.container = service.get_container_client(container)
        self.prefix = prefix
        self.credential = credential
        self._signing = BlobDirect(service, self._blob)
        self.direct: Direct | None = self._signing if direct else None
        self._no_links_until = float("-inf")

    @classmethod
    def at(
        cls, address: str, *, connection_string: str | None, ca_bundle: str | None = None, direct: bool = True
    ) -> Self:
        """The store at `wasbs://container@account.blob.core.windows.net/path`; `ValueError` if that is not its form.

        A connection string also says where the account's endpoint is, which is how a local Azurite is reached.
        """
        match = _ADDRESS.match(address)
        if match is None:
            raise ValueError(f"{address!r} is not wasbs://<container>@<account>.blob.core.windows.net/<path>")
        prefix = (match["prefix"] or "").strip("/")
        if prefix:
            safe_path(prefix)
        if connection_string is not None:
            service = BlobServiceClient.from_connection_string(connection_string, **_options(ca_bundle))
            return cls(service, match["container"], prefix, direct=direct)
        service, credential = service_of_identity(f"https://{match['host']}", ca_bundle)
        return cls(service, match["container"], prefix, credential, direct=direct)

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> Written:
        upload = _Upload(self._blob(path))
        with told(path):
            try:
                pending: list[bytes] = []  # joined once: a growing buffer would be copied again and again
                size = 0
                async for chunk in chunks:
                    pending.append(chunk)
                    size += len(chunk)
                    if size >= BLOCK_BYTES:
                        await upload.stage(b"".join(pending))
                        pending, size = [], 0
                return await upload.publish(b"".join(pending))
            finally:
                await upload.stop()

    async def read(self, path: str, start: int = 0, end: int | None = None) -> Opened:
        whole = start == 0 and end is None  # asked for as such, because an empty file has no ranges
        with told(path):
            try:
                download = await self._blob(path).download_blob(
                    offset=None if whole else start, length=None if end is None else end - start
                )
            except ResourceNotFoundError as error:
                raise await self._not_a_file(path, error) from error
            except HttpResponseError as error:
                if code_of(error) != "InvalidRange":
                    raise
                properties = await self._properties(path)
                return Opened(properties.size, properties.etag, _nothing())
        properties = download.properties
        if _is_folder(properties):
            raise _refers_to_a_directory(path)
        # The client asks for the following parts with If-Match, so all the bytes are of one version.
        return Opened(_whole_size(properties), properties.etag, _told_stream(path, download.chunks()))

    async def stat(self, path: str) -> Stat:
        with told(path):
            properties = await self._properties(path)
            return Stat(properties.size, properties.etag)

    async def digest(self, path: str) -> Written | None:
        with told(path):
            try:
                properties = await self._properties(path)
            except (ArtifactNotFound, InvalidParameter):
                return None
            stored = properties.content_settings.content_md5
            if stored:
                return Written(properties.size, bytes(stored).hex())
            download = await self._blob(path).download_blob(
                etag=properties.etag, match_condition=MatchConditions.IfNotModified
            )
            md5 = hashlib.md5(usedforsecurity=False)
            async for chunk in download.chunks():
                await asyncio.to_thread(md5.update, chunk)
            return Written(properties.size, md5.hexdigest())

    async def link(self, path: str, lifetime: timedelta) -> Link | None:
        if time.monotonic() < self._no_links_until:
            return None
        try:
            url = await self._signing.sign_read(path, lifetime)
        except CannotSign as error:
            self._no_links_until = time.monotonic() + NO_LINKS_S
            log.warning("no URLs can be signed for the artifact store: %s", error)
            return None
        with told(path):
            properties = await self._properties(path)
        md5 = properties.content_settings.content_md5
        return Link(url, properties.etag, properties.size, bytes(md5).hex() if md5 else None)

    async def list(self, path: str) -> Sequence[Entry]:
        folder = f"{self._name(path)}/" if self._name(path) else ""
        below_prefix = len(self.prefix) + 1 if self.prefix else 0
        entries: dict[str, Entry] = {}
        with told(path):
            async for found in self.container.walk_blobs(name_starts_with=folder, delimiter="/", include=["metadata"]):
                name = found.name[below_prefix:]
                if not isinstance(found, BlobProperties):  # a BlobPrefix
                    entries[name] = Entry(name.rstrip("/"), is_dir=True)
                elif found.name != folder and not _is_folder(found):
                    entries[name] = Entry(name, is_dir=False, size_bytes=found.size)
        return sorted(entries.values(), key=lambda entry: entry.path)

    async def delete(self, path: str) -> Sequence[str]:
        name = self._name(path)
        below_prefix = len(self.prefix) + 1 if self.prefix else 0
        with told(path):
            names = [found async for found in self.container.list_blob_names(name_starts_with=f"{name}/")]
            names.append(name)
            limit = asyncio.Semaphore(DELETES_IN_FLIGHT)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._delete_blob(each, limit)) for each in names]
        return [each[below_prefix:] for each, task in zip(names, tasks, strict=True) if task.result()]

    async def problem(self) -> str | None:
        try:
            async with asyncio.timeout(PROBE_S):
                await self.container.get_container_properties(retry_total=0)
        except (AzureError, TimeoutError) as error:
            return f"the blob container {self.container.container_name!r} cannot be used ({type(error).__name__})"
        return None

    async def close(self) -> None:
        await self.service.close()
        if self.credential is not None:
            await self.credential.close()

    def _name(self, path: str) -> str:
        return "/".join(part for part in (self.prefix, path) if part)

    def _blob(self, path: str) -> BlobClient:
        return self.container.get_blob_client(self._name(path))

    async def _properties(self, path: str) -> BlobProperties:
        try:
            properties: BlobProperties = await self._blob(path).get_blob_properties()
        except ResourceNotFoundError as error:
            raise await self._not_a_file(path, error) from error
        if _is_folder(properties):
            raise _refers_to_a_directory(path)
        return properties

    async def _not_a_file(self, path: str, error: ResourceNotFoundError) -> Exception:
        """What a missing blob means: a folder, nothing, or a container that is gone."""
        if code_of(error) == "ContainerNotFound":
            return Unavailable("The artifact store cannot be used: its blob container does not exist.")
        names = self.container.list_blob_names(name_starts_with=f"{self._name(path)}/", results_per_page=1)
        async for _ in names:
            return _refers_to_a_directory(path)
        return ArtifactNotFound(path)

    async def _delete_blob(self, name: str, limit: asyncio.Semaphore) -> bool:
        async with limit:
            try:
                await self.container.delete_blob(name, delete_snapshots="include")
            except ResourceNotFoundError:
                return False
            return True


def service_of_identity(url: str, ca_bundle: str | None) -> tuple[BlobServiceClient, DefaultAzureCredential]:
    """The account at `url`, for the identity that this process has in Entra."""
    credential = DefaultAzureCredential(connection_verify=ca_bundle or True)
    return BlobServiceClient(url, credential=credential, **_options(ca_bundle)), credential


def _options(ca_bundle: str | None) -> dict[str, Any]:
    return {
        "max_single_get_size": READ_BYTES,
        "max_chunk_get_size": READ_BYTES,
        "connection_timeout": 10,
        "read_timeout": 60,
        "retry_policy": ExponentialRetry(initial_backoff=1, increment_base=3, retry_total=3),
        **({"transport": _trusting(ca_bundle)} if ca_bundle else {}),
    }


def _trusting(ca_bundle: str) -> AioHttpTransport:
    """A transport with one TLS context: told `connection_verify`, the client would load the file for every request."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca_bundle)),
        trust_env=True,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
    return AioHttpTransport(session=session)


class _Upload:
    """Blocks of one file on their way; block ids are this upload's own, so that two of one file cannot mix."""

    def __init__(self, blob: BlobClient) -> None:
        self.blob = blob
        self.upload_id = uuid4().hex
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.size_bytes = 0
        self.block_ids: list[str] = []
        self.in_flight: deque[asyncio.Task[None]] = deque()

    async def stage(self, block: bytes) -> None:
        while len(self.in_flight) >= BLOCKS_IN_FLIGHT:
            await self.in_flight.popleft()
        await self._count(block)
        block_id = name_of_block(self.upload_id, len(self.block_ids))
        self.block_ids.append(block_id)
        self.in_flight.append(asyncio.create_task(self._stage(block_id, block)))

    async def _stage(self, block_id: str, block: bytes) -> None:
        # A file object, which aiohttp sends piece by piece. Closing it frees the bytes at once: the Azure client's
        # requests are in reference cycles, and would keep them until the collector comes by.
        with io.BytesIO(block) as body:
            del block
            await self.blob.stage_block(block_id, body, length=body.getbuffer().nbytes)

    async def publish(self, rest: bytes) -> Written:
        """Store the last bytes and make the file visible; a small file takes this one request."""
        if not self.block_ids and len(rest) <= SINGLE_PUT_BYTES:
            await self._count(rest)
            await self.blob.upload_blob(rest, length=len(rest), overwrite=True, content_settings=self._settings())
            return Written(self.size_bytes, self.md5.hexdigest())
        if rest:
            await self.stage(rest)
        while self.in_flight:
            await self.in_flight.popleft()
        blocks = [BlobBlock(block_id) for block_id in self.block_ids]
        try:
            await self.blob.commit_block_list(blocks, content_settings=self._settings())
        except HttpResponseError as error:
            if code_of(error) != "InvalidBlockList":
                raise
            # A commit of the same name throws away the blocks that other uploads have staged for it.
            raise Busy("Another upload of this file ended meanwhile; nothing was written, send it again.") from error
        return Written(self.size_bytes, self.md5.hexdigest())

    async def stop(self) -> None:
        for task in self.in_flight:
            task.cancel()
        await asyncio.gather(*self.in_flight, return_exceptions=True)
        self.in_flight.clear()

    async def _count(self, data: bytes) -> None:
        await asyncio.to_thread(self.md5.update, data)
        self.size_bytes += len(data)

    def _settings(self) -> ContentSettings:
        return ContentSettings(content_type="application/octet-stream", content_md5=bytearray(self.md5.digest()))


async def _told_stream(path: str, chunks: Any) -> AsyncIterator[bytes]:
    with told(path):
        async for chunk in chunks:
            yield chunk


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def _whole_size(properties: BlobProperties) -> int:
    """The size of the blob, of which the answer to a ranged request may carry only a part."""
    ranged = properties.content_range
    return int(ranged.rpartition("/")[2]) if ranged else int(properties.size)


def _is_folder(properties: BlobProperties) -> bool:
    """Accounts with a hierarchical namespace list their folders as empty blobs with this mark."""
    return (properties.metadata or {}).get("hdi_isfolder") == "true"


def _refers_to_a_directory(path: str) -> InvalidParameter:
    return InvalidParameter(f"Artifact path refers to a directory, not a file: '{path}'")

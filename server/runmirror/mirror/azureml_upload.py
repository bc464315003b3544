"""One file into Blob storage: copied there by storage itself where it reaches the source, else streamed.

What is larger than one request goes in blocks that nobody sees until their list is committed. A block's name says what
is in it, so an attempt after a crash skips the blocks that arrived, and never takes a block of other content for one.

One slot stands for one request under way, and for the one block of content it may hold in memory.
"""

import asyncio
import base64
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote
from xml.etree import ElementTree as ET

from runmirror.artifacts.files import Link
from runmirror.mirror.azureml_http import AzureClient, Refused
from runmirror.mirror.azureml_transport import Answer
from runmirror.mirror.target import Guard, RemoteFile, SourceChanged, TargetUnauthorized, TargetUnavailable

log = logging.getLogger(__name__)

MIB = 1024**2
_MOST_BLOCKS = 50_000
_SOURCE_CHANGED = {"SourceConditionNotMet", "Md5Mismatch", "InvalidMd5"}
_STAGED_IS_NO_USE = {"InvalidBlockList", "InvalidBlobOrBlock", "InvalidBlockId"}
_LINK_AGE_S = 600.0
_TRY_AGAIN_S = 600.0
_PATIENCE = 3
_SOURCE = "x-ms-copy-source"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The largest piece of a file in one request: `block` through this process, `copied` from store to store."""

    block: int = 4 * MIB
    copied: int = 32 * MIB


@dataclass(frozen=True, slots=True)
class StoredBlob:
    size_bytes: int
    md5: str | None  # hex; a property that whoever uploads may set or leave out

    @classmethod
    def told_by(cls, answer: Answer) -> Self:
        md5 = answer.headers.get("content-md5")
        return cls(int(answer.headers["content-length"]), base64.b64decode(md5).hex() if md5 else None)


class CopyByUrl:
    """Whether the target's storage can fetch files from the source's; shared by all that a worker copies."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._off_until = float("-inf")
        self._failures = 0
        self._told = ""

    @property
    def is_on(self) -> bool:
        return self._wanted and time.monotonic() >= self._off_until

    def worked(self) -> None:
        self._failures = 0

    def failed(self, error: Refused | TargetUnavailable) -> None:
        """The file is streamed, and after a few in a row all are, for a while; says why, once."""
        self._failures += 1
        if self._failures >= _PATIENCE:
            self._failures, self._off_until = 0, time.monotonic() + _TRY_AGAIN_S
        code = error.code if isinstance(error, Refused) else type(error).__name__
        if code != self._told:
            self._told = code
            log.warning("the workspace's storage does not copy from ours, so files are streamed: %s", error)


class Destination:
    """The place of one file: a URL that is good for a while, ways to get another, and to look what is there."""

    def __init__(
        self,
        client: AzureClient,
        guard: Guard,
        url: str,
        renew: Callable[[], Awaitable[str]],
        look: Callable[[], Awaitable[StoredBlob | None]],
    ) -> None:
        self._client = client
        self._guard = guard
        self._url = url
        self._renew = renew
        self._look = look
        self._renewing = asyncio.Lock()

    async def ask(
        self, method: str, query: str = "", *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Answer:
        """One request; if its URL has expired, it is sent once more to a new one."""
        url = self._url
        try:
            return await self._client.blob(self._guard, method, url + query, headers=headers, content=content)
        except Refused as error:
            if not _is_about_url(error):
                raise
        async with self._renewing:
            if self._url == url:
                self._url = await self._renew()
        try:
            return await self._client.blob(self._guard, method, self._url + query, headers=headers, content=content)
        except Refused as error:
            # A source that is refused may be told in the same words; then streaming shows whether it was that.
            if _is_about_url(error) and _SOURCE not in (headers or {}):
                raise TargetUnauthorized(str(error)) from None
            raise

    async def peek(self, method: str, query: str = "") -> Answer | None:
        """As `ask`, for what is good to know; None when it is refused, as it is when a URL may only write."""
        try:
            return await self._client.blob(self._guard, method, self._url + query)
        except Refused:
            return None

    async def look(self) -> StoredBlob | None:
        """What stands there now."""
        answer = await self.peek("HEAD")
        return await self._look() if answer is None else StoredBlob.told_by(answer)


class Upload:
    """`resumed`: an earlier attempt may have left blocks."""

    def __init__(
        self,
        file: RemoteFile,
        to: Destination,
        *,
        slots: asyncio.Semaphore,
        sizes: Sizes,
        by_url: CopyByUrl,
        resumed: bool,
    ) -> None:
        self._file = file
        self._to = to
        self._slots = slots
        self._sizes = sizes
        self._by_url = by_url
        self._resumed = resumed

    async def run(self) -> None:
        """Raises `SourceChanged`, `SourceUnavailable`, `TargetError`."""
        try:
            await self._send()
        except Refused as error:
            if error.code not in _STAGED_IS_NO_USE:
                raise
            if self._is_whole(await self._to.look()):
                return  # another worker, late or early, has committed the same blocks
            # Blocks under names that ours cannot stand beside, or that went away: an empty file takes their place.
            await self._put(b"", {})
            self._resumed = False
            try:
                await self._send()
            except Refused as again:
                if again.code in _STAGED_IS_NO_USE:
                    raise TargetUnavailable(str(again)) from None
                raise

    async def _send(self) -> None:
        link = await self._file.link() if self._file.size_bytes and self._by_url.is_on else None
        if link is not None:
            try:
                await self._copy(link)
            except (Refused, TargetUnavailable) as error:
                code = error.code if isinstance(error, Refused) else ""
                if code in _SOURCE_CHANGED:
                    raise SourceChanged("the content is not what was recorded") from None
                if code in _STAGED_IS_NO_USE:
                    raise
                # Also if it only does not answer: it may wait for a source that it does not reach.
                self._by_url.failed(error)
            else:
                self._by_url.worked()
                return
        if self._file.size_bytes <= self._sizes.block:
            await self._stream_whole()
        else:
            await self._stream_blocks()

    async def _copy(self, link: Link) -> None:
        if self._file.size_bytes <= self._sizes.copied:
            headers = {"x-ms-copy-source-blob-properties": "false"}
            if link.md5 is not None:
                digest = _base64(bytes.fromhex(link.md5))
                headers |= {"x-ms-source-content-md5": digest, "x-ms-blob-content-md5": digest}
            async with self._slots:
                await self._put(b"", _source_headers(link) | headers)
            if link.md5 is None:
                await self._check_there(None)
            return
        size = self._block_size(self._sizes.copied)
        content = hashlib.md5(f"{link.md5 or link.etag} {size}".encode(), usedforsecurity=False).hexdigest()
        staged = await self._staged()
        source = _FreshLink(self._file, link)

        async def copy_block(name: str, start: int, end: int) -> None:
            async with self._slots:
                headers = _source_headers(await source.get()) | {"x-ms-source-range": f"bytes={start}-{end - 1}"}
                await self._put_block(name, b"", headers)

        pieces = [(_name(number, content), start, end) for number, start, end in self._pieces(size)]
        await together(copy_block(*piece) for piece in pieces if piece[0] not in staged)
        await self._commit([name for name, _, _ in pieces], link.md5)

    async def _stream_whole(self) -> None:
        async with self._slots:
            content = await self._read(0, self._file.size_bytes)
            digest = await asyncio.to_thread(_md5, content)
            self._check(digest.hex())
            await self._put(content, {"Content-MD5": _base64(digest)})

    async def _stream_blocks(self) -> None:
        """Read in order, so that the whole is hashed as well; sent side by side."""
        staged = await self._staged()
        whole = hashlib.md5(usedforsecurity=False)
        names = []
        async with _group() as group:
            for number, start, end in self._pieces(self._block_size(self._sizes.block)):
                await self._slots.acquire()
                try:
                    content = await self._read(start, end)
                    digest = await asyncio.to_thread(_md5, content)
                    await asyncio.to_thread(whole.update, content)
                    names.append(_name(number, digest.hex()))
                except BaseException:
                    self._slots.release()
                    raise
                if names[-1] in staged:
                    self._slots.release()
                    continue
                task = group.create_task(self._put_block(names[-1], content, {"Content-MD5": _base64(digest)}))
                task.add_done_callback(lambda _: self._slots.release())
                del content
        self._check(whole.hexdigest())
        await self._commit(names, whole.hexdigest())

    async def _put(self, content: bytes, headers: Mapping[str, str]) -> None:
        await self._to.ask("PUT", headers={"x-ms-blob-type": "BlockBlob", **headers}, content=content)

    async def _put_block(self, name: str, content: bytes, headers: Mapping[str, str]) -> None:
        await self._to.ask("PUT", f"&comp=block&blockid={quote(name, safe='')}", headers=headers, content=content)

    async def _commit(self, names: list[str], md5: str | None) -> None:
        """Make the blocks a file, and look whether it is the one."""
        listed = "".join(f"<Latest>{name}</Latest>" for name in names)
        xml = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
        headers = {} if md5 is None else {"x-ms-blob-content-md5": _base64(bytes.fromhex(md5))}
        await self._to.ask("PUT", "&comp=blocklist", headers=headers, content=xml)
        await self._check_there(md5)

    async def _check_there(self, md5: str | None) -> None:
        there = await self._to.look()
        if there is None or there.size_bytes != self._file.size_bytes or md5 not in {None, there.md5}:
            raise TargetUnavailable(f"artifact {self._file.path!r} does not stand in storage as it was sent")

    def _is_whole(self, there: StoredBlob | None) -> bool:
        wanted = StoredBlob(self._file.size_bytes, self._file.md5)
        return wanted.md5 is not None and there == wanted

    async def _staged(self) -> set[str]:
        """The names of the blocks that an earlier attempt brought here; none if that cannot be known."""
        if not self._resumed:
            return set()
        answer = await self._to.peek("GET", "&comp=blocklist&blocklisttype=uncommitted")
        if answer is None:
            return set()
        try:
            listed = ET.fromstring(answer.content)  # noqa: S314 - from storage itself, over TLS
        except ET.ParseError:
            raise TargetUnavailable("storage's list of blocks cannot be read") from None
        return {block.findtext("Name") or "" for block in listed.iterfind("UncommittedBlocks/Block")}

    async def _read(self, start: int, end: int) -> bytes:
        if start == end:
            return b""
        return b"".join([chunk async for chunk in await self._file.read(start, end)])

    def _check(self, md5: str) -> None:
        if self._file.md5 not in {None, md5}:
            raise SourceChanged("the content is not what was recorded")

    def _block_size(self, wanted: int) -> int:
        return max(wanted, -(-self._file.size_bytes // _MOST_BLOCKS))

    def _pieces(self, size: int) -> Iterator[tuple[int, int, int]]:
        whole = self._file.size_bytes
        return ((number, start, min(start + size, whole)) for number, start in enumerate(range(0, whole, size)))


class _FreshLink:
    """A link that is still good when a large file has taken long."""

    def __init__(self, file: RemoteFile, link: Link) -> None:
        self._file = file
        self._link = link
        self._made_at = time.monotonic()

    async def get(self) -> Link:
        if time.monotonic() - self._made_at > _LINK_AGE_S:
            link = await self._file.link()
            if link is None or link.etag != self._link.etag:
                raise SourceChanged("the file was replaced while it was copied")
            self._link, self._made_at = link, time.monotonic()
        return self._link


async def together(tasks: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run side by side; the first failure cancels the others and is raised as it is."""
    async with _group() as group:
        for task in tasks:
            group.create_task(task)


@asynccontextmanager
async def _group() -> AsyncIterator[asyncio.TaskGroup]:
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _source_headers(link: Link) -> dict[str, str]:
    return {_SOURCE: link.url, "x-ms-source-if-match": link.etag}


def _is_about_url(error: Refused) -> bool:
    """Whether the URL we hold is refused, not the one that storage was told to copy from."""
    return error.status in {401, 403} and error.code != "CannotVerifyCopySource"


def _name(number: int, content: str) -> str:
    """Of one length, which storage demands of all blocks of a file."""
    return _base64(f"{number:05d}-{content}".encode())


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()

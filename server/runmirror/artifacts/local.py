"""Artifacts in a folder.

    .uploads/<uuid>  ──fsync, rename──▶  <path>          an upload that broke off is removed, or a day later
    without a name   ──fsync, link────▶  <path>          small files, where the file system knows of that
    <folder>         ──rename──▶  .uploads/<uuid>        a folder vanishes at once, then file by file

The unfinished file is the only copy of the bytes, and on the same file system as its place.
"""

import asyncio
import hashlib
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from runmirror.artifacts.files import Direct, Entry, Opened, Stat, Written
from runmirror.artifacts.local_many import knows_nameless, put_many, sync_folder
from runmirror.artifacts.safe_path import RESERVED
from runmirror.artifacts.syncs import use_kernel
from runmirror.errors import ArtifactNotFound, InvalidParameter, Unavailable

log = logging.getLogger(__name__)

CHUNK_BYTES = 1024**2  # of a download: one trip to a thread moves this much
HAND_OVER_BYTES = 4 * 1024**2  # the same of an upload, of which there is twice as much in memory
MOST_PARTS = 1024  # and in no more parts than that: of a client that sends byte by byte each is a byte
SYNC_BYTES = 64 * 1024**2  # of a large file go to the disk at once while the rest comes in
LEFTOVER_AGE_S = 24 * 3600
SMALL_AT_ONCE = 2  # threads that put small files
_MKDIR_ATTEMPTS = 5  # a folder may be deleted between its creation and the rename into it


class LocalStore:
    """A `Store` over the folder `root`, which every process that serves it must see at the same place."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.uploads = self.root / RESERVED
        self.direct: Direct | None = None
        self.takes_many = False  # until `prepare` has tried
        self._small = ThreadPoolExecutor(SMALL_AT_ONCE, "small-files", use_kernel)

    def prepare(self) -> None:
        """Make the folder and clear what broken uploads of the past left; `problem` tells when that fails."""
        try:
            self.uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
            oldest = time.time() - LEFTOVER_AGE_S
            for leftover in self.uploads.iterdir():
                if leftover.lstat().st_mtime < oldest:
                    _remove(leftover)
            self.takes_many = knows_nameless(str(self.uploads))
        except OSError as error:
            log.warning("cannot prepare the artifact folder %s: %s", self.root, error.strerror)

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> Written:
        with _told(path):
            pending: list[bytes] = []
            size = 0
            upload: _Upload | None = None
            try:
                async for chunk in chunks:
                    pending.append(chunk)
                    size += len(chunk)
                    if size >= HAND_OVER_BYTES or len(pending) >= MOST_PARTS:
                        if upload is None:
                            upload = await asyncio.to_thread(_Upload, self.uploads / uuid4().hex)
                        await upload.hand_over(pending)
                        pending, size = [], 0
                if upload is None:  # a small file: one trip to a thread
                    return await asyncio.to_thread(self._write_whole, pending, path)
                await upload.hand_over(pending)
                await upload.settle()
                return await asyncio.to_thread(self._publish, upload, path)
            finally:
                if upload is not None:
                    upload.discard()

    async def put_many(self, files: Sequence[tuple[str, bytes]]) -> Sequence[Written | None]:
        """Small files, each at a path of its own; None for one that met with trouble, which has changed nothing.

        Only for a store that `takes_many`.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._small, put_many, str(self.root), str(self.uploads), files)

    async def read(self, path: str, start: int = 0, end: int | None = None) -> Opened:
        with _told(path):
            opening = asyncio.create_task(asyncio.to_thread(self._open, path))
            try:
                file, stat = await asyncio.shield(opening)
            except asyncio.CancelledError:
                opening.add_done_callback(_close)  # the thread opens it all the same
                raise
        return Opened(stat.size_bytes, stat.etag, _Chunks(file, start, stat.size_bytes if end is None else end))

    async def stat(self, path: str) -> Stat:
        with _told(path):
            return await asyncio.to_thread(self._stat, path)

    async def digest(self, path: str) -> Written | None:
        with _told(path):
            try:
                return await asyncio.to_thread(self._digest, path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    async def link(self, path: str, lifetime: timedelta) -> None:  # noqa: ARG002 - a folder has no URLs
        return None

    async def list(self, path: str) -> Sequence[Entry]:
        with _told(path):
            return await asyncio.to_thread(self._list, path)

    async def delete(self, path: str) -> Sequence[str]:
        with _told(path):
            return await asyncio.to_thread(self._delete, path)

    async def problem(self) -> str | None:
        return await asyncio.to_thread(self._problem)

    async def close(self) -> None:
        self._small.shutdown(wait=False)

    def _problem(self) -> str | None:
        if not os.access(self.uploads, os.R_OK | os.W_OK | os.X_OK):
            return f"the artifact folder {self.root} is missing or not writable"
        with suppress(OSError):
            if shutil.disk_usage(self.uploads).free < CHUNK_BYTES:
                return f"the disk of the artifact folder {self.root} is full"
        return None

    def _inside(self, path: str) -> Path:
        """The place of `path`. `safe_path` keeps it below the root by name; here no symbolic link leads out of it."""
        place = self.root / path
        if not place.resolve().is_relative_to(self.root):
            raise InvalidParameter("Invalid path: it leads out of the artifact folder")
        return place

    def _write_whole(self, parts: Sequence[bytes], path: str) -> Written:
        upload = _Upload(self.uploads / uuid4().hex)
        try:
            upload.append(parts)
            return self._publish(upload, path)
        finally:
            upload.discard()

    def _publish(self, upload: "_Upload", path: str) -> Written:
        return upload.publish(self._inside(path))

    def _open(self, path: str) -> tuple[BinaryIO, Stat]:
        file = self._inside(path).open("rb", buffering=0)
        return file, _stat_of(os.fstat(file.fileno()))

    def _stat(self, path: str) -> Stat:
        place = self._inside(path)
        if place.is_dir():
            raise IsADirectoryError
        return _stat_of(place.stat())

    def _digest(self, path: str) -> Written:
        with self._inside(path).open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            return Written(os.fstat(file.fileno()).st_size, md5)

    def _list(self, path: str) -> Sequence[Entry]:
        folder = self._inside(path)
        prefix = f"{path}/" if path else ""
        entries = []
        try:
            for found in os.scandir(folder):
                if found.path == str(self.uploads):
                    continue
                with suppress(FileNotFoundError):  # deleted while we look
                    is_dir = found.is_dir()
                    entries.append(Entry(prefix + found.name, is_dir, None if is_dir else found.stat().st_size))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(entries, key=lambda entry: entry.path)

    def _delete(self, path: str) -> Sequence[str]:
        grave = self.uploads / uuid4().hex
        try:
            self._inside(path).rename(grave)
        except (FileNotFoundError, NotADirectoryError):
            return []
        removed = [path] if not grave.is_dir() or grave.is_symlink() else list(_files_in(grave, path))
        _remove(grave)
        return removed


class _Upload:
    """A file that nobody sees until it is published. `discard` after `publish` does nothing.

    What was handed over is written and hashed side by side while the next bytes come in; what is written goes to the
    disk meanwhile, so that little is left to wait for in the end.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.size_bytes = 0
        self.published = False
        # Buffered, because its lock makes `discard` wait for a write whose task was cancelled.
        self.file = place.open("xb")
        self.under_way: list[asyncio.Task[None]] = []
        self.syncing: asyncio.Task[None] | None = None
        self.synced_bytes = 0

    async def hand_over(self, parts: Sequence[bytes]) -> None:
        """Have `parts` appended, once what was handed over before is; raises what that met with."""
        await self._appended()
        self.size_bytes += sum(map(len, parts))
        self.under_way = [_begun(self._write, parts), _begun(self._hash, parts)]
        if self.size_bytes - self.synced_bytes >= SYNC_BYTES:
            if self.syncing is not None:
                await self.syncing
            self.synced_bytes = self.size_bytes
            self.syncing = _begun(self.sync)

    async def settle(self) -> None:
        """Wait for all that is under way."""
        await self._appended()
        if self.syncing is not None:
            await self.syncing

    async def _appended(self) -> None:
        for task in self.under_way:
            await task

    def append(self, parts: Sequence[bytes]) -> None:
        self._write(parts)
        self._hash(parts)
        self.size_bytes += sum(map(len, parts))

    def _write(self, parts: Sequence[bytes]) -> None:
        self.file.writelines(parts)

    def _hash(self, parts: Sequence[bytes]) -> None:
        for part in parts:
            self.md5.update(part)

    def sync(self) -> None:
        os.fsync(self.file.fileno())  # what it meets with is told once, so whoever waits must hear of it

    def publish(self, target: Path) -> Written:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        for attempt in range(_MKDIR_ATTEMPTS):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                self.place.replace(target)
                self.published = True
                break
            except NotADirectoryError as error:
                raise FileExistsError from error
            except FileNotFoundError:
                if attempt + 1 == _MKDIR_ATTEMPTS:
                    raise
        sync_folder(str(target.parent))
        return Written(self.size_bytes, self.md5.hexdigest())

    def discard(self) -> None:
        with suppress(OSError):  # what a full disk did not take
            self.file.close()
        if not self.published:
            self.place.unlink(missing_ok=True)


def _begun(call: Callable[..., None], *arguments: Sequence[bytes]) -> asyncio.Task[None]:
    """The call in a thread. Who gave the upload up does not ask what became of it."""
    task = asyncio.create_task(asyncio.to_thread(call, *arguments))
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return task


def _close(opening: "asyncio.Task[tuple[BinaryIO, Stat]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


class _Chunks:
    """The bytes of an open file from `start` up to `end`; the file is closed at the end, or by `aclose`."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self.file = file
        self.at = start
        self.end = end

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        wanted = min(CHUNK_BYTES, self.end - self.at)
        data = await asyncio.to_thread(self._read, wanted) if wanted > 0 else b""
        if not data:
            await self.aclose()
            raise StopAsyncIteration
        self.at += len(data)
        return data

    async def aclose(self) -> None:
        self.file.close()

    def _read(self, wanted: int) -> bytes:
        return os.pread(self.file.fileno(), wanted, self.at)


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Say what the file system said in the tree of errors."""
    try:
        yield
    except IsADirectoryError as error:
        raise InvalidParameter(f"Artifact path refers to a directory, not a file: '{path}'") from error
    except FileExistsError as error:
        raise InvalidParameter(f"A part of the path is a file, not a directory: '{path}'") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactNotFound(path) from error
    except OSError as error:
        raise Unavailable(f"The artifact folder cannot be used: {error.strerror}.") from error


def _stat_of(stat: os.stat_result) -> Stat:
    return Stat(stat.st_size, f'"{stat.st_mtime_ns:x}-{stat.st_size:x}-{stat.st_ino:x}"')


def _files_in(folder: Path, named: str) -> Iterator[str]:
    for where, _, names in os.walk(folder):
        below = Path(where).relative_to(folder).as_posix()
        for name in names:
            yield f"{named}/{name}" if below == "." else f"{named}/{below}/{name}"


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)

"""What a store of artifact bytes can do; `local.py` and `blob.py` do it, and nothing here knows of HTTP."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Written:
    """What a store holds at a path: its size, and the MD5 of its bytes in hex (None: they did not pass through us)."""

    size_bytes: int
    md5: str | None


@dataclass(frozen=True, slots=True)
class Stat:
    """One version of a file; `etag` is quoted, as HTTP writes it, and differs between versions."""

    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Opened:
    """One version of a file being read. `size_bytes` is the whole file's; `stream` yields the bytes asked for.

    The stream keeps to the version it was opened with; close it (`aclose`) when it is not read to its end.
    """

    size_bytes: int
    etag: str
    stream: AsyncIterator[bytes]

    async def aclose(self) -> None:
        close = getattr(self.stream, "aclose", None)
        if close is not None:
            await close()


@dataclass(frozen=True, slots=True)
class Link:
    """One version of a file, readable for a while by whoever has the URL; `md5` in hex, if the store knows it."""

    url: str
    etag: str
    size_bytes: int
    md5: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a folder in a listing; `path` is the whole store path, `size_bytes` None for a folder."""

    path: str
    is_dir: bool
    size_bytes: int | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class CannotSign(Exception):
    """The store's own credentials do not let it sign URLs; says why, in words for the operator."""


class InvalidParts(Exception):
    """A multipart upload cannot end: parts are missing, or the upload is not one of this file."""


class Direct(Protocol):
    """Transfers between clients and the store itself, by URLs for one file, one right and a limited time.

    Each method that signs raises `CannotSign`, or `Unavailable`.
    """

    async def sign_parts(self, path: str, count: int, lifetime: timedelta) -> tuple[str, Sequence[str]]:
        """An upload's id, and a URL for each of its parts."""
        ...

    async def commit_parts(self, path: str, upload_id: str, count: int) -> Written:
        """Make the file of all `count` parts, replacing what is there; may be repeated. Raises `InvalidParts`."""
        ...

    async def sign_download(self, path: str, lifetime: timedelta, *, disposition: str, content_type: str) -> str: ...

    async def sign_upload(self, path: str, lifetime: timedelta) -> tuple[str, Mapping[str, str]]:
        """A URL to put the whole file to, and the headers that must go with it."""
        ...


class Store(Protocol):
    """A place for bytes. Every `path` has passed `safe_path`; memory use does not depend on the size of a file."""

    @property
    def direct(self) -> Direct | None:
        """None when clients cannot reach the bytes but through us."""
        ...

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> Written:
        """Store the chunks as one file, replacing what is there: all of it becomes visible, or nothing.

        Raises `InvalidParameter` when a folder is there, `Busy` when it must be sent again, `Unavailable`.
        """
        ...

    async def read(self, path: str, start: int = 0, end: int | None = None) -> Opened:
        """Open bytes `start` up to, not including, `end`. Raises `ArtifactNotFound`, or `InvalidParameter` (folder)."""
        ...

    async def stat(self, path: str) -> Stat:
        """Raises as `read` does."""
        ...

    async def digest(self, path: str) -> Written | None:
        """What is stored at `path` now; None when no file is there. May have to read the file."""
        ...

    async def link(self, path: str, lifetime: timedelta) -> Link | None:
        """A URL that reads one file; None when the store has no such URLs. Raises as `read` does."""
        ...

    async def list(self, path: str) -> Sequence[Entry]:
        """What lies directly in the folder `path` ("" is the top), by name; nothing for a file or a missing folder."""
        ...

    async def delete(self, path: str) -> Sequence[str]:
        """Remove a file, or a folder and all in it; returns the store paths of the removed files."""
        ...

    async def problem(self) -> str | None:
        """Why the store cannot be used now, in words for the operator; None when it can."""
        ...

    async def close(self) -> None: ...

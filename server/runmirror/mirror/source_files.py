"""The files of a page: where they go in the target, and how they are read from the source's store."""

import logging
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from runmirror.artifacts.files import Link, Opened, Store
from runmirror.artifacts.places import path_of
from runmirror.errors import ArtifactNotFound, InvalidParameter
from runmirror.mirror.queries import Page, SourceFile
from runmirror.mirror.target import RemoteFile, SourceChanged, SourceUnavailable

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_LINK_LIFETIME = timedelta(minutes=30)


def placed(store: Store, page: Page) -> dict[SourceFile, RemoteFile]:
    """Every file of the page, as the target copies it."""
    files = {}
    for file in page.files:
        reader = _Reader(store, file.artifact_uri or page.source.artifact_uri, file)
        files[file] = RemoteFile(
            path=file.place,
            revision_path=revision_path(file.seq, file.place),
            size_bytes=file.size_bytes,
            md5=file.md5,
            read=reader.read,
            link=reader.link,
        )
    return files


def revision_path(seq: int, path: str) -> str:
    """Where a file goes whose path is taken by an earlier content for good."""
    return f"runmirror/revisions/{seq}/{path}"


@dataclass(frozen=True, slots=True)
class _Reader:
    store: Store
    artifact_uri: str
    file: SourceFile

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Exactly the bytes from `start` to `end`; `SourceChanged` or `SourceUnavailable`, also while reading."""
        opened = await self._told(self.store.read(self._path(), start, end))
        if opened.size_bytes != self.file.size_bytes:
            await opened.aclose()
            raise SourceChanged(f"artifact {self.file.path!r} has another size than recorded")
        return self._whole(opened, end - start)

    async def link(self) -> Link | None:
        """A URL of the file as it was recorded, if the store can give one."""
        link = await self._told(self.store.link(self._path(), _LINK_LIFETIME))
        if link is not None:
            same = link.md5 is None or self.file.md5 is None or link.md5 == self.file.md5
            if link.size_bytes != self.file.size_bytes or not same:
                raise SourceChanged(f"artifact {self.file.path!r} is not as recorded")
        return link

    def _path(self) -> str:
        try:
            return f"{path_of(self.artifact_uri)}/{self.file.path}"
        except InvalidParameter as error:
            raise SourceChanged(f"artifact {self.file.path!r}: {error.message}") from None

    async def _told(self, asked: Awaitable[_T]) -> _T:
        try:
            return await asked
        except (ArtifactNotFound, InvalidParameter) as error:
            raise SourceChanged(f"artifact {self.file.path!r}: {error.message}") from None
        except Exception as error:
            log.exception("the artifact store cannot be read")
            raise SourceUnavailable("the artifact store cannot be read") from error

    async def _whole(self, opened: Opened, left: int) -> AsyncIterator[bytes]:
        try:
            async for chunk in opened.stream:
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
        except Exception as error:
            log.exception("the artifact store cannot be read")
            raise SourceUnavailable("the artifact store cannot be read") from error
        finally:
            await opened.aclose()
        if left != 0:
            raise SourceChanged(f"artifact {self.file.path!r} has another size than recorded")

"""The files of a page: where they go in the target, and how they are read from the source's store."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from runmirror.artifacts.files import Opened, Store
from runmirror.artifacts.places import path_of
from runmirror.errors import ArtifactNotFound, InvalidParameter
from runmirror.mirror.queries import Page, SourceFile
from runmirror.mirror.target import RemoteFile, SourceChanged, SourceUnavailable

log = logging.getLogger(__name__)


def placed(store: Store, page: Page) -> dict[SourceFile, RemoteFile]:
    """Every file of the page with its place: a logged model's files lie in a folder of its name, like any artifact.

    Only the first logged model of a name has that folder; what came later lies under its own id.
    """
    files = {}
    for file in page.files:
        path = file.path
        if file.model_id:
            own = file.has_namesake or not file.model_name
            path = f"{f'runmirror/models/{file.model_id}' if own else file.model_name}/{file.path}"
        files[file] = RemoteFile(
            path=path,
            revision_path=f"runmirror/revisions/{file.seq}/{path}",
            size_bytes=file.size_bytes,
            md5=file.md5,
            read=_Reader(store, file.artifact_uri or page.source.artifact_uri, file).read,
        )
    return files


@dataclass(frozen=True, slots=True)
class _Reader:
    store: Store
    artifact_uri: str
    file: SourceFile

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Exactly the bytes from `start` to `end`; `SourceChanged` or `SourceUnavailable`, also while reading."""
        try:
            opened = await self.store.read(f"{path_of(self.artifact_uri)}/{self.file.path}", start, end)
        except (ArtifactNotFound, InvalidParameter) as error:
            raise SourceChanged(f"artifact {self.file.path!r}: {error.message}") from None
        except Exception as error:
            log.exception("the artifact store cannot be read")
            raise SourceUnavailable("the artifact store cannot be read") from error
        if opened.size_bytes != self.file.size_bytes:
            await opened.aclose()
            raise SourceChanged(f"artifact {self.file.path!r} has another size than recorded")
        return self._whole(opened, end - start)

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

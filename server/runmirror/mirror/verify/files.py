"""The files of a run: their content, and what the overflow file has to tell of those that are otherwise there."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from runmirror.mirror.overflow import PATH
from runmirror.mirror.source_files import revision_path
from runmirror.mirror.target import RemoteFile, RemoteRun
from runmirror.mirror.verify.differences import Change, Difference, Kind
from runmirror.mirror.verify.overflow import REVISIONS, Overflow
from runmirror.mirror.verify.reader import Reader, RemoteContent
from runmirror.mirror.verify.source import Expected
from runmirror.mirror.verify.together import together

_MD5_OF_NOTHING = hashlib.md5(usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Files:
    """Of one run, here and there; `overflow` is None when there is no such file. `deep`: read them whole."""

    reader: Reader
    remote: RemoteRun
    expected: Expected
    paths: frozenset[str]
    overflow: Overflow | None
    deep: bool
    at_once: int

    async def differences(self) -> AsyncIterator[Difference]:
        slots = asyncio.Semaphore(self.at_once)
        live = sorted(self.expected.files.values(), key=lambda each: each[0].path)

        async def one(file: RemoteFile, from_seq: int) -> Difference | None:
            async with slots:
                return await self._file(file, from_seq)

        for difference in await together(one(*each) for each in live):
            if difference is not None:
                yield difference
        deleted = self.expected.deleted_files
        for path, from_seq in sorted(deleted.items()):
            if path in self.paths and not self.expected.overflows.has("deleted_artifact", path):
                yield Difference(Kind.FILE, path, Change.SURPLUS, from_seq=from_seq)
        others = {path for path in self.paths if path != PATH and not path.startswith(REVISIONS)}
        for path in sorted(others - deleted.keys() - {file.path for file, _ in live}):
            yield Difference(Kind.FILE, path, Change.SURPLUS)
        for difference in self._told():
            yield difference

    async def _file(self, file: RemoteFile, from_seq: int) -> Difference | None:
        """A file stands at its own path, or at its revision's if the overflow file is to tell that."""
        found: RemoteContent | None = None
        revised = [file.revision_path] if self.expected.overflows.has("revision", file.path) else []
        for path in (file.path, *revised):
            content = await self.reader.content(self.remote, path) if path in self.paths else None
            if content is None:
                continue
            if self.deep and content.size_bytes == file.size_bytes:
                content = RemoteContent(content.size_bytes, await _hash(self.reader.read(self.remote, path)))
            if content.size_bytes == file.size_bytes:
                ours = await _md5_of(file, deep=self.deep)
                if ours is None or content.md5 in {None, ours}:
                    return None
            found = found or content
        source = {"size": file.size_bytes, "md5": file.md5}
        if found is None:
            return Difference(Kind.FILE, file.path, Change.MISSING, source, from_seq=from_seq)
        target = {"size": found.size_bytes, "md5": found.md5}
        return Difference(Kind.FILE, file.path, Change.DIFFERS, source, target, from_seq=from_seq)

    def _told(self) -> Iterator[Difference]:
        """Of an overflow file that is not there at all, another comparison tells."""
        if self.overflow is None:
            return
        decided = self.expected.overflows.decided
        revised = {key: revision_path(seq, key) for (kind, key), seq in decided.items() if kind == "revision"}
        gone: dict[str, str | None] = {key: None for kind, key in decided if kind == "deleted_artifact"}
        told_gone = dict.fromkeys(self.overflow.deleted_files)
        for wanted, told in ((revised, self.overflow.revisions), (gone, told_gone)):
            for path in sorted(wanted.keys() | told.keys()):
                ours, theirs = wanted.get(path), told.get(path)
                if path not in told:
                    yield Difference(Kind.FILE, path, Change.MISSING, ours, in_overflow=True)
                elif path not in wanted:
                    yield Difference(Kind.FILE, path, Change.SURPLUS, target=theirs, in_overflow=True)
                elif ours != theirs:
                    yield Difference(Kind.FILE, path, Change.DIFFERS, ours, theirs, in_overflow=True)


async def _md5_of(file: RemoteFile, *, deep: bool) -> str | None:
    """As recorded; where nothing was, the file is read if the look is deep."""
    if file.md5 is not None or not deep:
        return file.md5
    return await _hash(await file.read(0, file.size_bytes)) if file.size_bytes else _MD5_OF_NOTHING


async def _hash(pieces: AsyncIterator[bytes]) -> str:
    hashing = hashlib.md5(usedforsecurity=False)
    async for piece in pieces:
        hashing.update(piece)
    return hashing.hexdigest()

"""Files of runs and logged models: streamed from there into the artifact store, each recorded as a client's upload is.

A file that is recorded already, of the same size and (where the source tells contents apart) the same hash, is not sent
again: so a call that broke off in the middle of a run's files goes on with the next one.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Written
from runmirror.artifacts.places import Place, path_of
from runmirror.artifacts.places import Root as Target
from runmirror.artifacts.safe_path import safe_path
from runmirror.artifacts.service import Artifacts, Slot
from runmirror.errors import RunmirrorError
from runmirror.importing import files_queries, queries
from runmirror.importing.entities import OldFile, fingerprint
from runmirror.importing.source import Root, Source, SourceError

_ATTEMPTS = 2


@dataclass(slots=True)
class Copied:
    """What became of some files."""

    files: int = 0
    bytes: int = 0
    unchanged: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)  # (run or model id, why)


class FileCopier:
    """Copies from one source into our store."""

    def __init__(self, engine: AsyncEngine, source: Source, source_id: int, artifacts: Artifacts) -> None:
        self._engine = engine
        self._source = source
        self._source_id = source_id
        self._artifacts = artifacts

    async def copy(self, kind: str, known: Row[Any], *, again: bool) -> Copied:
        """All files of a run or logged model that was imported; a list that is the same as before is not gone through.

        `again`: also of one whose files were all here before.
        """
        told = Copied()
        if known.files is not None and not again:
            return told
        root = Root(known.key, "", known.artifact_uri) if kind == "run" else Root("", known.key, known.artifact_uri)
        try:
            listed = sorted(await self._source.list_files(root), key=lambda file: file.path)
        except SourceError as error:
            told.refused.append((known.key, str(error)))
            return told
        print_ = fingerprint([(file.path, file.size_bytes, file.mark, file.md5) for file in listed])
        if print_ == known.files:
            told.unchanged += len(listed)
            return told
        async with self._engine.connect() as connection:
            owner = await files_queries.owner(connection, kind, known.target)
            if owner is None:
                return told
            recorded = await files_queries.recorded(connection, owner.run_id, owner.model_id)
        target = Target(owner.run_id, owner.model_id, path_of(owner.artifact_uri))
        for file in listed:
            try:
                await self._one(root, target, file, recorded.get(file.path), told)
            except (SourceError, RunmirrorError) as error:
                why = getattr(error, "message", str(error))
                told.refused.append((known.key, f"file {file.path[:300]}: {why}"))
        if not told.refused and owner.ended:  # else more may come without anything else being changed
            async with self._engine.begin() as connection:
                await queries.note_files(connection, self._source_id, kind, known.key, print_)
        return told

    async def _one(self, root: Root, target: Target, file: OldFile, before: Row[Any] | None, told: Copied) -> None:
        place = Place(target, safe_path(file.path))
        if before is not None and not before.deleted and await self._is_same(root, file, before):
            told.unchanged += 1
            return
        slot = Slot(place if target.run_id is not None else None, before.seq if before is not None else 0)
        for attempt in range(1, _ATTEMPTS + 1):
            written = await self._artifacts.store.write(place.store_path, self._source.read_file(root, file.path))
            if fault := _fault(file, written):
                if attempt == _ATTEMPTS:
                    raise SourceError(fault)
            else:
                break
        await self._artifacts.record(slot, written)
        told.files += 1
        told.bytes += written.size_bytes

    async def _is_same(self, root: Root, file: OldFile, before: Row[Any]) -> bool:
        if file.size_bytes is None or file.size_bytes != before.size_bytes:
            return False
        if file.md5 is not None and before.md5 is not None:
            return file.md5 == str(before.md5)
        if not file.mark or before.md5 is None:
            return True
        return await _md5(self._source.read_file(root, file.path)) == str(before.md5)


def _fault(file: OldFile, written: Written) -> str | None:
    if file.size_bytes is not None and written.size_bytes != file.size_bytes:
        return f"{written.size_bytes} bytes arrived of {file.size_bytes}"
    if file.md5 is not None and written.md5 is not None and written.md5 != file.md5:
        return f"what arrived has the MD5 {written.md5}, not {file.md5}"
    return None


async def _md5(chunks: AsyncIterator[bytes]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    async for chunk in chunks:
        await asyncio.to_thread(digest.update, chunk)
    return digest.hexdigest()


def sizes(listed: Sequence[OldFile]) -> dict[str, int | None]:
    return {file.path: file.size_bytes for file in listed}

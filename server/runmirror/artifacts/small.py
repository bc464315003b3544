"""The hot way of small uploads: those that arrive together are looked up, stored and recorded together.

Only what is plainly a file of a run, or of a logged model that a run made, goes this way, and only into a folder. What
meets any trouble on it is left to the ordinary way, which begins anew and says what is wrong; see `service.py` for
why a record is optimistic.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from runmirror.artifacts import small_queries
from runmirror.artifacts.files import Store, Written
from runmirror.artifacts.local import LocalStore
from runmirror.artifacts.local_many import Unfinished
from runmirror.artifacts.places import MODEL_ID, Place, Root, ids_in, path_of
from runmirror.artifacts.safe_path import safe_path
from runmirror.errors import InvalidParameter
from runmirror.hot.connections import Connections, or_the_ordinary_way
from runmirror.hot.together import Together
from runmirror.wire import RUN_ID

MAX_BYTES = 64 * 1024  # what the server reads ahead of a request anyway
_LANES = 2  # more would make smaller groups; measured
_MOST = 32  # files of one group
_MOST_WAITING = 500


@dataclass(frozen=True, slots=True)
class _File:
    """A file below what must be the root of its owner, if there is such an owner."""

    store_path: str
    run_id: UUID | None
    model_id: str | None
    root: str
    path: str
    data: bytes
    written: Written


# By the number of a file: its place, and the seq of its row before.
_Slots = dict[int, tuple[Place, int]]


class SmallUploads:
    """`store` tells the store as it is now."""

    def __init__(self, store: Callable[[], Store], connections: Connections) -> None:
        self._store = store
        self._connections = connections
        self._uploads = Together[_File, bool](
            self._send, repeatable=(), lanes=_LANES, most=_MOST, most_waiting=_MOST_WAITING
        )

    async def upload(self, path: str, data: bytes) -> bytes | None:
        """The empty body of the answer once the file is stored and recorded; None: let the ordinary route have it."""
        file = _file(path, data)
        if file is None or not isinstance(self._store(), LocalStore):
            return None
        return b"" if await self._uploads.write(file, key=file.store_path) else None

    async def close(self) -> None:
        await self._uploads.close()

    async def _send(self, files: Sequence[_File]) -> Sequence[bool]:
        store = self._store()
        done: set[int] = set()
        if isinstance(store, LocalStore):
            writing = asyncio.create_task(store.begin_many([file.data for file in files]))
            try:
                with or_the_ordinary_way():
                    slots = await self._slots(files)
                    done.update(await self._store_and_record(store, files, slots, await writing))
            finally:
                for file in await writing:
                    file.end()
        return [n in done for n in range(len(files))]

    async def _store_and_record(
        self, store: LocalStore, files: Sequence[_File], slots: _Slots, unfinished: Sequence[Unfinished]
    ) -> list[int]:
        """The numbers of the files for which all of it went well."""
        numbers = list(slots)
        stored = await store.publish_many([(unfinished[n], files[n].store_path) for n in numbers])
        numbers = [n for n, is_stored in zip(numbers, stored, strict=True) if is_stored]
        if not numbers:
            return []
        async with self._connections.connection() as connection:
            recorded = await small_queries.record_many(
                connection, [(slots[n][0], files[n].written, slots[n][1]) for n in numbers]
            )
        return [n for n, is_recorded in zip(numbers, recorded, strict=True) if is_recorded]

    async def _slots(self, files: Sequence[_File]) -> _Slots:
        """Place and expected seq of each file that has an owner; of several for one path, the first."""
        async with self._connections.connection() as connection:
            owners = await small_queries.owners(
                connection,
                [file.run_id for file in files],
                [file.model_id for file in files],
                [file.path for file in files],
            )
        slots: _Slots = {}
        taken: set[str] = set()
        for number, owner in sorted(owners.items()):
            file = files[number]
            if file.store_path not in taken and _leads_to(owner.artifact_uri, file.root):
                taken.add(file.store_path)
                slots[number] = Place(Root(owner.run_id, owner.model_id, file.root), file.path), owner.seq
        return slots


def _file(path: str, data: bytes) -> _File | None:
    """None for a path that is not safe, or that is not plainly below the root of one owner."""
    try:
        run_ids, model_ids = ids_in(safe_path(path))
    except InvalidParameter:
        return None
    if len(run_ids) + len(model_ids) != 1:
        return None
    segments = path.split("/")
    owner = next(n for n, segment in enumerate(segments) if RUN_ID.match(segment) or MODEL_ID.match(segment))
    root, below = segments[: owner + 2], segments[owner + 2 :]
    if root[-1] != "artifacts" or not below:
        return None
    written = Written(len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())
    run_id, model_id = next(iter(run_ids), None), next(iter(model_ids), None)
    return _File(path, run_id, model_id, "/".join(root), "/".join(below), data, written)


def _leads_to(artifact_uri: str, root: str) -> bool:
    with suppress(InvalidParameter):
        return path_of(artifact_uri) == root
    return False

"""The hot way of small uploads: those that arrive together are looked up, stored and recorded together.

Only what is plainly a file of a run, or of a logged model that a run made, goes this way, and only into a folder. What
meets any trouble on it is left to the ordinary way, which begins anew and says what is wrong; see `service.py` for
why a record is optimistic.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from runmirror.artifacts import small_queries
from runmirror.artifacts.files import Store
from runmirror.artifacts.local import SMALL_AT_ONCE, LocalStore
from runmirror.artifacts.places import MODEL_ID, Place, Root, ids_in, path_of
from runmirror.artifacts.safe_path import safe_path
from runmirror.errors import InvalidParameter
from runmirror.hot.connections import Connections, or_the_ordinary_way
from runmirror.hot.together import Together
from runmirror.wire import RUN_ID

MAX_BYTES = 64 * 1024  # what the server reads ahead of a request anyway
_LANES = SMALL_AT_ONCE  # more would make smaller groups; measured
_MOST = 32  # files of one group
_MOST_WAITING = 500
_MOST_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class _File:
    """A file below what must be the root of its owner, if there is such an owner."""

    store_path: str
    run_id: UUID | None
    model_id: str | None
    root: str
    path: str
    data: bytes


# By the number of a file: its place, and the seq of its row before.
_Slots = dict[int, tuple[Place, int]]


class SmallUploads:
    """`store` tells the store as it is now.

    A root that was asked for once is known from then on: whether its run is still there shows when the file is
    recorded. Most files are new, so each is first taken to be, which needs no look at its row before; one that
    is not so is asked for and stored once more.
    """

    def __init__(self, store: Callable[[], Store], connections: Connections) -> None:
        self._store = store
        self._connections = connections
        self._uploads = Together[_File, bool](
            self._send, repeatable=(), lanes=_LANES, most=_MOST, most_waiting=_MOST_WAITING
        )
        self._roots: dict[UUID | str | None, Root] = {}  # by `_owner_id`
        self._not_new: set[str] = set()

    async def upload(self, path: str, data: bytes) -> bytes | None:
        """The empty body of the answer once the file is stored and recorded; None: let the ordinary route have it."""
        file = _file(path, data)
        store = self._store()
        if file is None or not isinstance(store, LocalStore) or not store.takes_many:
            return None
        return b"" if await self._uploads.write(file, key=file.store_path) else None

    async def close(self) -> None:
        await self._uploads.close()

    async def _send(self, files: Sequence[_File]) -> Sequence[bool]:
        store = self._store()
        done: set[int] = set()
        if isinstance(store, LocalStore):
            with or_the_ordinary_way():
                await self._store_and_record(store, files, self._assumed(files), done)
                left = [n for n in range(len(files)) if n not in done]
                if left:
                    await self._store_and_record(store, files, await self._asked(files, left), done)
        return [n in done for n in range(len(files))]

    async def _store_and_record(self, store: LocalStore, files: Sequence[_File], slots: _Slots, done: set[int]) -> None:
        """Add the numbers of the files for which all of it went well to `done`."""
        if not slots:
            return
        put = await store.put_many([(files[n].store_path, files[n].data) for n in slots])
        stored = {n: written for n, written in zip(slots, put, strict=True) if written is not None}
        if not stored:
            return
        async with self._connections.connection() as connection:
            recorded = await small_queries.record_many(
                connection, [(slots[n][0], written, slots[n][1]) for n, written in stored.items()]
            )
        done.update(n for n, is_recorded in zip(stored, recorded, strict=True) if is_recorded)

    def _assumed(self, files: Sequence[_File]) -> _Slots:
        """Of the files whose root is known, those that may be new; of several for one path, the first."""
        slots: _Slots = {}
        taken: set[str] = set()
        for number, file in enumerate(files):
            root = self._roots.get(_owner_id(file))
            if root is None or root.path != file.root or file.store_path in self._not_new:
                continue
            if file.store_path not in taken:
                taken.add(file.store_path)
                slots[number] = Place(root, file.path), 0
        return slots

    async def _asked(self, files: Sequence[_File], numbers: Sequence[int]) -> _Slots:
        """Place and expected seq of each file that has an owner; of several for one path, the first."""
        async with self._connections.connection() as connection:
            owners = await small_queries.owners(
                connection,
                [files[n].run_id for n in numbers],
                [files[n].model_id for n in numbers],
                [files[n].path for n in numbers],
            )
        slots: _Slots = {}
        taken: set[str] = set()
        for place, owner in sorted(owners.items()):
            number = numbers[place]
            file = files[number]
            if file.store_path not in taken and _leads_to(owner.artifact_uri, file.root):
                taken.add(file.store_path)
                root = Root(owner.run_id, owner.model_id, file.root)
                self._remember(file, root, is_new=owner.seq == 0)
                slots[number] = Place(root, file.path), owner.seq
        return slots

    def _remember(self, file: _File, root: Root, *, is_new: bool) -> None:
        if max(len(self._roots), len(self._not_new)) >= _MOST_KNOWN:
            self._roots.clear()
            self._not_new.clear()
        self._roots[_owner_id(file)] = root
        if not is_new:
            self._not_new.add(file.store_path)


def _owner_id(file: _File) -> UUID | str | None:
    return file.model_id if file.run_id is None else file.run_id


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
    run_id, model_id = next(iter(run_ids), None), next(iter(model_ids), None)
    return _File(path, run_id, model_id, "/".join(root), "/".join(below), data)


def _leads_to(artifact_uri: str, root: str) -> bool:
    with suppress(InvalidParameter):
        return path_of(artifact_uri) == root
    return False

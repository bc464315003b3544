"""Uploads and deletions below the root of a run or logged model, recorded as changes of the run.

No connection is held while bytes travel, and none while the store thinks, so store and database cannot change at once.
Instead a record is optimistic: whoever changes a file notes the seq of its row before, changes the store, then records
only if the row still has that seq. If somebody recorded in between, what lies in the store now may not be ours, so it
is asked and the record tried again on top of theirs. The last to record has then looked at the store after every
change but those still to be recorded, so row and bytes agree once all are. A crash in between leaves bytes that were
never acknowledged; a repeated upload records them.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.artifacts import queries
from runmirror.artifacts.files import Store, Written
from runmirror.artifacts.places import Place, ids_in, path_of, place_below, roots_below
from runmirror.errors import Busy, InvalidParameter, RunNotFound
from runmirror.hot.connections import Connections, or_the_ordinary_way
from runmirror.runs import writes

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection]]

MAX_RECORD_ATTEMPTS = 100  # each failure means that somebody else's record went in


class Artifacts:
    """The store, and the two ways to the database for as long as one step needs them."""

    def __init__(self, store: Store, *, reading: Connect, writing: Connect, hot: Connections | None = None) -> None:
        self.store = store
        self.hot = hot
        self.reading = reading
        self.writing = writing

    async def upload(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Store a file and record it; one that lies below no run is only stored, as MLflow does."""
        slot = await self.slot(path)
        await self.record(slot, await self.store.write(path, chunks))

    async def slot(self, path: str) -> "Slot":
        """Where a file is about to be stored. Raises `InvalidParameter` when that is the folder of somebody's files."""
        if (usual := await self._usual_slot(path)) is not None:
            return usual
        run_ids, model_ids = ids_in(path)
        async with self.reading() as connection:
            roots = await queries.roots(connection, run_ids, model_ids) if run_ids or model_ids else []
            place = place_below(roots, path)
            if (place is not None and not place.path) or roots_below(roots, path):
                raise InvalidParameter(f"Artifact path refers to a directory, not a file: '{path}'")
            if place is None and await queries.holds_experiment(connection, path):
                raise InvalidParameter(f"Artifact path refers to a directory, not a file: '{path}'")
            if place is None or place.root.run_id is None:
                return Slot(None, queries.NEVER)
            return Slot(place, await queries.seq_of(connection, place))

    async def _usual_slot(self, path: str) -> "Slot | None":
        """A file below the root of a run or of a logged model that a run made; None for everything else."""
        run_ids, model_ids = ids_in(path)
        if self.hot is None or not (run_ids or model_ids):
            return None
        with or_the_ordinary_way():
            async with self.hot.connection() as connection:
                roots = await queries.roots_at_once(connection, run_ids, model_ids)
                place = place_below(roots, path)
                if place is None or not place.path or place.root.run_id is None or roots_below(roots, path):
                    return None
                return Slot(place, await queries.seq_at_once(connection, place))
        return None

    async def record(self, slot: "Slot", written: Written) -> None:
        """Say what was stored since `slot` was looked up."""
        if slot.place is None:
            return
        with or_the_ordinary_way():  # which finds out why
            if self.hot is not None:
                async with self.hot.connection() as connection:
                    if await queries.record_at_once(connection, slot.place, written, expected=slot.expected):
                        return
        await self._record(slot.place, written, slot.expected)

    async def compare(self, place: Place) -> None:
        """Record what the store holds at `place` if that is not what is recorded. Raises `RunNotFound`."""
        async with self.reading() as connection:
            recorded, seq = await queries.recorded(connection, place)
        held = await self.store.digest(place.store_path)
        if held != recorded:
            await self._record(place, held, seq)

    async def delete(self, path: str) -> None:
        """Remove a file or folder from the store and mark what is recorded of it as deleted."""
        run_ids, model_ids = ids_in(path)
        async with self.reading() as connection:
            roots = await queries.roots(connection, run_ids, model_ids) if run_ids or model_ids else []
            places = [Place(root, "") for root in roots_below(roots, path)]
            if around := place_below(roots, path):
                places.append(around)
            if not places and await queries.holds_experiment(connection, path):
                raise InvalidParameter("This folder holds the artifacts of an experiment: delete them run by run.")
            places = [place for place in places if place.root.run_id is not None]
            upto = [await queries.run_seq(connection, _run_id(place)) for place in places]
        removed = await self.store.delete(path)
        if removed:
            async with self.writing() as connection:
                await audit.record(connection, "artifacts.delete", f"{len(removed)} at {path}")
        for place, seq in zip(places, upto, strict=True):
            await self._record_deletion(place, removed, seq)

    async def root_uri(self, run_id: str) -> str:
        """The artifact root of a run, whatever its lifecycle stage. Raises `RunNotFound`."""
        async with self.reading() as connection:
            uri = await queries.artifact_uri(connection, writes.parse_run_id(run_id))
        if uri is None:
            raise RunNotFound(run_id)
        return uri

    async def path_in_run(self, run_id: str, path: str) -> str:
        """The store path of `path` ("" for the root) below a run's artifact root."""
        root = path_of(await self.root_uri(run_id))
        return f"{root}/{path}" if path else root

    async def _record(self, place: Place, held: Written | None, expected: int) -> None:
        for _ in range(MAX_RECORD_ATTEMPTS):
            try:
                async with self.writing() as connection:
                    write = await writes.begin(connection, _run_id(place), stage=None)
                    if await queries.record(connection, place, held, expected=expected, seq=write.seq):
                        return
                    raise _Overtaken(await queries.seq_of(connection, place))  # rolls the new seq back
            except _Overtaken as overtaken:
                expected = overtaken.seq
            held = await self.store.digest(place.store_path)
        raise Busy("This file is being written by too many at once; send it again.")

    async def _record_deletion(self, place: Place, removed: Sequence[str], upto: int) -> None:
        prefix = place.root.path + "/"
        below = [path.removeprefix(prefix) for path in removed if path.startswith(prefix)]
        if not below:
            async with self.reading() as connection:
                if not await queries.has_files(connection, place):
                    return
        async with self.writing() as connection:
            write = await writes.begin(connection, _run_id(place), stage=None)
            later = await queries.record_deletion(connection, place, below, upto=upto, seq=write.seq)
        for path, seq in later:
            overtaken = Place(place.root, path)
            await self._record(overtaken, await self.store.digest(overtaken.store_path), seq)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a file, and the seq of its row before; no place: what lies there is not recorded."""

    place: Place | None
    expected: int


class _Overtaken(Exception):
    """Somebody recorded the same file in between; `seq` is their record's."""

    def __init__(self, seq: int) -> None:
        super().__init__(seq)
        self.seq = seq


def _run_id(place: Place) -> UUID:
    if place.root.run_id is None:
        raise ValueError("only what a run made is recorded")
    return place.root.run_id

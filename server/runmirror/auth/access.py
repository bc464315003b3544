"""What users may do, asked of the database once and then kept until something changes; see `identities`."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.artifacts.location import SCHEME
from runmirror.auth import queries
from runmirror.auth.identities import Identities
from runmirror.auth.levels import Kind
from runmirror.auth.subjects import Thing
from runmirror.auth.things import SETTLED, Places, places_of
from runmirror.auth.viewer import Viewer
from runmirror.db import DATABASE_ERRORS, answer_for
from runmirror.errors import Busy

_MOST_KEPT = 200_000


class Access:
    """Looks up where things lie and who may do what to them."""

    def __init__(self, engine: AsyncEngine, identities: Identities) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._identities = identities
        self._levels: dict[tuple[int, Kind, int], int] = {}
        self._places: dict[tuple[Thing, str], list[int]] = {}
        self._tops: dict[str, list[int]] = {}  # folders at the top of the store with all below in these experiments
        identities.at_change(self._forget)

    async def places(self, thing: Thing, given: Sequence[str], connection: AsyncConnection | None = None) -> Places:
        """Of each that is there, the experiments it lies in, or the registered model it is."""
        found = {text: self._places[thing, text] for text in given if (thing, text) in self._places}
        tops = self._tops
        if unknown := [text for text in given if text not in found]:
            try:
                async with self._connected(connection) as connected:
                    asked = await places_of(connected, thing, unknown)
                    if thing is Thing.FILE and self._identities.is_fresh:
                        await _keep_top(connected, tops, unknown[0])
            except DATABASE_ERRORS as error:
                raise _answer(error) from error
            found.update(asked)
            if thing in SETTLED:
                self._keep_places(thing, asked)
        return found

    async def levels(
        self, viewer: Viewer, kind: Kind, ids: Sequence[int], connection: AsyncConnection | None = None
    ) -> Mapping[int, int]:
        """What the viewer may do to each of these."""
        kept = self._levels
        found = {number: kept[viewer.user_id, kind, number] for number in ids if (viewer.user_id, kind, number) in kept}
        if unknown := [number for number in ids if number not in found]:
            try:
                async with self._connected(connection) as connected:
                    asked = await queries.levels(connected, kind, unknown, viewer.principals, viewer.default_level)
            except DATABASE_ERRORS as error:
                raise _answer(error) from error
            found.update(asked)
            # What changed meanwhile has made `_levels` another dictionary: what is put into the old one is lost.
            if self._identities.is_fresh and len(kept) < _MOST_KEPT:
                kept.update(((viewer.user_id, kind, number), level) for number, level in asked.items())
        return found

    def known_level(self, viewer: Viewer, kind: Kind, number: int) -> int | None:
        return self._levels.get((viewer.user_id, kind, number))

    def known_places(self, thing: Thing, given: str) -> list[int] | None:
        if thing is Thing.FILE:
            return self._tops.get(_top(given))
        return self._places.get((thing, given))

    def _connected(self, connection: AsyncConnection | None) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._engine.connect() if connection is None else nullcontext(connection)

    def _keep_places(self, thing: Thing, places: Places) -> None:
        if len(self._places) >= _MOST_KEPT:
            self._places.clear()
        self._places.update(((thing, text), numbers) for text, numbers in places.items())

    def _forget(self) -> None:
        """Whoever makes an experiment is granted it, which is a change too: so no place is kept that got another."""
        self._levels, self._tops = {}, {}


def _top(path: str) -> str:
    return path.partition("/")[0]


async def _keep_top(connection: AsyncConnection, tops: dict[str, list[int]], path: str) -> None:
    """An experiment's files lie below its number, unless it was given another place; then nothing is kept."""
    top = _top(path)
    if (
        top not in tops
        and len(tops) < _MOST_KEPT
        and not await queries.experiments_below(connection, f"{SCHEME}{top}/")
    ):
        tops[top] = await queries.experiments_around(connection, [SCHEME + top])


def _answer(error: Exception) -> Exception:
    if isinstance(error, DBAPIError):
        return answer_for(error, wrote_nothing=True)
    return Busy("The database cannot be reached or is busy; nothing was done, try again.")

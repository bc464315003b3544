"""What the sender of a request may do, asked by whoever answers it.

The permits of the request that is being answered are `current()`. Outside of a request (the worker, the command line)
and with RUNMIRROR_AUTH=none everything is permitted, and asking costs nothing.
"""

from collections.abc import Sequence
from contextvars import ContextVar

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.artifacts.location import SCHEME
from runmirror.auth import queries
from runmirror.auth.access import Access
from runmirror.auth.levels import NEEDED, Kind, Level, word_for
from runmirror.auth.subjects import Audience, Given, Subject, Thing, named_in
from runmirror.auth.things import experiments_touched, kind_of, not_found
from runmirror.auth.viewer import Viewer
from runmirror.errors import PermissionDenied, RunmirrorError, Unauthenticated
from runmirror.routing import Permission


class Permits:
    """What one user may do; without a user nothing, or, if there is no `access` to ask, everything."""

    __slots__ = ("_access", "viewer")

    def __init__(self, viewer: Viewer | None, access: Access | None) -> None:
        self.viewer = viewer
        self._access = access

    @property
    def is_admin(self) -> bool:
        return self._access is None if self.viewer is None else self.viewer.is_admin

    @property
    def reads_all_experiments(self) -> bool:
        """Whether no experiment is hidden, so that lists need no condition."""
        return self._access is None if self.viewer is None else self.viewer.reads_all_experiments

    @property
    def reads_all_models(self) -> bool:
        """Whether no registered model is hidden, so that lists need no condition."""
        return self._access is None if self.viewer is None else self.viewer.reads_all_models

    async def check(self, subject: Subject, permission: Permission, given: Given) -> None:
        """Raise `PermissionDenied` unless the viewer may do this to all that the request names."""
        if self.is_admin:
            return
        viewer, _ = self._signed_in()
        if subject.audience is Audience.ADMIN:
            raise PermissionDenied("Permission denied: this is for admins.")
        if subject.audience is Audience.WHOLE and not viewer.reads_all:
            raise PermissionDenied("Permission denied: this tells of all experiments and models, and some are hidden.")
        for named in subject.named:
            needed = named.level or NEEDED[permission]
            await self.require(named.thing, named_in(given, named), needed, found=named.required)

    def allow_at_once(self, subject: Subject, permission: Permission, given: Given) -> bool:
        """Whether it is known, without asking the database, that the viewer may do this."""
        if self.is_admin:
            return True
        if self.viewer is None or subject.audience is not Audience.SIGNED_IN:
            return False
        try:
            return all(
                self._is_known_to_suffice(named.thing, text, named.level or NEEDED[permission])
                for named in subject.named
                for text in named_in(given, named)
            )
        except RunmirrorError:  # something is missing: the ordinary way says what
            return False

    async def require(
        self,
        thing: Thing,
        ids: Sequence[str],
        level: Level,
        *,
        found: bool = False,
        connection: AsyncConnection | None = None,
    ) -> None:
        """Raise `PermissionDenied` unless the viewer may do so much to each of these that is there.

        With `found`, raise `DoesNotExist` at the first that is not there. Who holds a connection passes it on: to wait
        for a second one could be to wait for each other.
        """
        if not ids or self.is_admin:
            return
        viewer, access = self._signed_in()
        places = await access.places(thing, ids, connection)
        numbers = sorted({number for of in places.values() for number in of})
        levels = await access.levels(viewer, kind_of(thing), numbers, connection)
        for given in ids:
            if given not in places:
                if found:
                    raise not_found(thing, given)
            elif not _suffices(viewer, thing, [levels[number] for number in places[given]], level):
                raise PermissionDenied(
                    f"Permission denied: {word_for(level)} permission is needed for the {thing} '{given[:200]}'."
                )

    async def readable(self, connection: AsyncConnection, experiment_ids: Sequence[int]) -> list[int]:
        """Those of the experiments that the viewer may read."""
        if self.reads_all_experiments:
            return list(experiment_ids)
        viewer, access = self._signed_in()
        levels = await access.levels(viewer, Kind.EXPERIMENT, list(set(experiment_ids)), connection)
        return [number for number in experiment_ids if levels[number] >= Level.READ]

    async def created(self, connection: AsyncConnection, kind: Kind, resource_id: int) -> None:
        """Whoever creates an experiment or a registered model is its manager."""
        if self.viewer is not None:
            await queries.make_manager(connection, kind, resource_id, self.viewer.user_id)

    async def require_place(self, connection: AsyncConnection, location: str) -> None:
        """Raise `PermissionDenied` unless the viewer may have an experiment's artifacts there.

        What lies in two experiments' places has the permissions of both, so nobody puts one into another's. The places
        that experiments get by themselves are numbers.
        """
        if self.is_admin:
            return
        viewer, access = self._signed_in()
        touched = await experiments_touched(connection, location)
        levels = await access.levels(viewer, Kind.EXPERIMENT, touched, connection)
        is_free = bool(touched) or not location.removeprefix(SCHEME).split("/")[0].isdigit()
        if not is_free or any(level < Level.MANAGE for level in levels.values()):
            raise PermissionDenied(f"Permission denied: {location[:200]!r} is a place of other experiments.")

    def _signed_in(self) -> tuple[Viewer, Access]:
        if self.viewer is None or self._access is None:
            raise Unauthenticated("Not signed in.")
        return self.viewer, self._access

    def _is_known_to_suffice(self, thing: Thing, given: str, level: Level) -> bool:
        viewer, access = self._signed_in()
        places = access.known_places(thing, given)
        if places is None:
            return False
        held = [access.known_level(viewer, kind_of(thing), number) for number in places]
        return _suffices(viewer, thing, [Level.DENY if each is None else each for each in held], level)


def _suffices(viewer: Viewer, thing: Thing, held: Sequence[int], level: Level) -> bool:
    """A dataset can be read by whoever reads one of its experiments, and changed by whoever may change all of them.

    What lies in no experiment can be read by those from whom nothing is hidden.
    """
    if not held:
        return viewer.reads_all_experiments and level is Level.READ
    enough = any if thing is Thing.DATASET and level is Level.READ else all
    return enough(one >= level for one in held)


EVERYTHING = Permits(None, None)

_current: ContextVar[Permits] = ContextVar("permits", default=EVERYTHING)
set_current = _current.set
reset_current = _current.reset


def current() -> Permits:
    return _current.get()

"""Asks the linked workspace about a run or an experiment that a client named, and makes it ours."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.adoption import queries
from runmirror.adoption.errors import AzureExperimentUnknown, AzureRunNotFound
from runmirror.adoption.flights import Flights
from runmirror.db import answer_for
from runmirror.entities import Batch, LifecycleStage, Metric, Tag
from runmirror.errors import Busy
from runmirror.mirror.link_queries import Link, read_links
from runmirror.mirror.target import BornThere, RemoteRun, TargetError
from runmirror.run_ids import stored_id
from runmirror.runs.service import RUN_NAME_TAG
from runmirror.settings import Settings
from runmirror.wire import finite_or_nan

if TYPE_CHECKING:  # Azure's clients take a quarter of a second and 20 MB: only who has a workspace imports them
    from runmirror.mirror.azureml import AzureMLTarget

log = logging.getLogger(__name__)

_Found = TypeVar("_Found")

_MOST_POINTS = 100_000
_SOURCE_TAG = "runmirror.run_id"
_OWN_TAGS = "runmirror."


class Adoption:
    """Of one API process: its connection to the workspace, and what it is asking there."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        wait_s = settings.azureml_adopt_timeout.total_seconds()
        self._runs = Flights[None](wait_s)
        self._experiments = Flights[int](wait_s)
        self._known_experiments: dict[str, int] = {}
        self._opening = asyncio.Lock()
        self._targets: dict[str, AzureMLTarget] = {}  # by the workspace's id, in small letters

    async def close(self) -> None:
        await self._runs.close()
        await self._experiments.close()
        for target in self._targets.values():
            await target.close()

    async def run(self, run_id: str) -> None:
        """Make the workspace's run of that id ours. Raises `AzureRunNotFound`, or `Busy` when it cannot be told now."""
        if not self._settings.azureml_adopt:
            raise AzureRunNotFound.switched_off(run_id)
        if not (linked := await self._linked()):
            raise AzureRunNotFound.without_workspace(run_id)

        async def adopt() -> None:
            if await self._first(linked, lambda link: self._adopt_run(link, run_id)) is None:
                raise AzureRunNotFound.unknown_to([link.workspace_id for link in linked], run_id)

        await self._runs.find(_key(linked, run_id), lambda: self._asking(adopt()))

    async def experiment(self, azure_experiment_id: str) -> int:
        """Our experiment for one of the workspace. Raises `AzureExperimentUnknown`, or `Busy`."""
        key = azure_experiment_id.lower()
        if key in self._known_experiments:
            return self._known_experiments[key]
        linked = await self._linked()
        found = await self._experiment_here(key)
        if found is None:
            if not linked or not self._settings.azureml_adopt:
                raise AzureExperimentUnknown.of([], azure_experiment_id)

            async def adopt() -> int:
                made = await self._first(linked, lambda link: self._adopt_experiment(link, key))
                if made is None:
                    raise AzureExperimentUnknown.of([link.workspace_id for link in linked], azure_experiment_id)
                return made

            found = await self._experiments.find(_key(linked, key), lambda: self._asking(adopt()))
        self._known_experiments[key] = found
        return found

    async def _linked(self) -> Sequence[Link]:
        """The default one first."""
        async with self._transaction() as connection:
            linked = await read_links(connection)
        # Before the first worker has written it down, it is in the settings.
        return sorted(linked, key=lambda link: not link.is_default) or self._named()

    def _named(self) -> Sequence[Link]:
        if self._settings.azureml_workspace is None and self._settings.azureml_tracking_uri is None:
            return []
        from runmirror.mirror.link import link_of_settings  # noqa: PLC0415 - see above

        named = link_of_settings(self._settings)
        return [] if named is None else [named]

    async def _first(self, linked: Sequence[Link], ask: Callable[[Link], Awaitable[_Found | None]]) -> _Found | None:
        """What the first workspace says that knows; who cannot be asked now may be the one that does."""
        failed: TargetError | None = None
        for link in linked:
            try:
                if (found := await ask(link)) is not None:
                    return found
            except TargetError as error:
                failed = error
        if failed is not None:
            raise failed
        return None

    async def _experiment_here(self, azure_experiment_id: str) -> int | None:
        async with self._transaction() as connection:
            return await queries.known_experiment(connection, azure_experiment_id)

    async def _adopt_run(self, link: Link, run_id: str) -> UUID | None:
        """None when the workspace does not know the run."""
        target = await self._target(link)
        born = await target.look_up(run_id)
        key = stored_id(run_id)
        if born is None or born.run_id != run_id or key is None:
            return None
        if born.state.stage is LifecycleStage.DELETED:
            raise AzureRunNotFound.deleted(run_id)
        made_for = next((tag.value for tag in born.batch.tags if tag.key == _SOURCE_TAG), None)
        if made_for is not None and made_for != key.hex:
            raise AzureRunNotFound.a_copy(run_id, made_for)
        name = await target.experiment_name(born.experiment_id)
        if name is None:
            return None
        born = replace(_in_our_words(born), batch=Batch(
            await self._points(target, born), born.batch.params, tuple(_tags(born))
        ))  # fmt: skip
        async with self._transaction() as connection:
            experiment_id, link_id = await self._own_experiment(connection, link, born.experiment_id, name)
            place = await queries.place_of(connection, experiment_id)
            if place.lifecycle_stage != LifecycleStage.ACTIVE:
                raise AzureRunNotFound.in_deleted_experiment(run_id, place.name)
            is_new = await queries.adopt_run(
                connection, key, born, experiment_id=experiment_id, link_id=link_id,
                artifact_uri=f"{place.artifact_location}/{key.hex}/artifacts",
                portal_url=target.portal_url(RemoteRun(born.experiment_id, run_id)),
            )  # fmt: skip
        if is_new:
            log.info("run %s of %s is adopted", run_id, link.workspace_id)
        return key

    async def _adopt_experiment(self, link: Link, azure_experiment_id: str) -> int | None:
        """None when the workspace does not know the experiment."""
        name = await (await self._target(link)).experiment_name(azure_experiment_id)
        if name is None:
            return None
        async with self._transaction() as connection:
            experiment_id, _ = await self._own_experiment(connection, link, azure_experiment_id, name)
        return experiment_id

    async def _own_experiment(
        self, connection: AsyncConnection, link: Link, azure_experiment_id: str, name: str
    ) -> tuple[int, int]:  # fmt: skip
        """It and the number of the link. Raises `Busy` when another workspace was linked since the link was read."""
        link_id = await queries.link_id_of(connection, link.workspace_id)
        if link_id is None:
            raise Busy("Another Azure ML workspace is being linked; try again.")
        known = await queries.known_experiment(connection, azure_experiment_id)
        if known is not None:
            await queries.name_experiment(connection, azure_experiment_id, known)
            return known, link_id
        now_ms = time.time_ns() // 1_000_000
        return await queries.adopt_experiment(connection, azure_experiment_id, name, now_ms, link_id=link_id), link_id

    async def _points(self, target: "AzureMLTarget", born: BornThere) -> tuple[Metric, ...]:
        """Every point of every metric; of a run with very many, the newest of each, so that nobody waits for ever."""
        try:
            async with asyncio.timeout(self._settings.mirror_timeout.total_seconds() / 2):
                points = await _history(target, born)
        except TimeoutError:
            points = None
        if points is None:
            log.warning("run %s: its points are too many or take too long to read: the newest must do", born.run_id)
            points = born.batch.metrics
        return tuple(replace(point, value=finite_or_nan(point.value)) for point in points)

    async def _target(self, link: Link) -> "AzureMLTarget":
        """The workspace's, opened when it is first asked for. Raises `TargetError`."""
        from runmirror.mirror.link import open_target  # noqa: PLC0415 - see above

        async with self._opening:
            key = link.workspace_id.lower()
            if key not in self._targets:
                self._targets[key], _ = await open_target(self._settings, link)
            return self._targets[key]

    async def _asking(self, work: Awaitable[_Found]) -> _Found:
        """What fails on the way is for operators to read; clients are asked to come again."""
        try:
            async with asyncio.timeout(self._settings.mirror_timeout.total_seconds()):
                return await work
        except TargetError as error:
            log.warning("the workspace cannot be asked about a run or an experiment: %s", error)
        except TimeoutError:
            log.warning("the workspace cannot be asked about a run or an experiment: no answer in time")
        raise Busy("The linked Azure ML workspace cannot be asked about this right now; try again.")

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            if (answer := answer_for(error, wrote_nothing=True)) is error:
                raise
            raise answer from error
        except (OSError, PoolTimeout) as error:
            raise Busy("The database cannot be reached or is busy; nothing was done, try again.") from error


def _in_our_words(born: BornThere) -> BornThere:
    """A run of ours has a name."""
    return replace(born, state=replace(born.state, name=born.state.name or born.run_id))


def _tags(born: BornThere) -> list[Tag]:
    """Without those that a mirror wrote: they are not of this run at its source."""
    name = Tag(RUN_NAME_TAG, _in_our_words(born).state.name)
    others = [tag for tag in born.batch.tags if tag.key != RUN_NAME_TAG and not tag.key.startswith(_OWN_TAGS)]
    return [*others, name]


def _key(linked: Sequence[Link], wanted: str) -> str:
    """Who asks the same workspaces for the same thing shares the answer."""
    return " ".join([*(link.workspace_id for link in linked), wanted])


async def _history(target: "AzureMLTarget", born: BornThere) -> Sequence[Metric] | None:
    """None when there are too many."""
    run = RemoteRun(born.experiment_id, born.run_id)
    points: list[Metric] = []
    for newest in born.batch.metrics:
        points += await target.history(run, newest.key, most=_MOST_POINTS - len(points))
        if len(points) > _MOST_POINTS:
            return None
    return points

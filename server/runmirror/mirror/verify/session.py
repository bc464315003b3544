"""Verifying many runs, a page at a time: what the command does, and the sample that a worker takes now and then."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.db import DATABASE_ERRORS
from runmirror.mirror import link as links
from runmirror.mirror import link_queries
from runmirror.mirror.target import TargetError, TargetOutage
from runmirror.mirror.verify import records
from runmirror.mirror.verify.differences import Change
from runmirror.mirror.verify.look import Sides
from runmirror.mirror.verify.reader import Reader
from runmirror.mirror.verify.verdicts import Outcome, Verdict, verify
from runmirror.settings import Settings

log = logging.getLogger(__name__)

PAGE = 200
FIRST = UUID(int=0)
_ASK_AT_MOST_EVERY = timedelta(minutes=1)


class CouldNotCheckError(Exception):
    """No workspace, no such experiment, or a workspace that cannot be read."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which runs: these, those of an experiment (by name or id), a sample, or all; `after` a run verified before."""

    run_ids: tuple[UUID, ...] = ()
    experiment: str | None = None
    sample: int | None = None
    after: UUID = FIRST

    @property
    def is_of_some(self) -> bool:
        """Few enough to be held in memory; all others are read in pages, and can be gone on with."""
        return bool(self.run_ids) or self.sample is not None


@dataclass(frozen=True, slots=True)
class Judged:
    """A page of verdicts, and which of the runs are sent again."""

    verdicts: tuple[Verdict, ...]
    repairing: frozenset[UUID]


@asynccontextmanager
async def both_sides(
    settings: Settings, engine: AsyncEngine, store: Store, *, deep: bool = False
) -> AsyncIterator[Sides]:  # fmt: skip
    """Raises `CouldNotCheckError` when no workspace is linked, `TargetOutage` when none can be found.

    Whoever only reads does not link: settings that name another workspace are a contradiction here.
    """
    try:
        wanted = links.link_of_settings(settings)
    except ValueError as error:
        raise CouldNotCheckError(str(error)) from None
    async with engine.connect() as connection:
        linked = await link_queries.read_links(connection)
    if not linked and wanted is None:
        raise CouldNotCheckError("no workspace is linked: runmirror link /subscriptions/…/workspaces/…")
    others = [link.workspace_id for link in linked]
    if linked and wanted is not None and wanted.workspace_id.lower() not in map(str.lower, others):
        raise CouldNotCheckError(f"the linked workspace is another one: {', '.join(others)}")
    chosen = linked or ([] if wanted is None else [wanted])
    async with AsyncExitStack() as opened:
        readers: dict[str, Reader] = {}
        unreadable: dict[str, str] = {}
        for link in chosen:
            try:
                target, _ = await links.open_target(settings, link)
            except TargetOutage as error:
                if len(chosen) == 1:
                    raise
                unreadable[link.workspace_id.lower()] = f"{link.name}: {error}"
                continue
            opened.push_async_callback(target.close)
            readers[link.workspace_id.lower()] = target.reader()
        yield Sides(engine, store, readers, settings, unreadable, deep=deep)


async def verify_runs(
    settings: Settings, engine: AsyncEngine, store: Store, run_ids: Sequence[UUID], *, deep: bool = True
) -> list[Verdict]:
    """Compare some runs with their copies in full, and change nothing, not even our notes of what was found.

    For programs: the verdicts are in the order of `run_ids`. Raises `CouldNotCheckError` and `TargetOutage`.
    """
    async with both_sides(settings, engine, store, deep=deep) as sides:
        return await verify(sides, run_ids, at_once=settings.mirror_concurrency)


async def judged(
    sides: Sides, selection: Selection, *, at_once: int, repair: bool,
    progress: Callable[[int, int], None] = lambda _count, _total: None,
) -> AsyncIterator[Judged]:  # fmt: skip
    """Page after page, each written down before it is given out. Raises `TargetOutage`."""
    async for run_ids, total in _pages(sides.engine, selection):
        progress(0, total)
        verdicts = await verify(sides, run_ids, at_once=at_once, looked=partial(progress, 1, total))
        repairing = set[UUID]()
        async with sides.engine.begin() as connection:
            await records.save(connection, verdicts)
        for verdict in verdicts:
            if repair and verdict.differences:
                async with sides.engine.begin() as connection:
                    repairing |= {verdict.run_id} if await records.repair(connection, verdict) else set()
        yield Judged(tuple(verdicts), frozenset(repairing))


async def _pages(engine: AsyncEngine, selection: Selection) -> AsyncIterator[tuple[Sequence[UUID], int]]:
    """The selected runs, with how many there are; no connection is held while they are verified."""
    chosen: Sequence[UUID] = selection.run_ids
    experiment_id, total = None, 0
    async with engine.connect() as connection:
        if selection.sample is not None:
            chosen = await records.sample(connection, selection.sample)
        elif selection.experiment is not None:
            experiment_id = await records.experiment_id(connection, selection.experiment)
            if experiment_id is None:
                raise CouldNotCheckError(f"there is no experiment {selection.experiment!r}")
        if not selection.is_of_some:
            total = await records.count_runs(connection, experiment_id=experiment_id, after=selection.after)
    if selection.is_of_some:
        for at in range(0, len(chosen), PAGE):
            yield chosen[at : at + PAGE], len(chosen)
        return
    after = selection.after
    while True:
        async with engine.connect() as connection:
            page = await records.page_of_runs(connection, experiment_id=experiment_id, after=after, most=PAGE)
        if not page:
            return
        yield page, total
        after = page[-1]


def without_surplus(verdict: Verdict) -> Verdict:
    """As if nothing stood in the workspace that is not here: people may write there too."""
    kept = tuple(found for found in verdict.differences if found.change is not Change.SURPLUS)
    if kept or verdict.outcome is not Outcome.DIFFERENT:
        return replace(verdict, differences=kept)
    return replace(verdict, outcome=Outcome.EQUAL, differences=())


def exit_code(outcomes: Counter[Outcome]) -> int:
    """0: all equal; 1: something differs; 2: of something it cannot be said."""
    if outcomes[Outcome.DIFFERENT]:
        return 1
    return 2 if outcomes[Outcome.BEHIND] or outcomes[Outcome.UNCHECKED] else 0


async def sample_now_and_then(settings: Settings, engine: AsyncEngine, store: Store) -> None:
    """Verify a few runs every now and then, one after the other, in one worker of all; never ends."""
    while settings.mirror_verify_sample:
        await asyncio.sleep(min(settings.mirror_verify_every / 10, _ASK_AT_MOST_EVERY).total_seconds())
        try:
            async with engine.begin() as connection:
                ours = await records.claim_round(connection, settings.mirror_verify_every)
            if ours:
                await _round(settings, engine, store)
        except (CouldNotCheckError, TargetError, *DATABASE_ERRORS) as error:
            told = error if isinstance(error, CouldNotCheckError | TargetError) else type(error).__name__
            log.warning("the sample could not be verified: %s", told)
        except Exception:
            # A mistake of ours must not end it: nobody would notice.
            log.exception("the sample could not be verified")


async def _round(settings: Settings, engine: AsyncEngine, store: Store) -> None:
    selection = Selection(sample=settings.mirror_verify_sample)
    async with both_sides(settings, engine, store) as sides:
        async for page in judged(sides, selection, at_once=1, repair=settings.mirror_verify_repair):
            for verdict in page.verdicts:
                if verdict.outcome is Outcome.DIFFERENT:
                    told = "; ".join(map(str, verdict.differences[:3]))
                    log.warning("run %s differs in the workspace: %s", verdict.run_id.hex, told)

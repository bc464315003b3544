"""Mirrors one leased run: page by page, the state last.

What is true whenever this process dies:
- the remote run is found again by its tag, and known by its id from `bind` on; that there may be one to be found is
  known from the first claim on;
- what goes to the overflow file is written down before anything of its page is sent;
- before metrics and inputs leave, `sent_upto` says so, and the next worker reads back what arrived;
- everything else (params, tags, files, state) may be sent twice and is the same after it.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.entities import Batch, LifecycleStage, Metric, Param, RunStatus, Tag
from runmirror.mirror import (
    batches,
    leftovers,
    nested,
    overflow,
    overflow_queries,
    queries,
    queue,
    remote_names,
    source_files,
    throughput,
)
from runmirror.mirror.delivery import Delivery
from runmirror.mirror.keeper import Keeper
from runmirror.mirror.leftovers import Changes
from runmirror.mirror.limits import Limits, cut
from runmirror.mirror.overflow import Overflowing, Translation
from runmirror.mirror.overflow_file import OverflowFile
from runmirror.mirror.queries import Input, Page, Source
from runmirror.mirror.queue import ADOPTION_SEQ, Lease, LeaseLost, Plan
from runmirror.mirror.readback import ReadBack
from runmirror.mirror.target import (
    NewRun,
    OverLimit,
    ParentNotMirrored,
    RemoteRun,
    RemoteRunVanished,
    RunRestored,
    RunState,
    SourceChanged,
    Target,
    TargetRejected,
)
from runmirror.mirror.throughput import Sent, Tally
from runmirror.settings import Settings

log = logging.getLogger(__name__)

_NOW = timedelta(0)

STAGE_TAG = "runmirror.lifecycle_stage"
# The mirror's own, which always have their place; that of the parent may have to go by its other name.
_OWN_TAGS = (
    "runmirror.run_id", "runmirror.source", "runmirror.experiment_name", overflow.OVERFLOW_TAG, STAGE_TAG,
    *nested.OTHER_NAMES.values(),
)  # fmt: skip
_INPUTS_PER_REQUEST = 50


@dataclass(frozen=True)
class Tools:
    """What the worker hands to every run."""

    settings: Settings
    engine: AsyncEngine
    store: Store
    worker_id: UUID
    is_stopping: Callable[[], bool]
    tally: Tally = field(default_factory=Tally)

    def one_statement(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection for what is one statement, which begins and commits by itself: one round trip, not three."""
        return self._autocommit.connect()

    async def write_tally(self, *, at_once: bool = False) -> None:
        """For the status page, once a second or so, or what is left of it at the end."""
        sent = self.tally.take(at_once=at_once)
        if sent is not None:
            async with self.one_statement() as connection:
                await throughput.record(connection, self.worker_id, sent)

    @cached_property
    def _autocommit(self) -> AsyncEngine:
        return self.engine.execution_options(isolation_level="AUTOCOMMIT")


class OneRun:
    """The work under one lease.

    Raises `LeaseLost`, `TargetError`, `SourceChanged`, `SourceUnavailable`, `RunRestored`.
    """

    def __init__(self, tools: Tools, target: Target, keeper: Keeper, lease: Lease) -> None:
        self._tools = tools
        self._settings = tools.settings
        self._target = target.under(keeper.check)
        self._lease = lease
        # Metrics above the watermark and up to here may stand in the target already.
        self._uncertain_upto = lease.sent_upto
        self._told: RunState | None = None  # what the target is known to have as the run's state
        self._created_with: tuple[Tag, ...] = ()
        self._is_new = False  # created for the page in hand, so of its parent it has no older name
        self._limits = Limits.of(tools.settings)
        self._out: dict[tuple[str, str], int] = {}  # what the overflow file tells of, and from which write on
        self._overflow_seq = 0

    async def mirror(self) -> None:
        """Send all there is; let go of the run in the end, or between two pages when the worker stops."""
        while True:
            page = await self._read_page()
            self._limits = Limits.of(self._settings, page.learned_limits)
            try:
                if await self._mirror_page(page):
                    return
            except OverLimit as error:
                if not self._limits.is_tightened_by(error.name, error.limit):
                    raise
                await self._learn(error, page)

    async def _mirror_page(self, page: Page) -> bool:
        """Whether the lease is given back."""
        remote = await self._remote_run(page)
        wait = None
        try:
            translation = await self._decide(page, remote)
            sent = await self._send(page, remote, translation)
            if page.is_last:
                wait = await self._send_overflow(page, remote)
                await self._send_state(page.source, remote)
        except (OverLimit, RemoteRunVanished):
            raise
        except TargetRejected:
            if await self._was_deleted(remote):
                raise RunRestored("the run was deleted in the workspace, and is restored") from None
            raise
        if page.is_last:
            await self._finish(page, sent, wait)
            return True
        async with self._tools.one_statement() as connection:
            ttl = self._settings.mirror_lease
            self._lease = await queue.advance(connection, self._lease, watermark=page.upto, ttl=ttl)
        self._is_new = False
        self._tools.tally.add(sent)
        if self._tools.is_stopping():
            async with self._tools.one_statement() as connection:
                await queue.release(connection, self._lease, wait=_NOW)
            return True
        return False

    async def _learn(self, error: OverLimit, page: Page) -> None:
        """Keep to a limit from now on, all runs alike; the page begins anew, and some of it may have arrived."""
        log.warning("the workspace's limit %r is %d: %s", error.name, error.limit, error)
        async with self._tools.engine.begin() as connection:
            await overflow_queries.learn_limit(connection, self._lease.link_id, error.name, error.limit)
        self._uncertain_upto = max(self._uncertain_upto, page.upto)
        # What of the page arrived is read back, and reads lag behind writes.
        await asyncio.sleep(self._settings.mirror_settle.total_seconds())

    async def _read_page(self) -> Page:
        async with self._tools.one_statement() as connection:
            page = await queries.read_page(connection, self._lease, self._settings.mirror_page_rows)
        if page is None:
            raise LeaseLost(self._lease.run_id.hex)
        return page

    async def _remote_run(self, page: Page) -> RemoteRun:
        """The run in the workspace: as remembered, else found by its tag, else created.

        A new one is remembered by `_decide`, together with what is about to be sent. Nobody looks for a run that
        cannot be there, because this lease is the first.
        """
        lease, source = self._lease, page.source
        if lease.remote_run_id is not None and lease.remote_experiment_id is not None:
            return RemoteRun(lease.remote_experiment_id, lease.remote_run_id)
        experiment_id = source.remote_experiment_id or await self._remote_experiment(source)
        if lease.may_exist:
            remote = await self._target.find_run(experiment_id, source.run_id.hex)
            if remote is not None:
                # Created before a crash, or when this workspace was linked once before: then it has metrics as well.
                self._uncertain_upto = source.seq
                return remote
        return await self._create(experiment_id, page)

    async def _create(self, experiment_id: str, page: Page) -> RemoteRun:
        source = page.source
        name = cut(source.state.name, self._limits.run_name)
        is_renamed = self._experiment_name(source) != source.experiment_name
        parent_id = await self._parent(source)
        new = NewRun(
            source.run_id.hex, name, source.user_id, source.start_time_ms, self._settings.mirror_source,
            parent_run_id=parent_id,
            experiment_name=cut(source.experiment_name, self._limits.tag_value) if is_renamed else None,
            tags=self._first_tags(page, parent_id),
        )  # fmt: skip
        try:
            remote = await self._target.create_run(experiment_id, new)
        except TargetRejected as error:
            if isinstance(error, OverLimit) or not new.tags:
                raise
            # Perhaps for one of the tags: which one is found out when they follow by themselves.
            new = replace(new, tags=())
            remote = await self._target.create_run(experiment_id, new)
        self._lease, self._created_with = replace(self._lease, may_exist=True), new.tags
        self._is_new = True
        self._told = RunState(name, RunStatus.RUNNING, None, LifecycleStage.ACTIVE)
        return remote

    def _first_tags(self, page: Page, parent_id: str | None) -> tuple[Tag, ...]:
        """The tags that a run can be created with: all that the page has, if there is no question of their places."""
        if overflow_queries.may_exceed_tags(page, self._limits, len(_OWN_TAGS)):
            return ()
        tags = nested.renamed(page.tags, parent_id)
        return tags if len(tags) + len(_OWN_TAGS) <= self._limits.tags_per_request else ()

    async def _parent(self, source: Source) -> str | None:
        if source.parent_run_id is None:
            return None
        try:
            async with self._tools.engine.connect() as connection:
                return await nested.remote_parent(connection, source.run_id, source.parent_run_id)
        except ParentNotMirrored:
            async with self._tools.engine.begin() as connection:
                await nested.hasten(connection, source.run_id, str(source.parent_run_id))
            raise

    def _experiment_name(self, source: Source) -> str:
        longest = self._limits.experiment_name
        return remote_names.experiment_name(source.experiment_name, source.experiment_id, longest)

    async def _remote_experiment(self, source: Source) -> str:
        name = self._experiment_name(source)
        remote_id = await self._target.ensure_experiment(name)
        async with self._tools.engine.begin() as connection:
            await queries.save_experiment(
                connection,
                source.experiment_id,
                link_id=self._lease.link_id,
                remote_experiment_id=remote_id,
                remote_name=name,
            )
        return remote_id

    async def _decide(self, page: Page, remote: RemoteRun) -> Translation:
        """Sort the page into what the target holds and what not, and write that down before anything is sent."""
        native_tags = None
        if overflow_queries.may_exceed_tags(page, self._limits, len(_OWN_TAGS)):
            if self._lease.remote_run_id is None:
                async with self._tools.one_statement() as connection:
                    await self._bind(connection, remote, Plan(self._uncertain_upto))
            native_tags = nested.in_our_terms(await self._target.tag_keys(remote))
        async with self._tools.engine.connect() as connection:
            held = await overflow_queries.read_held(connection, page, self._limits)
        held = replace(held, native_tags=native_tags)
        translation = overflow.translate(page, held, self._limits, reserved_tags=_OWN_TAGS)
        self._out = dict(held.overflowing)
        self._sort_out(Changes(translation.added, translation.removed))
        self._overflow_seq = max(page.source.overflow.seq, page.upto if translation.changes_file else 0)
        has_effect = bool(translation.points or translation.inputs)
        is_new = self._lease.remote_run_id is None
        if is_new or translation.changes_file or (has_effect and page.upto > self._lease.sent_upto):
            sent_upto = max(page.upto if has_effect else 0, self._uncertain_upto if is_new else 0)
            plan = Plan(sent_upto, self._overflow_seq, translation.counts, page.upto)
            begin = self._tools.engine.begin if translation.changes_file else self._tools.one_statement
            async with begin() as connection:
                if is_new:
                    await self._bind(connection, remote, plan)
                else:
                    self._lease = await queue.note(connection, self._lease, plan)
                await overflow_queries.record(connection, page.source.run_id, translation)
                if translation.added:
                    self._tools.tally.add(Sent(overflowed=len(translation.added)))
        return translation

    async def _bind(self, connection: AsyncConnection, remote: RemoteRun, plan: Plan) -> None:
        self._lease = await queue.bind(
            connection,
            self._lease,
            plan,
            experiment_id=remote.experiment_id,
            remote_run_id=remote.run_id,
            portal_url=self._target.portal_url(remote),
        )

    async def _send(self, page: Page, remote: RemoteRun, translation: Translation) -> Sent:
        if _was_born_there(page.source, remote) and self._lease.watermark <= ADOPTION_SEQ:
            await self._sign(page.source, remote)
        read_back = ReadBack(self._target, remote)
        points = await read_back.missing_points(translation.points, self._uncertain_upto)
        for key in translation.deleted_tags:
            for name in nested.names_there(key):
                await self._target.delete_tag(remote, name)
        tags = translation.tags
        if any(tag.key in nested.OTHER_NAMES for tag in tags):
            has_parent = any(tag.key == nested.PARENT_TAG for tag in tags)
            tags = nested.renamed(tags, await self._parent(page.source))
            if has_parent and not self._is_new:
                # The parent it had before may stand there by the other name, and takes a place.
                await self._target.delete_tag(remote, nested.unused_parent_name(tags))
        created_with, self._created_with = self._created_with, ()
        tags = tuple(tag for tag in tags if tag not in created_with)
        harmless = Tag("runmirror.source", self._settings.mirror_source)
        delivery = Delivery(self._target, remote, self._limits, read_back.missing, harmless)
        metrics = [point.metric for point in points]
        for batch in batches.cut(metrics, translation.params, tags, self._limits):
            await delivery.send(batch)
        if _was_born_there(page.source, remote) and any(tag.key == overflow.RUN_NAME_TAG for tag in tags):
            await self._target.rename(remote, cut(page.source.state.name, self._limits.run_name))
        refused = [_overflowing(thing, reason, page) for thing, reason in delivery.refused]
        inputs = await read_back.missing_inputs(translation.inputs, self._uncertain_upto)
        refused += await self._send_inputs(inputs, remote)
        await self._note(page, Changes(tuple(refused)), translation)
        copied, changes = await self._copy(page, remote)
        await self._note(page, changes, translation)
        return Sent(points=len(metrics), bytes=copied)

    async def _sign(self, source: Source, remote: RemoteRun) -> None:
        """Name the source at a run that we did not create. It is found by its id, so it can do without."""
        tags = Tag("runmirror.run_id", source.run_id.hex), Tag("runmirror.source", self._settings.mirror_source)
        try:
            await self._target.log_batch(remote, Batch(tags=tags))
        except RemoteRunVanished:
            raise
        except TargetRejected as error:
            log.warning("run %s: the adopted run takes no tags that name its source: %s", source.run_id.hex, error)

    def _sort_out(self, changes: Changes) -> None:
        for at in changes.removed:
            self._out.pop(at, None)
        self._out |= {(entry.kind, entry.key): entry.from_seq for entry in changes.added}

    async def _note(self, page: Page, changes: Changes, translation: Translation) -> None:
        """What only sending it showed: things the target refuses one by one as well, files it does not replace."""
        if not changes:
            return
        self._sort_out(changes)
        self._overflow_seq = page.upto
        async with self._tools.engine.begin() as connection:
            plan = Plan(0, page.upto, translation.counts, page.upto)
            self._lease = await queue.note(connection, self._lease, plan)
            await overflow_queries.record_changes(connection, page.source.run_id, changes)
        self._tools.tally.add(Sent(overflowed=len(changes.added)))

    async def _send_inputs(self, inputs: Sequence[Input], remote: RemoteRun) -> list[Overflowing]:
        """Those that the target refuses by themselves are returned."""
        refused = []
        for at in range(0, len(inputs), _INPUTS_PER_REQUEST):
            group = inputs[at : at + _INPUTS_PER_REQUEST]
            try:
                await self._target.log_inputs(remote, [given.given for given in group])
            except TargetRejected as error:
                if isinstance(error, OverLimit | RemoteRunVanished) or await self._is_deleted(remote):
                    raise
                for given in group:
                    try:
                        await self._target.log_inputs(remote, [given.given])
                    except TargetRejected as alone:
                        refused.append(Overflowing("dataset", given.dataset_id, given.seq, str(alone)))
        return refused

    async def _send_overflow(self, page: Page, remote: RemoteRun) -> timedelta | None:
        """Write the overflow file anew if it has to tell of more; how long to wait if it is too early for that."""
        state, age_s = page.source.state, page.source.overflow.age_s
        if self._overflow_seq <= page.source.overflow.told:
            return None
        every = self._settings.mirror_overflow_every
        has_ended = state.status.is_terminal or state.stage is LifecycleStage.DELETED
        if age_s is not None and not has_ended and age_s < every.total_seconds():
            return every - timedelta(seconds=age_s)
        file = await OverflowFile(self._tools.engine, page.source.run_id, page.upto).remote_file()
        if (await self._target.copy_files(remote, [file])).changed:
            # A tag was written between two looks at it: the run is due again for that.
            log.info("run %s: the overflow file changed while it was copied", page.source.run_id.hex)
            return _NOW
        if self._out:
            await self._target.log_batch(remote, Batch(tags=(Tag(overflow.OVERFLOW_TAG, overflow.PATH),)))
        else:
            await self._target.delete_tag(remote, overflow.OVERFLOW_TAG)
        async with self._tools.engine.begin() as connection:
            await queue.note_overflow_told(connection, self._lease, overflow_seq=self._overflow_seq)
        return None

    async def _copy(self, page: Page, remote: RemoteRun) -> tuple[int, Changes]:
        """Copy the page's files: bytes sent, and where the target's are not the source's.

        Raises `SourceChanged` if one is not as recorded and no later write tells why.
        """
        files = source_files.placed(self._tools.store, page)
        copied = await self._target.copy_files(remote, list(files.values()))
        changed = {file.path for file in copied.changed}
        for row, file in files.items():
            if file.path not in changed:
                continue
            async with self._tools.engine.connect() as connection:
                known = await queries.is_superseded(connection, page.source.run_id, row)
            if not known:
                raise SourceChanged(f"artifact {row.path!r} is missing, or is not as it was uploaded")
        there = await self._target.artifact_paths(remote) if page.deleted_files else ()
        changes = leftovers.changes(
            self._out,
            copied=[row for row, file in files.items() if file.path not in changed],
            revised={file.path for file in copied.revised},
            deleted=page.deleted_files,
            there=frozenset(there),
        )
        return copied.sent_bytes, changes

    async def _send_state(self, source: Source, remote: RemoteRun) -> None:
        """Status, name, end time, stage: only when all data is there, so that a terminal status means complete."""
        state = replace(source.state, name=cut(source.state.name, self._limits.run_name))
        if source.info_seq <= self._lease.info_watermark or state == self._told:
            return
        # Whether a job runs, ended or goes away is for its own control plane to say; its name was sent by itself.
        is_born_there = _was_born_there(source, remote)
        policy = "keep" if is_born_there else self._settings.mirror_on_delete
        is_deleted = state.stage is LifecycleStage.DELETED
        stage = state.stage if policy == "delete" else LifecycleStage.ACTIVE
        if not is_born_there and await self._target.update_run(remote, state) != stage:
            await self._target.set_stage(remote, stage)
        if policy == "archive" and (is_deleted or self._told is None):
            await self._target.set_hidden(remote, is_deleted)
        if policy == "keep" and is_deleted:
            await self._target.log_batch(remote, Batch(tags=(Tag(STAGE_TAG, state.stage),)))
        elif policy == "keep":
            await self._target.delete_tag(remote, STAGE_TAG)

    async def _is_deleted(self, remote: RemoteRun) -> bool:
        return await self._target.stage_of(remote) is LifecycleStage.DELETED

    async def _was_deleted(self, remote: RemoteRun) -> bool:
        """Whether the target refused because the run is deleted there; it is restored then.

        It may have been restored at the source, or deleted there after data that did not arrive before.
        """
        if not await self._is_deleted(remote):
            return False
        await self._target.set_stage(remote, LifecycleStage.ACTIVE)
        if self._settings.mirror_on_delete == "archive":
            await self._target.set_hidden(remote, False)
        return True

    async def _finish(self, page: Page, sent: Sent, wait: timedelta | None) -> None:
        async with self._tools.one_statement() as connection:
            current = await queue.finish(
                connection, self._lease, watermark=page.upto, info_watermark=page.source.info_seq,
                partial=bool(self._out), wait=wait,
            )  # fmt: skip
        self._tools.tally.add(replace(sent, runs=1))
        # A run that is being written comes by once a second or so: that is nothing to tell.
        level = logging.INFO if current else logging.DEBUG
        log.log(level, "run %s mirrored up to write %d", page.source.run_id.hex, page.upto)


def _was_born_there(source: Source, remote: RemoteRun) -> bool:
    """Whether the remote run is not a copy that we made, but the run itself, which was adopted."""
    return source.azure_run_id == remote.run_id


def _overflowing(thing: Metric | Param | Tag, reason: str, page: Page) -> Overflowing:
    """What becomes of something that the target refuses by itself: of a metric, everything from that write on."""
    if isinstance(thing, Metric):
        seq = next(point.seq for point in page.points if point.metric is thing)
        return Overflowing("nan" if math.isnan(thing.value) else "points", thing.key, seq, reason, since=thing)
    return Overflowing("param" if isinstance(thing, Param) else "tag", thing.key, page.upto, reason)

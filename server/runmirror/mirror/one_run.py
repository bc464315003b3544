"""Mirrors one leased run: page by page, the state last.

What is true whenever this process dies:
- the remote run is found again by its tag, and known by its id from `bind` on;
- before metrics leave, `sent_upto` says so, and the next worker reads back what arrived;
- everything else (params, tags, files, state) may be sent twice and is the same after it.
"""

import logging
import struct
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.entities import LifecycleStage, Metric, RunStatus, Tag
from runmirror.mirror import batches, queries, queue, remote_names, source_files, throughput
from runmirror.mirror.keeper import Keeper
from runmirror.mirror.queries import Page, Source
from runmirror.mirror.queue import Lease, LeaseLost
from runmirror.mirror.target import NewRun, RemoteRun, RunRestored, RunState, SourceChanged, Target, TargetRejected
from runmirror.mirror.throughput import Sent
from runmirror.settings import Settings

log = logging.getLogger(__name__)

_NOW = timedelta(0)

# Nested runs are not mapped yet: the id of a local run means nothing in the workspace, so it goes by another name.
_RENAMED_TAGS = {"mlflow.parentRunId": "runmirror.parent_run_id"}


@dataclass(frozen=True, slots=True)
class Tools:
    """What the worker hands to every run."""

    settings: Settings
    engine: AsyncEngine
    store: Store
    worker_id: UUID
    is_stopping: Callable[[], bool]


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

    async def mirror(self) -> None:
        """Send all there is; let go of the run in the end, or between two pages when the worker stops."""
        while True:
            page = await self._read_page()
            remote = await self._remote_run(page.source)
            try:
                sent = await self._send(page, remote)
                if page.is_last:
                    await self._send_state(page.source, remote)
            except TargetRejected:
                if await self._was_deleted(remote):
                    raise RunRestored("the run was deleted in the workspace, and is restored") from None
                raise
            async with self._tools.engine.begin() as connection:
                if page.is_last:
                    await self._finish(connection, page, sent)
                    return
                ttl = self._settings.mirror_lease
                self._lease = await queue.advance(connection, self._lease, watermark=page.upto, ttl=ttl)
                await throughput.record(connection, self._tools.worker_id, sent)
                if self._tools.is_stopping():
                    await queue.release(connection, self._lease, wait=_NOW)
                    return

    async def _read_page(self) -> Page:
        async with self._tools.engine.connect() as connection:
            page = await queries.read_page(connection, self._lease, self._settings.mirror_page_rows)
        if page is None:
            raise LeaseLost(self._lease.run_id.hex)
        return page

    async def _remote_run(self, source: Source) -> RemoteRun:
        """The run in the workspace: as remembered, else found by its tag, else created."""
        lease = self._lease
        if lease.remote_run_id is not None and lease.remote_experiment_id is not None:
            return RemoteRun(lease.remote_experiment_id, lease.remote_run_id)
        experiment_id = source.remote_experiment_id or await self._remote_experiment(source)
        remote = await self._target.find_run(experiment_id, source.run_id.hex)
        if remote is None:
            run_id, name = source.run_id.hex, source.state.name
            new = NewRun(run_id, name, source.user_id, source.start_time_ms, self._settings.mirror_source)
            remote = await self._target.create_run(experiment_id, new)
            self._told = RunState(name, RunStatus.RUNNING, None, LifecycleStage.ACTIVE)
        else:
            # Created before a crash, or when this workspace was linked once before: then it has metrics as well.
            self._uncertain_upto = source.seq
        async with self._tools.engine.begin() as connection:
            self._lease = await queue.bind(
                connection,
                lease,
                experiment_id=remote.experiment_id,
                remote_run_id=remote.run_id,
                portal_url=self._target.portal_url(remote),
                sent_upto=self._uncertain_upto,
            )
        return remote

    async def _remote_experiment(self, source: Source) -> str:
        name = remote_names.experiment_name(source.experiment_name, source.experiment_id)
        remote_id = await self._target.ensure_experiment(name)
        async with self._tools.engine.begin() as connection:
            await queries.save_experiment(
                connection, source.experiment_id, remote_experiment_id=remote_id, remote_name=name
            )
        return remote_id

    async def _send(self, page: Page, remote: RemoteRun) -> Sent:
        metrics = await self._not_there_yet(page, remote)
        if metrics and page.upto > self._lease.sent_upto:
            async with self._tools.engine.begin() as connection:
                await queue.mark_sent(connection, self._lease, upto=page.upto)
        tags = [Tag(_RENAMED_TAGS.get(tag.key, tag.key), tag.value) for tag in page.tags]
        for batch in batches.cut(metrics, page.params, tags, self._settings):
            await self._target.log_batch(remote, batch)
        for key in page.deleted_tags:
            await self._target.delete_tag(remote, _RENAMED_TAGS.get(key, key))
        return Sent(points=len(metrics), bytes=await self._copy(page, remote))

    async def _not_there_yet(self, page: Page, remote: RemoteRun) -> list[Metric]:
        """The page's metrics without those of an earlier attempt that arrived."""
        doubtful = {point.metric.key for point in page.points if point.seq <= self._uncertain_upto}
        arrived = defaultdict[str, set[tuple[int, int, bytes]]](set)
        for key in sorted(doubtful):
            arrived[key] = {_identity(metric) for metric in await self._target.history(remote, key)}
        return [
            point.metric
            for point in page.points
            if point.seq > self._uncertain_upto or _identity(point.metric) not in arrived[point.metric.key]
        ]

    async def _copy(self, page: Page, remote: RemoteRun) -> int:
        """Copy the page's files. Raises `SourceChanged` if one is not as recorded and no later write tells why."""
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
        return copied.sent_bytes

    async def _send_state(self, source: Source, remote: RemoteRun) -> None:
        """Status, name, end time, stage: only when all data is there, so that a terminal status means complete."""
        state = source.state
        if source.info_seq <= self._lease.info_watermark or state == self._told:
            return
        if await self._target.update_run(remote, state) != state.stage:
            await self._target.set_stage(remote, state.stage)

    async def _was_deleted(self, remote: RemoteRun) -> bool:
        """Whether the target refused because the run is deleted there; it is restored then.

        It may have been restored at the source, or deleted there after data that did not arrive before.
        """
        if await self._target.stage_of(remote) is LifecycleStage.ACTIVE:
            return False
        await self._target.set_stage(remote, LifecycleStage.ACTIVE)
        return True

    async def _finish(self, connection: AsyncConnection, page: Page, sent: Sent) -> None:
        told = page.source.info_seq
        current = await queue.finish(connection, self._lease, watermark=page.upto, info_watermark=told)
        await throughput.record(connection, self._tools.worker_id, Sent(sent.points, sent.bytes, runs=1))
        # A run that is being written comes by once a second or so: that is nothing to tell.
        level = logging.INFO if current else logging.DEBUG
        log.log(level, "run %s mirrored up to write %d", page.source.run_id.hex, page.upto)


def _identity(metric: Metric) -> tuple[int, int, bytes]:
    """Step, time and value of a point, so that NaN equals NaN (whatever its bits) and 0 equals -0, as in Postgres."""
    value = float("nan") if metric.value != metric.value else metric.value + 0.0
    return metric.step, metric.timestamp_ms, struct.pack("<d", value)

"""The process that mirrors: a lane for each linked workspace, and the loop that decides which runs go to which."""

import asyncio
import logging
import signal
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts import pending
from runmirror.artifacts.files import Store
from runmirror.artifacts.service import Artifacts
from runmirror.artifacts.store import create_store
from runmirror.db import DATABASE_ERRORS, create_engine
from runmirror.deployments.deployer import Deployer
from runmirror.listen import cancel, listen
from runmirror.mirror import claims, destinations, link_queries, model_places, model_queue, pulse, queue, throughput
from runmirror.mirror import link as links
from runmirror.mirror.keeper import clock_s
from runmirror.mirror.lane import Lane, OpenTarget, patiently
from runmirror.mirror.one_run import Tools
from runmirror.mirror.verify.session import sample_now_and_then
from runmirror.runs import stale
from runmirror.settings import Settings
from runmirror.telemetry.install import open_tracing
from runmirror.telemetry.spans import set_tracing

log = logging.getLogger(__name__)

_NOW = timedelta(0)
_FORGET_EVERY_S = 3600.0
_PLACE_EVERY_S = 5.0


class Worker:
    """Mirrors runs until it is told to stop; neither Azure nor Postgres going away ends it."""

    def __init__(
        self, settings: Settings, engine: AsyncEngine, store: Store, open_target: OpenTarget = links.open_target
    ) -> None:
        links.link_of_settings(settings)  # a contradiction stops the start
        self.worker_id = uuid4()
        self._settings = settings
        self._engine = engine
        self._open_target = open_target
        self._debounce = settings.mirror_debounce
        self._tools = Tools(settings, engine, store, self.worker_id, lambda: self._stopping)
        self._lanes: dict[int, Lane] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._draining = False
        self._forgot_at = self._placed_at = float("-inf")
        self._adopted = False

    async def run(self) -> None:
        """Mirror until `stop`."""
        url = self._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        artifacts = Artifacts(self._tools.store, reading=self._engine.connect, writing=self._engine.begin)
        beside = [
            asyncio.create_task(listen(url, queue.CHANNEL, self._wake), name="listen for due runs"),
            asyncio.create_task(pending.watch(artifacts, self._settings.mirror_poll), name="pending uploads"),
            asyncio.create_task(
                pulse.pulse(self._engine, self.worker_id, self._settings.worker_alive_file), name="sign of life"
            ),
            asyncio.create_task(
                sample_now_and_then(self._settings, self._engine, self._tools.store), name="verify a sample"
            ),
            asyncio.create_task(Deployer(self._settings, self._engine, self._tools.store).run(), name="deploy models"),
            asyncio.create_task(stale.now_and_then(self._settings, self._engine), name="stale runs"),
        ]
        try:
            while not self._stopping:
                await self._wait(await patiently(self._step))
        finally:
            for task in beside:
                await cancel(task)
            await self._wind_up()
            await pulse.take_leave(self._engine, self.worker_id)

    async def stop(self) -> None:
        """Ask `run` to end: pages in hand are finished, leases given back."""
        self._stopping = True
        self._wake.set()

    async def drain(self, *, timeout_s: float = 60.0) -> None:
        """Mirror until nothing is due, without gathering writes first; for tests and one-off commands.

        Raises `TimeoutError`. Runs that were set aside or are off stay so; without a linked workspace there is nothing
        to do, nor for runs that no route leads anywhere.
        """
        self._debounce, self._draining = _NOW, True
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    delay = await patiently(self._step)
                    if not any(lane.running for lane in self._lanes.values()) and await self._is_done():
                        return
                    await self._wait(delay)
        finally:
            await self._wind_up()

    async def _is_done(self) -> bool:
        rate = self._settings.mirror_backfill_rate
        async with self._engine.connect() as connection:
            if await destinations.is_pending(connection):
                return False
            waits = [
                await claims.seconds_to_next(connection, debounce=_NOW, settle=_NOW, backfill_rate=rate),
                await model_queue.seconds_to_next(connection, debounce=_NOW, settle=_NOW),
            ]
        return waits == [None, None]

    async def _wait(self, delay_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(delay_s, 0))
        self._wake.clear()

    async def _step(self) -> float:
        """Decide what goes where, have a lane for each link, and wake them all; how long to wait after that."""
        if not self._adopted:
            async with self._engine.begin() as connection:
                await links.adopt_settings(connection, self._settings)
                await model_queue.adopt(connection)
            self._adopted = True
        async with self._tools.one_statement() as connection:
            linked = await link_queries.read_links(connection)
        for gone in self._lanes.keys() - {link.link_id for link in linked}:
            await self._lanes.pop(gone).abandon()
        async with self._engine.begin() as connection:
            routed = await destinations.route(connection, settle=self._settings.mirror_settle)
        await self._place_models()
        for lane in self._lanes.values():
            await lane.drop_lost()
        for link in linked:
            if link.link_id not in self._lanes:
                self._lanes[link.link_id] = Lane(
                    self._tools, self._open_target, link, debounce=self._debounce, changed=self._lane_changed
                )
            self._lanes[link.link_id].wake()
        if clock_s() - self._forgot_at > _FORGET_EVERY_S:
            self._forgot_at = clock_s()
            async with self._engine.begin() as connection:
                await throughput.forget_old(connection)
                await pulse.forget_old(connection)
        return 0 if routed == destinations.BATCH else self._settings.mirror_poll.total_seconds()

    async def _place_models(self) -> None:
        """After the runs, whose places count: the new ones each time, all of them now and then."""
        everything = self._draining or clock_s() - self._placed_at >= _PLACE_EVERY_S
        if everything:
            self._placed_at = clock_s()
        async with self._engine.begin() as connection:
            await model_places.place(connection, settle=self._settings.mirror_settle, everything=everything)

    def _lane_changed(self) -> None:
        """A lane looks after itself; only who waits for all of them to be done wants to know."""
        if self._draining:
            self._wake.set()

    async def _wind_up(self) -> None:
        """Finish the pages in hand within one request's time, give everything back, close."""
        self._stopping = True
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        self._lanes.clear()
        with suppress(*DATABASE_ERRORS):
            await self._tools.write_tally(at_once=True)
        self._stopping, self._draining = False, False


async def run_worker(settings: Settings, database_url: str) -> None:
    """`runmirror worker`: a process that mirrors until SIGTERM or SIGINT."""
    engine = create_engine(settings, database_url)
    tracing = open_tracing(settings, "runmirror-worker")
    if tracing is not None:
        tracing.watch(engine)
        set_tracing(tracing)  # every task of the process inherits it
    store = create_store(settings)
    worker = Worker(settings, engine, store)
    loop = asyncio.get_running_loop()
    stopping: set[asyncio.Task[None]] = set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: stopping.add(asyncio.create_task(worker.stop())))
    try:
        await worker.run()
    finally:
        await store.close()
        await engine.dispose()
        if tracing is not None:
            await tracing.close()

"""One seed from its beginning to its verdict: workload and faults together, then quiet, a drain, and the comparison."""

import asyncio
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from azure.storage.blob import BlobServiceClient

from tests.chaos.compare import OVERFLOW, compare, newest, read_source, read_target
from tests.chaos.crash_points import MARK
from tests.chaos.nursery import Child
from tests.chaos.plan import LIMITS, SETTLE_S, TIMEOUT_S, Event, Plan, draw
from tests.chaos.workload import Workload
from tests.chaos.world import World
from tests.server import clean_environment, free_port

# Little patience: what takes minutes in production is over in a second.
_HASTE = {
    "RUNMIRROR_MIRROR_LEASE": "3", "RUNMIRROR_MIRROR_TIMEOUT": str(TIMEOUT_S), "RUNMIRROR_MIRROR_SETTLE": str(SETTLE_S),
    "RUNMIRROR_MIRROR_POLL": "0.2", "RUNMIRROR_MIRROR_DEBOUNCE": "0.02", "RUNMIRROR_MIRROR_BACKOFF_MAX": "0.1",
    "RUNMIRROR_MIRROR_OVERFLOW_EVERY": "0.2", "RUNMIRROR_DB_POOL_TIMEOUT": "2",
}  # fmt: skip
_LEASE_S = 3.0
_READY_S = 60.0
_DRAIN_S = 180.0
_DIED = re.compile(re.escape(MARK) + r"(\w+) (.*)")


@dataclass
class Verdict:
    """What came of a seed."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    boundaries: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    repeated: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)


class Keep:
    """Keeps one process alive: whenever it dies it is started again, with the next death it is meant to die."""

    def __init__(self, start: Callable[[tuple[str, int] | None], Awaitable[Child]], deaths: list[tuple[str, int]]):
        self._start = start
        self._deaths = list(deaths)
        self.child: Child | None = None
        self._stopping = False

    async def run(self) -> None:
        while not self._stopping:
            self.child = await self._start(self._deaths.pop(0) if self._deaths else None)
            await self.child.ended.wait()

    async def stop(self, keeping: asyncio.Task[None]) -> None:
        self._stopping = True
        if self.child is not None:
            await self.child.stop()
        await keeping

    def calm(self) -> None:
        """Nothing more is planned for those that are still to be started."""
        self._deaths.clear()


class Seed:
    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._plan: Plan = draw(seed)
        self._verdict = Verdict(seed)
        self._folder = world.folder / f"seed{seed}"
        self._folder.mkdir()
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._database = f"seed_{seed}"
        self._environment: Mapping[str, str] = {}
        self._moved = asyncio.Event()
        self._blob_store = self._plan.blob_store and world.blobs is not None

    async def run(self) -> Verdict:
        began = time.monotonic()
        url = await self._world.database(self._database)
        await self._prepare(url)
        workload = Workload(self._url, self._plan.runs, f"chaos {self._plan.seed}")
        workload.progressed = self._moved.set
        server = Keep(self._start_server, self._plan.server_deaths)
        workers = [Keep(self._start_worker, self._plan.deaths if n == 0 else []) for n in range(self._plan.workers)]
        keeping = [(keep, asyncio.create_task(keep.run())) for keep in (server, *workers)]
        try:
            await self._ready()
            async with asyncio.TaskGroup() as group:
                working = group.create_task(workload.run())
                group.create_task(self._misfortunes(workload, working, server, workers))
            await self._quiet(server, workers)
            await self._drained(workload)
            await self._verdict_of(workload)
        except (AssertionError, ExceptionGroup, TimeoutError, httpx.HTTPError) as error:
            self._verdict.differences.append(_words(error))
        finally:
            await workload.close()
            for keep, task in keeping:
                try:
                    await keep.stop(task)
                except AssertionError as error:
                    self._verdict.differences.append(str(error))
            await self._world.tell("DELETE", "/faults")
        self._verdict.logs = sorted(self._folder.glob("*.log"))
        for log in self._verdict.logs:
            for kind, what in _DIED.findall(log.read_text(errors="replace")):
                self._verdict.boundaries[f"{kind} {what}"] += 1
                self._verdict.faults[f"kill -9 {kind}"] += 1
        self._verdict.acknowledged, self._verdict.repeated = workload.acknowledged, workload.repeated
        await self._world.postgres.execute(f"DROP DATABASE {self._database} WITH (FORCE)")
        self._verdict.seconds = time.monotonic() - began
        return self._verdict

    async def _prepare(self, database_url: str) -> None:
        world, plan = self._world, self._plan
        await world.tell("POST", "/reset")
        await world.tell("POST", "/settings", plan.emulator)
        for fault in plan.faults:
            await world.tell("POST", "/faults", fault)
        more: Mapping[str, str] = {}
        if self._blob_store:
            more = world.blob_environment(f"seed{plan.seed}")
            await asyncio.to_thread(_create_container, more["AZURE_STORAGE_CONNECTION_STRING"], f"seed{plan.seed}")
        self._environment = clean_environment({
            **world.azure_environment(), **_HASTE, **plan.environment, **more,
            **{f"RUNMIRROR_MIRROR_LIMIT_{name.upper()}": str(limit) for name, limit in LIMITS.items()},
            "RUNMIRROR_DATABASE_URL": database_url, "RUNMIRROR_DATA_DIR": str(self._folder),
            "RUNMIRROR_AZUREML_WORKSPACE": world.emulator.workspace_id,
        })  # fmt: skip

    async def _start_server(self, die: tuple[str, int] | None) -> Child:
        return await self._world.nursery.start(self._port, self._environment, self._folder / "server.log", die=die)

    async def _start_worker(self, die: tuple[str, int] | None) -> Child:
        return await self._world.nursery.start("worker", self._environment, self._folder / "worker.log", die=die)

    async def _ready(self) -> None:
        async with httpx.AsyncClient(base_url=self._url, trust_env=False, verify=False, timeout=10) as client:
            async with asyncio.timeout(_READY_S):
                while True:
                    with suppress(httpx.TransportError):
                        if (await client.get("/livez")).status_code == 200:
                            return
                    await asyncio.sleep(0.03)

    async def _misfortunes(
        self, workload: Workload, working: asyncio.Task[None], server: Keep, workers: list[Keep]
    ) -> None:
        """Every event when its time has come, counted in what is acknowledged."""
        for event in self._plan.events:
            while workload.acknowledged < event.at * workload.total and not working.done():
                self._moved.clear()
                moved = asyncio.create_task(self._moved.wait())
                await asyncio.wait({moved, working}, return_when=asyncio.FIRST_COMPLETED)
                moved.cancel()
            if working.done() and working.exception() is not None:
                return
            if await self._happen(event, server, workers):
                self._verdict.faults[event.kind] += 1

    async def _happen(self, event: Event, server: Keep, workers: list[Keep]) -> bool:  # noqa: PLR0912 - one a kind
        """Whether there was anything it could happen to."""
        world = self._world
        worker = workers[event.number % len(workers)].child
        match event.kind:
            case "kill worker" if worker is not None:
                await worker.kill()
            case "kill server" if server.child is not None:
                await server.child.kill()
            case "zombie" if worker is not None:
                await self._zombie(worker)
            case "second worker":
                await (await self._start_worker(None)).stop()
            case "cut network":
                world.azure.cut()
            case "refuse network":
                world.azure.refuse()
                await asyncio.sleep(event.seconds)
                world.azure.heal()
            case "stall network":
                world.azure.stall()
                await asyncio.sleep(event.seconds)
                world.azure.heal()
            case "kill postgres session":
                await world.postgres.kill_session(self._database, event.number)
            case "terminate postgres sessions":
                await world.postgres.terminate_sessions(self._database)
            case "restart postgres":
                await world.postgres.restart()
            case "kill postgres":
                await world.postgres.kill()
            case "pause postgres":
                await world.postgres.pause(event.seconds)
            case "blob store away" if self._blob_store and world.blobs is not None:
                world.blobs.refuse()
                await asyncio.sleep(event.seconds)
                world.blobs.heal()
            case _:
                return False
        return True

    async def _zombie(self, worker: Child) -> None:
        """Stalled beyond its lease, while another one does its work, and woken."""
        worker.signal(signal.SIGSTOP)
        other = await self._start_worker(None)
        await asyncio.sleep(_LEASE_S + 0.5)
        worker.signal(signal.SIGCONT)
        await other.stop()

    async def _quiet(self, server: Keep, workers: list[Keep]) -> None:
        """The faults end; what has struck is counted."""
        for keep in (server, *workers):
            keep.calm()
        for fault in (await self._world.tell("GET", "/faults"))["faults"]:
            kind = str(fault["status"]) if fault["kind"] == "status" else fault["kind"]
            if kind == "429":
                wait = fault["headers"].get("Retry-After", "")
                kind += " until a date" if "date" in wait else f" for {wait} s" if wait else ""
            if kind == "403" and fault["match"]["host"] != "*":
                kind = "SAS refused"
            self._verdict.faults[kind] += fault["hits"]
        self._verdict.faults = Counter({kind: hits for kind, hits in self._verdict.faults.items() if hits})
        if self._plan.emulator["read_lag_seconds"]:
            self._verdict.faults["read lag"] += 1
        await self._world.tell("DELETE", "/faults")
        await self._world.tell("POST", "/settings", {"sas_lifetime": 3600})

    async def _drained(self, workload: Workload) -> None:
        """Until nothing is behind. What was set aside is replayed once, as an operator would."""
        replayed = False
        deadline = time.monotonic() + _DRAIN_S
        query = (
            "SELECT count(*) FILTER (WHERE state IN ('due', 'leased')) AS behind, "
            "count(*) FILTER (WHERE state = 'quarantined') AS aside FROM mirrors"
        )
        while time.monotonic() < deadline:
            row = (await self._world.postgres.execute(query, self._database))[0]
            if not row["behind"] and not row["aside"]:
                return
            if not row["behind"] and not replayed:
                replayed = True
                self._verdict.faults["set aside, and replayed"] += row["aside"]
                await self._world.postgres.execute(
                    "UPDATE mirrors SET state = 'due', attempt = 0, due_at = now() WHERE state = 'quarantined'",
                    self._database,
                )
            await asyncio.sleep(0.05)
        rows = await self._world.postgres.execute(
            "SELECT run_id, state, attempt, last_error FROM mirrors WHERE state <> 'current'", self._database
        )
        raise AssertionError(f"not mirrored after {_DRAIN_S:.0f} s of quiet: {[dict(row) for row in rows]}")

    async def _verdict_of(self, workload: Workload) -> None:
        state = await self._world.tell("GET", "/state")
        effects = (await self._world.tell("GET", "/effects"))["effects"]
        overflows = {}
        for run in state["runs"]:
            held = newest(run["artifacts"]).get(OVERFLOW)
            if held is not None and held["sha256"] is not None:
                overflows[run["run_id"]] = await self._world.content(held["artifact_id"])
        source = await asyncio.to_thread(read_source, self._url, workload.experiments)
        target = read_target(state, effects, overflows)
        self._verdict.differences += compare(workload.journals, source, target)
        names = Counter(experiment["name"] for experiment in state["experiments"])
        self._verdict.differences += [f"experiment {name!r} twice" for name, number in names.items() if number > 1]


def _create_container(connection_string: str, name: str) -> None:
    with BlobServiceClient.from_connection_string(connection_string) as service:
        service.create_container(name)


def _words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_words(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"


def as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "seed": verdict.seed, "seconds": round(verdict.seconds, 2), "acknowledged": verdict.acknowledged,
        "faults": dict(verdict.faults), "boundaries": dict(verdict.boundaries), "differences": verdict.differences,
    }  # fmt: skip

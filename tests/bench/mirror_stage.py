"""What the mirror is measured on: Postgres, the stand-in workspace, worker processes, and many runs at once."""

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psutil
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runmirror.artifacts.store import create_store
from runmirror.embedded import embedded_postgres
from runmirror.migrate import migrate
from runmirror.mirror.queue import CHANNEL
from runmirror.settings import Settings
from runmirror.tables.base import metadata
from tests.azureml_emulator.process import EmulatorProcess, start_emulator
from tests.mirror.factories import Source
from tests.server import clean_environment

DEADLINE_S = 900.0
_COPIED = ("runs", "metrics", "latest_metrics", "params", "tags", "mirrors")


@dataclass(frozen=True)
class StandIn:
    """See `tests.bench.mirror_stand_in`."""

    port: int
    process: psutil.Process

    def ask(self, method: str, path: str) -> dict[str, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def wait_for_requests(self) -> None:
        """Until a worker is up and has probed the workspace."""
        until = deadline()
        while not self.ask("GET", "/stats")["requests"]:
            if time.monotonic() > until:
                raise TimeoutError("no worker has asked anything: see its log")
            time.sleep(0.1)


@dataclass(frozen=True)
class Stage:
    """Everything is on this machine, as `runmirror serve` has it: an embedded Postgres that syncs every commit."""

    folder: Path
    database_url: str
    emulator: EmulatorProcess
    stand_in: StandIn
    engine: AsyncEngine
    source: Source

    def environment(self, **more: str) -> dict[str, str]:
        """For a process that mirrors into the stand-in."""
        ours = {"RUNMIRROR_DATABASE_URL": self.database_url, "RUNMIRROR_DATA_DIR": str(self.folder / "data")}
        return clean_environment(linked(self.emulator, self.stand_in) | ours | more)

    @contextmanager
    def worker(self, **more: str) -> Iterator[psutil.Process]:
        """`runmirror worker`, one process."""
        log = self.folder / "worker.log"
        with log.open("ab") as sink:
            command = [sys.executable, "-m", "runmirror", "worker"]
            child = subprocess.Popen(command, env=self.environment(**more), stdout=sink, stderr=sink)
        try:
            yield psutil.Process(child.pid)
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(90)

    async def set_aside(self, run_id: UUID) -> None:
        """No worker takes it: it is there to be multiplied."""
        async with self.engine.begin() as connection:
            await connection.execute(
                text("UPDATE mirrors SET state = 'quarantined' WHERE run_id = :run_id"), {"run_id": run_id}
            )

    async def multiply(self, run_id: UUID, number: int) -> None:
        """Many runs with the content of one, in one transaction, and nothing else that is behind."""
        async with self.engine.begin() as connection:
            await connection.execute(
                text("CREATE TEMP TABLE copies ON COMMIT DROP AS SELECT gen_random_uuid() AS id "
                     "FROM generate_series(1, :number)"),
                {"number": number},
            )  # fmt: skip
            for name in _COPIED:
                columns = [column.name for column in metadata.tables[name].columns]
                values = {
                    "run_id": "copies.id",
                    "artifact_uri": "'file:///' || copies.id",
                    "state": "'due'", "due_at": "clock_timestamp()", "behind_since": "clock_timestamp()",
                    "backfill": "false",  # live ones, whose pace nobody limits
                }  # fmt: skip
                picked = ", ".join(values.get(column, f"t.{column}") for column in columns)
                await connection.execute(
                    text(f"INSERT INTO {name} ({', '.join(columns)}) SELECT {picked} FROM {name} t CROSS JOIN copies "
                         "WHERE t.run_id = :run_id"),
                    {"run_id": run_id},
                )  # fmt: skip
                await connection.execute(text(f"DELETE FROM {name} WHERE run_id = :run_id"), {"run_id": run_id})
            await connection.execute(text(f"SELECT pg_notify('{CHANNEL}', '')"))
        async with self.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("ANALYZE"))

    async def behind(self) -> int:
        async with self.engine.connect() as connection:
            counting = text("SELECT count(*) FROM mirrors WHERE state <> 'current'")
            return int((await connection.execute(counting)).scalar_one())


def linked(emulator: EmulatorProcess, stand_in: StandIn) -> dict[str, str]:
    """What makes a server's or a worker's workspace the stand-in."""
    proxy = f"http://127.0.0.1:{stand_in.port}"
    ways = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), proxy)
    return emulator.env() | ways | {"RUNMIRROR_AZUREML_WORKSPACE": emulator.workspace_id}


@contextmanager
def stage() -> Iterator[Stage]:
    """Start all of it in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="runmirror-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with embedded_postgres(folder) as url, start_emulator(folder) as emulator, stand_in_for(emulator) as stand_in:
            migrate(url)
            settings = Settings(database_url=url, data_dir=folder / "data", mirror=False)
            engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
            yield Stage(folder, url, emulator, stand_in, engine, Source(engine, create_store(settings)))


@contextmanager
def stand_in_for(emulator: EmulatorProcess) -> Iterator[StandIn]:
    command = [
        sys.executable, "-m", "tests.bench.mirror_stand_in", "--certificates", str(Path(emulator.ca_file).parent),
        "--api-host", str(urlsplit(emulator.api_url).hostname), "--blob-host", str(emulator.ready["blob_host"]),
        "--emulator-port", str(urlsplit(emulator.proxy_url).port),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield StandIn(int(process.stdout.readline()), psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(15)


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def postgres_cpu_s(folder: Path) -> float:
    """Of all its processes that live now, and of those that have ended."""
    postmaster = psutil.Process(int((folder / "postgres" / "postmaster.pid").read_text().split()[0]))
    ended = postmaster.cpu_times()
    return float(ended.children_user + ended.children_system) + sum(map(cpu_s, postmaster.children(recursive=True)))


def deadline() -> float:
    return time.monotonic() + DEADLINE_S

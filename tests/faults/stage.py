"""What a fault needs around the server: Postgres and a workspace of its own, and somebody who looks at the probes."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from tests.azureml_emulator.process import EmulatorProcess, start_emulator
from tests.chaos.world import TEMPLATE, Postgres
from tests.faults.figures import Figures
from tests.server import Server, clean_environment, serving

DATABASE = "faults"
MIRRORED_S = 240.0
PROBE_EVERY_S = 0.2
PROBE_TIMEOUT_S = 12.0

# The worker does in seconds what takes it minutes in production; the server is as it comes.
_HASTE = {
    "RUNMIRROR_MIRROR_LEASE": "15", "RUNMIRROR_MIRROR_TIMEOUT": "10", "RUNMIRROR_MIRROR_SETTLE": "0.5",
    "RUNMIRROR_MIRROR_POLL": "0.5", "RUNMIRROR_MIRROR_DEBOUNCE": "0.2", "RUNMIRROR_MIRROR_BACKOFF_MAX": "1",
    "RUNMIRROR_MIRROR_OVERFLOW_EVERY": "1",
}  # fmt: skip


class Stage:
    """A Postgres that syncs what it commits, and the emulator if the mirror is on."""

    def __init__(self, folder: Path, emulator: EmulatorProcess | None, postgres: Postgres) -> None:
        self.folder = folder
        self.emulator = emulator
        self.postgres = postgres

    def environment(self) -> dict[str, str]:
        database = self.postgres.uri(DATABASE)
        found = {"RUNMIRROR_DATA_DIR": str(self.folder / "data"), "RUNMIRROR_DATABASE_URL": database}
        if self.emulator is not None:
            azure = {name: value for name, value in self.emulator.env().items() if name not in {"PATH", "HOME"}}
            linked = {"RUNMIRROR_AZUREML_WORKSPACE": self.emulator.workspace_id}
            local = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}  # Azurite is not behind the proxy
            found |= azure | local | _HASTE | linked
        return found

    @contextmanager
    def serving(self, *arguments: str, port: int | None = None, **more: str) -> Iterator[Server]:
        """`runmirror serve` as operators start it."""
        mirror = () if self.emulator is not None else ("--no-mirror",)
        with serving(
            self.folder / "data", *mirror, *arguments, port=port, **self.environment() | more
        ) as server:  # fmt: skip
            yield server

    def compare_with_workspace(self, url: str, figures: Figures, **more: str) -> None:
        """Wait until nothing is behind, then have the product itself compare both sides."""
        deadline = time.monotonic() + MIRRORED_S
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
            while True:
                told = http.get("/api/runmirror/v1/mirror").json()
                if told["runs_quarantined"]:
                    figures.wrong.append(f"{told['runs_quarantined']} runs were set aside: {told}")
                    return
                if not told["runs_behind"]:
                    break
                if time.monotonic() > deadline:
                    figures.wrong.append(f"not mirrored after {MIRRORED_S:.0f} s: {told}")
                    return
                time.sleep(0.5)
        done = subprocess.run(
            [sys.executable, "-m", "runmirror", "verify", "--json"], capture_output=True, text=True, check=False,
            env=clean_environment(self.environment() | more),
        )  # fmt: skip
        if done.returncode:
            figures.wrong.append(f"verify ended with {done.returncode}: {done.stdout[:1000]} {done.stderr[-500:]}")
            return
        figures.mirrored_runs = json.loads(done.stdout.splitlines()[-1])["summary"]["equal"]


@contextmanager
def open_stage(folder: Path, *, mirror: bool = True, postgres_at: Path | None = None) -> Iterator[Stage]:
    with ExitStack() as stack:
        emulator = stack.enter_context(start_emulator(folder / "azure")) if mirror else None
        postgres = Postgres(postgres_at or folder / "postgres", fsync=True)
        stack.callback(postgres.close)
        asyncio.run(postgres.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {TEMPLATE}"))
        yield Stage(folder, emulator, postgres)


@dataclass
class Seen:
    """One look at a probe."""

    began: float
    took_s: float
    status: int  # 0: no answer
    said: str = ""


@dataclass
class Watch:
    """Asks `/livez` and `/readyz` all the time, each by itself, so that one that hangs holds up no other."""

    url: str
    seen: dict[str, list[Seen]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._look, args=(path,)) for path in ("/livez", "/readyz")]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _look(self, path: str) -> None:
        seen = self.seen.setdefault(path, [])
        with httpx.Client(base_url=self.url, trust_env=False, timeout=PROBE_TIMEOUT_S) as http:
            while not self._ended.wait(PROBE_EVERY_S):
                began = time.monotonic()
                try:
                    answer = http.get(path)
                    seen.append(Seen(began, time.monotonic() - began, answer.status_code, answer.text))
                except httpx.TransportError as error:
                    seen.append(Seen(began, time.monotonic() - began, 0, type(error).__name__))

    def between(self, path: str, start: float, end: float) -> list[Seen]:
        """Looks that began in this time."""
        return [seen for seen in self.seen.get(path, []) if start <= seen.began < end]

"""A server under test, with what was prepared on it."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.bench.client import Program
from tests.bench.postgres import Postgres
from tests.bench.servers import Server, cpu_s

API = "/api/2.0/mlflow"


@dataclass
class Subject:
    server: Server
    postgres: Postgres
    folder: Path
    http: httpx.Client
    experiment: str = ""  # 2,000 full runs, only read
    many: str = ""  # ever more of them
    playground: str = ""  # where rows write
    runs: list[str] = field(default_factory=list)  # sixteen of the playground
    history_run: str = ""
    programs: dict[str, Program] = field(default_factory=dict)  # clients that a row keeps between its rounds

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post(API + path, json=body)
        answer.raise_for_status()
        return dict(answer.json())

    def end_programs(self) -> None:
        while self.programs:
            self.programs.popitem()[1].end()

    def used_s(self) -> tuple[float, float]:
        """CPU seconds of the server and of Postgres so far."""
        own = self.postgres.process
        backends = [own, *own.children(recursive=True)]
        times = own.cpu_times()  # of the backends that have ended, too
        return self.server.cpu_s(), cpu_s(backends) + float(times.children_user + times.children_system)

    def suspend(self) -> None:
        """It costs nothing until `resume`: for a server whose mirror goes on when nobody asks."""
        self._signal("suspend")

    def resume(self) -> None:
        self._signal("resume")

    def kill(self) -> None:
        self._signal("kill")

    def _signal(self, what: str) -> None:
        for process in self.server.processes():
            with suppress(psutil.NoSuchProcess):
                getattr(process, what)()

"""Clients that log runs through the API whatever happens to it, and write down what was acknowledged."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from tests.chaos.plan import Json, Op, RunPlan

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
PATIENCE_S = 60.0
_AGAIN = {408, 429, 500, 502, 503, 504}


@dataclass
class Call:
    """One call as its client saw it, at ticks of one clock; without an answer it may have happened."""

    op: Op
    begun: int
    answered: int | None = None


@dataclass
class Journal:
    """What one client did to one run."""

    plan: RunPlan
    run_id: str = ""
    root: str = ""
    calls: list[Call] = field(default_factory=list)

    def acknowledged(self, kind: str) -> list[Call]:
        return [call for call in self.calls if call.op.kind == kind and call.answered is not None]


class Workload:
    """All clients of one seed."""

    def __init__(self, url: str, runs: list[RunPlan], name: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=30)
        self._name = name
        self._ticks = itertools.count(1)
        self._born = [asyncio.Event() for _ in runs]
        self.journals = [Journal(run) for run in runs]
        self.experiments: list[str] = []
        self.total = sum(len(run.ops) for run in runs)
        self.acknowledged = 0
        self.repeated = 0
        self.progressed: Callable[[], None] = lambda: None

    async def close(self) -> None:
        await self._client.aclose()

    async def run(self) -> None:
        for number in range(2):
            self.experiments.append(await self._experiment(f"{self._name} {number}"))
        async with asyncio.TaskGroup() as group:
            for number, journal in enumerate(self.journals):
                group.create_task(self._write(number, journal))

    async def _experiment(self, name: str) -> str:
        """Created, or found when an earlier answer was lost."""
        answer = await self._answered("POST", f"{API}/experiments/create", (200, 400), json={"name": name})
        if answer.status_code == 400:
            answer = await self._answered("GET", f"{API}/experiments/get-by-name", params={"experiment_name": name})
            return str(answer.json()["experiment"]["experiment_id"])
        return str(answer.json()["experiment_id"])

    async def _write(self, number: int, journal: Journal) -> None:
        plan = journal.plan
        tags = [{"key": key, "value": value} for key, value in plan.tags.items()]
        if plan.parent is not None:
            await self._born[plan.parent].wait()
            tags.append({"key": "mlflow.parentRunId", "value": self.journals[plan.parent].run_id})
        body = {
            "experiment_id": self.experiments[plan.experiment], "run_name": plan.name, "start_time": 1_700_000_000_000,
            "tags": tags,
        }  # fmt: skip
        # Repeated after a lost answer it makes a second run, which has to be mirrored too.
        info = (await self._answered("POST", f"{API}/runs/create", json=body)).json()["run"]["info"]
        journal.run_id, journal.root = info["run_id"], info["artifact_uri"].removeprefix("mlflow-artifacts:/")
        self._born[number].set()
        for op in plan.ops:
            call = Call(op, next(self._ticks))
            journal.calls.append(call)
            if await self._do(journal, op):
                call.answered = next(self._ticks)
                self.acknowledged += 1
            self.progressed()

    async def _do(self, journal: Journal, op: Op) -> bool:  # noqa: PLR0911 - one for each kind of call
        """Whether it was acknowledged."""
        what, run = op.what, {"run_id": journal.run_id}
        match op.kind:
            case "batch":
                return await self._acknowledged("/runs/log-batch", run | what, give_up=op.give_up)
            case "tag":
                return await self._acknowledged("/runs/set-tag", run | what)
            case "delete_tag":
                return await self._acknowledged("/runs/delete-tag", run | what, absent_is_fine=True)
            case "update":
                return await self._acknowledged("/runs/update", run | what)
            case "delete" | "restore":
                return await self._acknowledged(f"/runs/{op.kind}", run)
            case "inputs":
                dataset = {"name": what["name"], "digest": "d", "source_type": "local", "source": "{}"}
                return await self._acknowledged("/runs/log-inputs", run | {"datasets": [{"dataset": dataset}]})
            case "file":
                content = what["content"].encode()
                return await self._is_ok("PUT", self._file(journal, what["path"]), content=content)
            case "delete_file":
                answer = await self._answered("DELETE", self._file(journal, what["path"]), (200, 204, 404))
                return answer.status_code != 0
        raise AssertionError(op.kind)

    def _file(self, journal: Journal, path: str) -> str:
        return f"{FILES}/{journal.root}/{quote(path)}"

    async def _acknowledged(
        self, path: str, body: Json, *, give_up: bool = False, absent_is_fine: bool = False
    ) -> bool:
        fine = (200, 404) if absent_is_fine else (200,)
        if not give_up:
            await self._answered("POST", API + path, fine, json=body)
            return True
        return await self._is_ok("POST", API + path, once=True, json=body)

    async def _is_ok(self, method: str, path: str, *, once: bool = False, **body: Any) -> bool:
        if not once:
            await self._answered(method, path, (200, 204), **body)
            return True
        try:
            answer = await self._client.request(method, path, **body)
        except httpx.TransportError:
            return False
        assert answer.status_code == 200 or answer.status_code in _AGAIN, answer.text
        return answer.status_code == 200

    async def _answered(self, method: str, path: str, fine: tuple[int, ...] = (200,), **body: Any) -> httpx.Response:
        """Sent until it is answered, as MLflow's client does."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        told = ""
        while asyncio.get_running_loop().time() < deadline:
            try:
                answer = await self._client.request(method, path, **body)
            except httpx.TransportError as error:
                told = repr(error)
            else:
                if answer.status_code in fine:
                    return answer
                told = f"{answer.status_code} {answer.text[:500]}"
                assert answer.status_code in _AGAIN, f"{method} {path}: {told}"
            self.repeated += 1
            await asyncio.sleep(0.03)
        raise AssertionError(f"no answer to {method} {path}: {told}")

"""How fast one worker mirrors: small runs, points, and a backlog after an outage."""

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psutil

from runmirror.entities import Metric
from tests.bench.mirror_stage import Stage, cpu_s, deadline, postgres_cpu_s
from tests.mirror.factories import START_MS

_SMALL_POINTS = 10
_CHUNK = 1000


@dataclass(frozen=True)
class Measured:
    """One backlog, from the first to the last request about a run."""

    runs: int
    points: int
    seconds: float
    worker_cpu_s: float
    postgres_cpu_s: float
    stand_in_cpu_s: float
    requests: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return {
            "runs": self.runs, "points": self.points, "seconds": round(self.seconds, 3),
            "runs_per_s": round(self.runs / self.seconds, 1), "points_per_s": round(self.points / self.seconds),
            "ms_per_run": round(1000 * self.seconds / self.runs, 3),
            "worker_cpu_ms_per_run": round(1000 * self.worker_cpu_s / self.runs, 3),
            "worker_cpu_us_per_point": round(1e6 * self.worker_cpu_s / max(self.points, 1), 2),
            "worker_cores": round(self.worker_cpu_s / self.seconds, 2),
            "postgres_cores": round(self.postgres_cpu_s / self.seconds, 2),
            "stand_in_cores": round(self.stand_in_cpu_s / self.seconds, 2),
            "requests_per_run": round(sum(self.requests.values()) / self.runs, 3), "requests": self.requests,
        }  # fmt: skip


async def small_run(stage: Stage) -> UUID:
    """A finished run as a script makes it: five params, three tags, ten points of two metrics."""
    run = await stage.source.run("small", team="a", stage="b")
    await run.log(params={f"p{number}": str(number) for number in range(5)}, tags={"note": "x"})
    for step in range(_SMALL_POINTS // 2):
        await run.log(metrics=[Metric(key, step / 3, START_MS + step, step) for key in ("loss", "accuracy")])
    await run.finish()
    await stage.set_aside(run.run_id)
    return run.run_id


async def long_run(stage: Stage, points: int) -> UUID:
    """A finished run with many points of ten metrics, a thousand a log-batch."""
    run = await stage.source.run("long")
    for first in range(0, points, _CHUNK):
        metrics = [
            Metric(f"m{n % 10}", n / 7, START_MS + n, n // 10) for n in range(first, min(first + _CHUNK, points))
        ]
        await run.log(metrics=metrics)
    await run.finish()
    await stage.set_aside(run.run_id)
    return run.run_id


async def catch_up(stage: Stage, template: UUID, runs: int, *, points: int) -> Measured:
    """Copies of a run pile up while the workspace is down; measured from the first request that it takes again."""
    with ExitStack() as ending:
        worker = ending.enter_context(stage.worker(RUNMIRROR_MIRROR_BACKOFF_MAX="1", RUNMIRROR_MIRROR_DEBOUNCE="0"))
        stage.stand_in.ask("POST", "/reset")
        stage.stand_in.wait_for_requests()
        stage.stand_in.ask("POST", "/down/1")
        await stage.multiply(template, runs)
        stage.stand_in.ask("POST", "/reset")
        before = _cpu(stage, worker)
        stage.stand_in.ask("POST", "/down/0")
        until = deadline()
        while await stage.behind():
            if time.monotonic() > until:
                raise TimeoutError("the worker did not catch up: see worker.log")
            await asyncio.sleep(0.2)
        after = _cpu(stage, worker)
        stats = stage.stand_in.ask("GET", "/stats")
    used = [late - early for late, early in zip(after, before, strict=True)]
    return Measured(runs, points * runs, stats["last_at"] - stats["first_at"], *used, stats["requests"])


def _cpu(stage: Stage, worker: psutil.Process) -> tuple[float, float, float]:
    return cpu_s(worker), postgres_cpu_s(stage.folder), cpu_s(stage.stand_in.process)


async def measure(stage: Stage, sizes: list[int], points: int, long_runs: int) -> dict[str, Any]:
    """Backlogs of small runs, then one of long ones."""
    await catch_up(stage, await small_run(stage), 200, points=_SMALL_POINTS)  # warms the disk's and Postgres's caches
    catching_up = [
        (await catch_up(stage, await small_run(stage), size, points=_SMALL_POINTS)).as_json() for size in sizes
    ]
    long = await catch_up(stage, await long_run(stage, points), long_runs, points=points)
    await stage.engine.dispose()
    return {"small_runs": catching_up, "long_runs": long.as_json()}

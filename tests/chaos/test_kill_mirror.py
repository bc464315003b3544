"""kill -9 of workers and of the server while runs are written: the workspace ends up with everything, once."""

import asyncio
import hashlib
import os
import random
import threading
import time
from base64 import b64encode
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.azureml_emulator.process import EmulatorProcess
from tests.chaos.nursery import Child
from tests.chaos.world import open_world
from tests.server import clean_environment, free_port

API = "/api/2.0/mlflow"
KILLS = 8
DEADLINE_S = 90.0

# Small requests, short leases: many moments at which a death leaves something half done.
HASTE = {
    "RUNMIRROR_MIRROR_METRICS_PER_REQUEST": "7", "RUNMIRROR_MIRROR_DEBOUNCE": "0.05", "RUNMIRROR_MIRROR_POLL": "0.3",
    "RUNMIRROR_MIRROR_LEASE": "3", "RUNMIRROR_MIRROR_TIMEOUT": "2", "RUNMIRROR_MIRROR_SETTLE": "0.2",
}  # fmt: skip


class Training(threading.Thread):
    """Writes one run through kills of the server; whatever has no answer is sent again, as a client would."""

    def __init__(self, url: str, number: int, enough: threading.Event) -> None:
        super().__init__(name=f"training-{number}")
        self.url = url
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=10)
        self.enough = enough
        self.number = number
        self.run_id = ""
        self.points: set[tuple[str, int, float]] = set()
        self.files: dict[str, bytes] = {}

    def run(self) -> None:
        with self.client:
            created = self.answered("POST", f"{API}/runs/create", json={"experiment_id": "0"})
            info = created.json()["run"]["info"]
            self.run_id = info["run_id"]
            root = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
            step = 0
            while not self.enough.is_set():
                values = [("loss", step, step / 7), ("accuracy", step, float(step))]
                metrics = [{"key": k, "step": s, "timestamp": s, "value": v} for k, s, v in values]
                param = [{"key": f"p{step}", "value": str(step)}] if step < 50 else []
                batch = {"run_id": self.run_id, "metrics": metrics, "params": param}
                self.answered("POST", f"{API}/runs/log-batch", json=batch)
                self.points |= set(values)
                if step % 10 == 0:
                    content = f"{self.number}/{step}".encode() * 50
                    path = f"files/{step}.txt"
                    self.answered("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{root}/{path}", content=content)
                    self.files[path] = content
                step += 1
            self.answered(
                "POST", f"{API}/runs/update", json={"run_id": self.run_id, "status": "FINISHED", "end_time": 9}
            )

    def answered(self, method: str, path: str, **body: Any) -> httpx.Response:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                answer = self.client.request(method, path, **body)
                if answer.status_code not in {429, 503}:
                    assert answer.status_code == 200, answer.text
                    return answer
            time.sleep(0.05)
        raise AssertionError(f"no answer to {method} {path}")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_workspace_has_everything_once_whoever_was_killed(open_folder: Path) -> None:
    seed = int(os.environ.get("RUNMIRROR_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"seed {seed} (repeat with RUNMIRROR_TEST_SEED)")
    dice = random.Random(seed)
    port, enough = free_port(), threading.Event()
    trainings = [Training(f"http://127.0.0.1:{port}", number, enough) for number in range(3)]
    async with open_world(open_folder, blob_store=False) as world, AsyncExitStack() as stack:
        environment = clean_environment({
            **world.azure_environment(), **HASTE, "RUNMIRROR_AZUREML_WORKSPACE": world.emulator.workspace_id,
            "RUNMIRROR_DATABASE_URL": await world.database("kill_mirror"), "RUNMIRROR_DATA_DIR": str(open_folder),
        })  # fmt: skip
        log = open_folder / "worker.log"

        async def start(run: str | int) -> Child:
            child = await world.nursery.start(run, environment, log)
            stack.push_async_callback(child.kill)
            return child

        for turn in range(KILLS):
            server = await start(port)
            if turn == 0:
                for training in trainings:
                    training.start()
            workers = [await start("worker") for _ in range(2)]
            await asyncio.sleep(dice.uniform(0.0, 3.0))  # the moment of the kill is what is random
            for worker in workers:
                await worker.kill()
            await (server.kill() if turn % 3 == 2 else server.stop())
        await start(port)
        enough.set()
        for training in trainings:
            await asyncio.to_thread(training.join, DEADLINE_S)
            assert not training.is_alive()
        worker = await start("worker")
        for training in trainings:
            await asyncio.to_thread(wait_until_mirrored, training, log)
        await worker.stop()
        await asyncio.to_thread(check, world.emulator, trainings, seed)


def wait_until_mirrored(training: Training, log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        row = httpx.get(f"{training.url}/api/runmirror/v1/runs/{training.run_id}/mirror", trust_env=False).json()
        if row["state"] == "current" and row["watermark"] == row["seq"]:
            return
        time.sleep(0.2)
    raise AssertionError(f"{row}\n{log.read_text()[-3000:]}")


def check(workspace: EmulatorProcess, trainings: list[Training], seed: int) -> None:
    runs = workspace.state()["runs"]
    assert Counter(run["tags"]["runmirror.run_id"] for run in runs) == Counter(t.run_id for t in trainings), (
        f"seed {seed}"
    )
    by_source = {run["tags"]["runmirror.run_id"]: run for run in runs}
    for training in trainings:
        run = by_source[training.run_id]
        arrived = [(point["key"], point["step"], float(point["value"])) for point in run["metrics"]]
        assert len(arrived) == len(set(arrived)), f"a point twice, seed {seed}"
        assert set(arrived) == training.points, f"seed {seed}"
        files = {file["path"]: file["md5"] for file in run["artifacts"]}
        assert len(files) == len(run["artifacts"]), f"a file twice, seed {seed}"
        md5 = {path: b64encode(hashlib.md5(content).digest()).decode() for path, content in training.files.items()}
        assert files == md5, f"seed {seed}"
        assert run["status"] == "FINISHED"
        assert len(training.points) > 20

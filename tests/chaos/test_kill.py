"""kill -9 of server and database in the middle of writes: what was acknowledged is there afterwards."""

import os
import random
import signal
import threading
from pathlib import Path

import httpx

from tests.server import Server, free_port, serving

API = "/api/2.0/mlflow"
ROUNDS = 4


class Writer(threading.Thread):
    """Logs to a run of its own until the server is gone; remembers what was acknowledged, and what was not."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(name=f"writer-{number}")
        self.url = url
        self.run_id = ""
        self.acknowledged: set[int] = set()
        self.unanswered: set[int] = set()

    def run(self) -> None:
        with httpx.Client(base_url=self.url + API, trust_env=False, timeout=10) as client:
            try:
                created = client.post("/runs/create", json={"experiment_id": "0"})
                self.run_id = created.json()["run"]["info"]["run_id"]
                for step in range(100_000):
                    points = [{"key": key, "value": step, "timestamp": step, "step": step} for key in ("a", "b")]
                    self.unanswered = {step}
                    client.post("/runs/log-batch", json={"run_id": self.run_id, "metrics": points}).raise_for_status()
                    self.acknowledged.add(step)
                    self.unanswered = set()
            except httpx.HTTPError:
                return


def history(url: str, run_id: str, key: str) -> list[int]:
    query = {"run_id": run_id, "metric_key": key}
    answer = httpx.get(f"{url}{API}/metrics/get-history", params=query, trust_env=False)
    assert answer.status_code == 200, answer.text
    return [point["step"] for point in answer.json().get("metrics", [])]


def test_what_was_acknowledged_survives_kill_9_of_server_and_database(open_folder: Path) -> None:
    seed = int(os.environ.get("RUNMIRROR_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"seed {seed} (repeat with RUNMIRROR_TEST_SEED)")
    dice = random.Random(seed)
    port = free_port()
    finished: list[Writer] = []
    for turn in range(ROUNDS):
        with serving(open_folder, "--no-mirror", port=port) as server:
            writers = [Writer(server.url, number) for number in range(3)]
            for writer in writers:
                writer.start()
            enough = dice.randint(5, 60)
            while sum(len(writer.acknowledged) for writer in writers) < enough:
                writers[0].join(0.001)
            kill(server, open_folder, database_too=turn % 2 == 1)
            for writer in writers:
                writer.join()
            finished += writers
    with serving(open_folder, "--no-mirror", port=port) as server:
        for writer in finished:
            for key in ("a", "b"):
                steps = history(server.url, writer.run_id, key) if writer.run_id else []
                assert len(steps) == len(set(steps))
                assert writer.acknowledged <= set(steps) <= writer.acknowledged | writer.unanswered, f"seed {seed}"
    assert sum(len(writer.acknowledged) for writer in finished) >= ROUNDS * 5


def kill(server: Server, folder: Path, *, database_too: bool) -> None:
    if database_too:
        postmaster = int((folder / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
    server.kill()

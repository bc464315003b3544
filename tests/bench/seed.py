"""What the rows read, and where they write.

Ours is written by its own API and multiplied from there. The others' is written by SQL: the same rows as their own API
leaves, in a tenth of the time.
"""

import time
from pathlib import Path
from typing import Any

from tests.bench.multiply import multiply
from tests.bench.postgres import Postgres
from tests.bench.servers import FASTTRACKML, MLFLOW, OURS
from tests.bench.subject import Subject

RUNS = 2_000
MANY_RUNS = 100_000
HISTORY = 100_000
_SEEDS = Path(__file__).parent / "seeds"


def prepare(subject: Subject, *, names: set[str]) -> None:
    """What the rows of these names need; the 100,000 runs for ours only."""
    name = subject.server.name
    subject.experiment = new_experiment(subject)
    subject.playground = new_experiment(subject)
    subject.runs = [new_run(subject, subject.playground, number) for number in range(16)]
    subject.history_run = new_run(subject, subject.playground, 0)
    if name in {MLFLOW, FASTTRACKML} and names & {"search", "page", "history"}:
        _run(subject.postgres, name, f"{name}.sql", experiment=subject.experiment, run=subject.history_run,
             runs=RUNS, points=HISTORY)  # fmt: skip
    if name == OURS and names & {"search", "page", "search-100k"}:
        write_runs(subject)
    if name == OURS and "history" in names:
        write_history(subject)
    if name == OURS and "search-100k" in names:
        subject.many, first, *more = (new_experiment(subject) for _ in range(11))
        multiply(subject.postgres, subject.experiment, 0, MANY_RUNS, subject.many)
        multiply(subject.postgres, subject.experiment, MANY_RUNS, 2 * MANY_RUNS, f"{first} + n % {1 + len(more)}")
    subject.postgres.sql(name, "VACUUM ANALYZE;")  # now, and not while something is measured


def write_runs(subject: Subject) -> None:
    """2,000 full runs."""
    for number in range(RUNS):
        subject.post("/runs/log-batch", {"run_id": new_run(subject, subject.experiment, number), **_full(number)})


def write_long_run(subject: Subject, experiment: str) -> None:
    """100,000 points: ten metrics of 10,000 steps, a hundred steps of all to a write."""
    run = new_run(subject, experiment, 0)
    for first in range(0, 10_000, 100):
        points = [
            {"key": f"metric-{key}", "value": key / (step + 1), "timestamp": 1_700_000_000_000 + step, "step": step}
            for step in range(first, first + 100) for key in range(10)
        ]  # fmt: skip
        subject.post("/runs/log-batch", {"run_id": run, "metrics": points})


def write_history(subject: Subject) -> None:
    """100,000 points of one metric."""
    for first in range(0, HISTORY, 1000):
        points = [{"key": "loss", "value": 1 / (step + 1), "timestamp": 1_700_000_000_000 + step, "step": step}
                  for step in range(first, first + 1000)]  # fmt: skip
        subject.post("/runs/log-batch", {"run_id": subject.history_run, "metrics": points})


def _run(postgres: Postgres, database: str, script: str, **variables: object) -> None:
    told = "".join(f"\\set {name} '{value}'\n" for name, value in variables.items())
    postgres.sql(database, f"\\set ON_ERROR_STOP on\n{told}{(_SEEDS / script).read_text()}")


def new_experiment(subject: Subject) -> str:
    return str(subject.post("/experiments/create", {"name": f"bench-{time.time_ns()}"})["experiment_id"])


def new_run(subject: Subject, experiment: str, number: int) -> str:
    created = subject.post(
        "/runs/create",
        {
            "experiment_id": experiment, "start_time": 1_700_000_000_000 + number, "run_name": f"run-{number}",
            "tags": [{"key": "mlflow.user", "value": "bench"}],
        },
    )  # fmt: skip
    return str(created["run"]["info"]["run_id"])


def _full(number: int) -> dict[str, Any]:
    """Ten metrics, ten params and four tags; one run in four is found by the search."""
    return {
        "metrics": [{"key": f"metric_{k}", "value": (number * (k + 7) % 1000) / 1000,
                     "timestamp": 1_700_000_000_000 + k, "step": k} for k in range(10)],
        "params": [{"key": f"param_{k}", "value": f"value-{(number + k) % 4}"} for k in range(10)],
        "tags": [{"key": f"tag_{k}", "value": f"value-{number % (k + 2)}"} for k in range(4)],
    }  # fmt: skip

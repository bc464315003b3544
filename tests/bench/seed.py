"""What the rows read, and where they write.

Ours is written by its own API where that is a matter of seconds, so that it is what users have. The others', and large
numbers, are written by SQL: the same rows, as their own API leaves them, in a tenth of the time.
"""

import time
from pathlib import Path
from typing import Any

from tests.bench.postgres import Postgres
from tests.bench.servers import FASTTRACKML, MLFLOW, OURS
from tests.bench.subject import Subject

RUNS = 2_000
MANY_RUNS = 100_000
MANY = "100000"  # the experiment that holds them
HISTORY = 100_000
_SEEDS = Path(__file__).parent / "seeds"


def prepare(subject: Subject, *, names: set[str]) -> None:
    """What the rows of these names need; the 100,000 runs for ours only."""
    name = subject.server.name
    subject.experiment = _new_experiment(subject)
    subject.playground = _new_experiment(subject)
    subject.runs = [_new_run(subject, subject.playground, number) for number in range(16)]
    subject.history_run = _new_run(subject, subject.playground, 0)
    if name in {MLFLOW, FASTTRACKML} and names & {"search", "page", "history"}:
        _run(subject.postgres, name, f"{name}.sql", experiment=subject.experiment, run=subject.history_run,
             runs=RUNS, points=HISTORY)  # fmt: skip
    if name == OURS and names & {"search", "page"}:
        for number in range(RUNS):
            subject.post("/runs/log-batch", {"run_id": _new_run(subject, subject.experiment, number), **_full(number)})
    if name == OURS and "history" in names:
        write_history(subject)
    if name == OURS and "search-100k" in names:
        seed_runs(subject.postgres, 0, MANY_RUNS)
        seed_runs(subject.postgres, MANY_RUNS, 2 * MANY_RUNS, "100001 + n % 10")
    subject.postgres.sql(name, "VACUUM ANALYZE;")  # now, and not while something is measured


def write_history(subject: Subject) -> None:
    """100,000 points of one metric."""
    for first in range(0, HISTORY, 1000):
        points = [{"key": "loss", "value": 1 / (step + 1), "timestamp": 1_700_000_000_000 + step, "step": step}
                  for step in range(first, first + 1000)]  # fmt: skip
        subject.post("/runs/log-batch", {"run_id": subject.history_run, "metrics": points})


def seed_runs(postgres: Postgres, first: int, last: int, experiment: str = MANY) -> None:
    """Full runs of ours, `first` to `last - 1`; `experiment` is SQL over their number n."""
    _run(postgres, OURS, "runmirror_runs.sql", first=first, last=last, experiment=experiment)


def seed_points(postgres: Postgres, first: int, last: int) -> None:
    """Long runs of ours, of 100,000 points each."""
    _run(postgres, OURS, "runmirror_points.sql", first=first, last=last)


def _run(postgres: Postgres, database: str, script: str, **variables: object) -> None:
    told = "".join(f"\\set {name} '{value}'\n" for name, value in variables.items())
    postgres.sql(database, f"\\set ON_ERROR_STOP on\n{told}{(_SEEDS / script).read_text()}")


def _new_experiment(subject: Subject) -> str:
    return str(subject.post("/experiments/create", {"name": f"bench-{time.time_ns()}"})["experiment_id"])


def _new_run(subject: Subject, experiment: str, number: int) -> str:
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

"""What people feel: programs of the unmodified client, each in a process of its own, timed from inside."""

import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.server import clean_environment

if TYPE_CHECKING:
    from tests.bench.subject import Subject

_TOOK = "took "

# Nothing of a round is measured but the work: the client is there, and has imported what it needs.
_HEAD = """
import logging, sys, time, warnings
warnings.simplefilter("ignore")
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric
logging.getLogger("mlflow").setLevel(logging.ERROR)
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment(experiment_id=sys.argv[2])
for _ in sys.stdin:
"""

_LOG_METRIC = """
with mlflow.start_run():
    mlflow.log_metric("loss", 1.0, step=0)
    began = time.perf_counter()
    for step in range(1, 1001):
        mlflow.log_metric("loss", 1 / step, step=step)
    took = time.perf_counter() - began
print("took", took * 1000, flush=True)
"""

_LOG_BATCH = """
client = MlflowClient()
run = client.create_run(sys.argv[2]).info.run_id
began = time.perf_counter()
for batch in range(20):
    points = [Metric(f"metric-{key}", key / (step + 1), 1700000000000 + batch, batch * 100 + step)
              for step in range(100) for key in range(10)]
    client.log_batch(run, metrics=points)
took = time.perf_counter() - began
client.set_terminated(run)
print("took", took * 1000, flush=True)
"""

_AUTOLOG = """
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
mlflow.sklearn.autolog()
features, labels = load_iris(return_X_y=True)
if "warm" not in globals():
    LogisticRegression(max_iter=200).fit(features, labels)  # the first one imports
    warm = True
began = time.perf_counter()
LogisticRegression(max_iter=200).fit(features, labels)
print("took", (time.perf_counter() - began) * 1000, flush=True)
"""


class Program:
    """A client that does its work once for each line it is sent, and says how many milliseconds that took."""

    def __init__(self, work: str, url: str, experiment: str) -> None:
        environment = clean_environment({"GIT_PYTHON_REFRESH": "quiet"})
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lasts as long as the process
        self._child = subprocess.Popen(
            [sys.executable, "-c", _HEAD + textwrap.indent(work, "    "), url, experiment],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip

    def work(self) -> float:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(BrokenPipeError):
            self._child.stdin.write("\n")
            self._child.stdin.flush()
        for line in self._child.stdout:
            if line.startswith(_TOOK):
                return float(line.removeprefix(_TOOK))
        self._errors.seek(0)
        raise RuntimeError(f"the client failed:\n{self._errors.read()[-2000:]}")

    def end(self) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            if stream is not None:
                stream.close()


def _measure(work: str) -> Callable[["Subject", float], float]:
    def measure(subject: "Subject", _: float) -> float:
        if work not in subject.programs:
            subject.programs[work] = Program(work, subject.server.url, subject.playground)
        return subject.programs[work].work()

    return measure


log_metric, log_batch, autolog = _measure(_LOG_METRIC), _measure(_LOG_BATCH), _measure(_AUTOLOG)

"""What people feel: programs of the unmodified client, each in a process of its own, timed from inside."""

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.server import clean_environment

if TYPE_CHECKING:
    from tests.bench.rows import Subject

_HEAD = """
import logging, sys, time, warnings
warnings.simplefilter("ignore")
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric
logging.getLogger("mlflow").setLevel(logging.ERROR)
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment(experiment_id=sys.argv[2])
"""

_LOG_METRIC = """
with mlflow.start_run():
    mlflow.log_metric("loss", 1.0, step=0)
    began = time.perf_counter()
    for step in range(1, 1001):
        mlflow.log_metric("loss", 1 / step, step=step)
    took = time.perf_counter() - began
print(took * 1000)
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
print(took * 1000)
"""

_AUTOLOG = """
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
mlflow.sklearn.autolog()
features, labels = load_iris(return_X_y=True)
LogisticRegression(max_iter=200).fit(features, labels)  # the first one imports
began = time.perf_counter()
LogisticRegression(max_iter=200).fit(features, labels)
print((time.perf_counter() - began) * 1000)
"""


def log_metric(subject: "Subject", _: float) -> float:
    return _run(subject, _LOG_METRIC)


def log_batch(subject: "Subject", _: float) -> float:
    return _run(subject, _LOG_BATCH)


def autolog(subject: "Subject", _: float) -> float:
    return _run(subject, _AUTOLOG)


def _run(subject: "Subject", program: str) -> float:
    command = [sys.executable, "-c", _HEAD + program, subject.server.url, subject.playground]
    environment = clean_environment({"GIT_PYTHON_REFRESH": "quiet"})
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"the program failed against {subject.server.name}:\n{ended.stderr[-2000:]}")
    return float(ended.stdout.split()[-1])

"""Trains one model under `mlflow.autolog()` as a user's program does, and prints, as JSON, what was logged.

A program of its own: what other tests have set up for one library would count for more than `mlflow.autolog`.
"""

import json
import sys

import mlflow
import numpy as np
from sklearn.linear_model import LogisticRegression


def main(url: str, experiment: str) -> None:
    mlflow.set_tracking_uri(url)
    mlflow.set_experiment(experiment)
    mlflow.autolog(log_models=False, silent=True)
    LogisticRegression(C=0.5).fit(np.arange(4.0).reshape(-1, 1), np.array([0, 0, 1, 1]))
    run = mlflow.last_active_run()
    logged = {"status": run.info.status, "params": run.data.params, "metrics": run.data.metrics}
    print("\n" + json.dumps(logged))


if __name__ == "__main__":
    main(*sys.argv[1:])

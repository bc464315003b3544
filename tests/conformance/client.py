"""Flows of the unmodified `mlflow` client, told nothing but an http address."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mlflow
import mlflow.sklearn
import numpy as np
import pytest

from tests.conformance.compare import Both

FEATURES = np.array([[0.0], [1.0], [2.0], [3.0]])
LABELS = np.array([0, 0, 1, 1])

Flow = Callable[[str], Any]
OnBoth = Callable[[Flow], Any]


@pytest.fixture
def name(both: Both) -> str:
    """The name of the experiment that `on_both` sets."""
    return both.unique("client")


@pytest.fixture
def on_both(both: Both, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OnBoth]:
    """Run a flow against both servers, each time in a new experiment, and compare what it returns."""
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)  # nothing is left behind where a client falls back to ./mlruns

    def run(flow: Flow) -> Any:
        def act(url: str) -> Any:
            mlflow.set_tracking_uri(url)
            try:
                mlflow.set_experiment(name)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # stages, as the client calls them
                    warnings.filterwarnings("ignore", message=".*Any type hint is inferred")  # when it imports itself
                    return flow(url)
            finally:
                while mlflow.active_run():
                    mlflow.end_run("KILLED")

        return both.each(act)

    yield run
    mlflow.sklearn.autolog(disable=True)
    mlflow.set_tracking_uri(None)

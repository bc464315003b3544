"""What the `mlflow` client builds on tracking: evaluation, images, tables, asynchronous logging, system metrics."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import mlflow
import mlflow.sklearn
import mlflow.system_metrics
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from tests.conformance.client import FEATURES, LABELS, OnBoth
from tests.conformance.compare import Both
from tests.server import clean_environment

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


def files_of(run_id: str, folder: str = "") -> list[str]:
    """Every file below a run's folder, by path."""
    found = []
    for entry in MlflowClient().list_artifacts(run_id, folder):
        found += files_of(run_id, entry.path) if entry.is_dir else [entry.path]
    return sorted(found)


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # mlflow calls pandas as pandas 3 has it
def test_a_classifier_is_evaluated(on_both: OnBoth) -> None:
    frame = pd.DataFrame({"x": np.tile(FEATURES[:, 0], 5), "label": np.tile(LABELS, 5)})

    def flow(_: str) -> Any:
        with mlflow.start_run(run_name="evaluated") as run:
            fitted = LogisticRegression().fit(frame[["x"]], frame["label"])
            logged = mlflow.sklearn.log_model(fitted, name="model", pip_requirements=["scikit-learn"])
            result = mlflow.evaluate(
                logged.model_uri, frame, targets="label", model_type="classifier", evaluators=["classifier"],
                evaluator_config={"classifier": {"log_model_explainability": False}},
            )  # fmt: skip
        plt.close("all")
        read = mlflow.get_run(run.info.run_id)
        model = mlflow.get_logged_model(logged.model_id)
        [given] = read.inputs.dataset_inputs
        return [
            read.data.metrics == result.metrics,
            read.data.metrics,
            sorted([metric.key, metric.value, metric.dataset_name] for metric in model.metrics),
            [given.dataset.digest, given.dataset.profile, sorted([tag.key, tag.value] for tag in given.tags)],
            files_of(run.info.run_id),
            {name: type(artifact.content).__name__ for name, artifact in result.artifacts.items()},
        ]

    same, metrics, of_the_model, *_ = on_both(flow)
    assert same
    assert metrics["accuracy_score"] == 1.0
    assert {key for key, *_ in of_the_model} == set(metrics)


def test_images_are_logged_by_name_and_by_step(on_both: OnBoth, tmp_path: Path) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

    def flow(_: str) -> Any:
        with mlflow.start_run(run_name="images") as run:
            mlflow.log_image(image, "pictures/one.png")
            for step in range(2):
                mlflow.log_image(image, key="dogs/brown dog", step=step, timestamp=5, synchronous=True)
        run_id = run.info.run_id
        files = files_of(run_id)
        target = tmp_path / run_id
        target.mkdir()
        mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(target))
        back = plt.imread(target / "pictures" / "one.png")
        arrived = [(target / file).stat().st_size > 0 for file in files]
        tags = sorted(tag for tag in mlflow.get_run(run_id).data.tags if "loggedImages" in tag)
        named = [re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<uuid>", file) for file in files]
        return [sorted(named), arrived, (back[:, :, :3] * 255).round().astype(int).tolist() == image.tolist(), tags]

    files, arrived, same, _ = on_both(flow)
    assert len(files) == len(arrived) == 5
    assert same


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
def test_a_table_grows(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        with mlflow.start_run(run_name="table") as run:
            mlflow.log_table({"question": ["a", "ü"], "score": [1, None]}, "eval/table.json")
            mlflow.log_table({"question": ["c"], "score": [0.5]}, "eval/table.json")
        loaded = mlflow.load_table("eval/table.json", run_ids=[run.info.run_id], extra_columns=["run_id"])
        assert set(loaded.pop("run_id")) == {run.info.run_id}
        tags = mlflow.get_run(run.info.run_id).data.tags["mlflow.loggedArtifacts"]
        return [loaded.to_dict("list"), tags, files_of(run.info.run_id)]

    table, *_ = on_both(flow)
    assert table["question"] == ["a", "ü", "c"]


def test_what_is_logged_asynchronously_arrives_in_full(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        mlflow.config.enable_async_logging()
        try:
            with mlflow.start_run(run_name="async") as run:
                for step in range(100):
                    mlflow.log_metric("loss", 1 / (1 + step), step=step, timestamp=step)
                mlflow.log_params({f"p{n}": n for n in range(150)})
                mlflow.set_tags({f"own.{n}": n for n in range(150)})
                mlflow.flush_async_logging()
        finally:
            mlflow.config.enable_async_logging(False)
        with mlflow.start_run(run_id=run.info.run_id):
            mlflow.log_metric("last", 1, synchronous=False).wait()
        read = mlflow.get_run(run.info.run_id)
        history = MlflowClient().get_metric_history(run.info.run_id, "loss")
        own = {key: value for key, value in read.data.tags.items() if key.startswith("own.")}
        return [read.data.metrics, read.data.params, own, [[point.step, point.value] for point in history]]

    metrics, params, tags, history = on_both(flow)
    assert metrics == {"loss": 1 / 100, "last": 1.0}
    assert (len(params), len(tags), len(history)) == (150, 150, 100)


def test_system_metrics_are_logged_while_a_run_lasts(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        mlflow.system_metrics.set_system_metrics_sampling_interval(0.05)
        mlflow.system_metrics.set_system_metrics_samples_before_logging(1)
        try:
            with mlflow.start_run(run_name="watched", log_system_metrics=True) as run:
                deadline = time.monotonic() + DEADLINE_S
                while not mlflow.get_run(run.info.run_id).data.metrics:
                    assert time.monotonic() < deadline, "no system metric was logged"
        finally:
            mlflow.system_metrics.set_system_metrics_sampling_interval(None)
            mlflow.system_metrics.set_system_metrics_samples_before_logging(None)
        history = MlflowClient().get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
        assert [point.step for point in history] == list(range(len(history)))
        return sorted(mlflow.get_run(run.info.run_id).data.metrics)

    assert "system/cpu_utilization_percentage" in on_both(flow)


def test_a_search_over_a_grid_is_a_run_with_its_candidates_nested(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        mlflow.sklearn.autolog(silent=True, log_models=False)
        with mlflow.start_run(run_name="grid") as run:
            grid = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
            grid.fit(np.tile(FEATURES, (3, 1)), np.tile(LABELS, 3))
        read = mlflow.get_run(run.info.run_id)
        children = MlflowClient().search_runs(
            [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'", order_by=["params.C ASC"]
        )
        timed = re.compile("time|mean_fit|std_fit")
        return [
            read.data.params,
            sorted(key for key in read.data.metrics if not timed.search(key)),
            [[child.data.params["C"], child.info.status, sorted(child.data.metrics)] for child in children],
            files_of(run.info.run_id),
        ]

    _, _, children, _ = on_both(flow)
    assert [child[0] for child in children] == ["0.1", "1.0"]


def test_logged_models_are_searched_as_a_list_and_as_a_table(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        for number in range(3):
            made = mlflow.initialize_logged_model(name=f"m{number}", params={"n": str(number)}, tags={"own": "x"})
            if number:
                mlflow.finalize_logged_model(made.model_id, "READY")
        by_name = [{"field_name": "name", "ascending": False}]
        some = mlflow.search_logged_models(
            filter_string="params.n IN ('0', '2')", order_by=by_name, output_format="list"
        )
        table = mlflow.search_logged_models(filter_string="tags.own = 'x'", order_by=by_name)
        first = mlflow.search_logged_models(max_results=1, order_by=by_name, output_format="list")
        last = mlflow.last_logged_model()
        return [
            [[model.name, str(model.status), model.params] for model in some],
            [table["name"].tolist(), [str(status) for status in table["status"]], sorted(table.columns)],
            [model.name for model in first],
            last.name if last else None,
        ]

    some, table, first, _ = on_both(flow)
    assert [name for name, *_ in some] == ["m2", "m0"]
    assert table[0] == ["m2", "m1", "m0"]
    assert first == ["m2"]


def test_autolog_logs_what_a_program_trains(both: Both) -> None:
    experiment = both.unique("autolog")

    def trained(url: str) -> Any:
        command = [sys.executable, "-W", "ignore", "-m", "tests.conformance.autolog_program", url, experiment]
        done = subprocess.run(
            command, env=clean_environment({}), cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    logged = both.each(trained)
    assert logged["status"] == "FINISHED"
    assert logged["params"]["C"] == "0.5"
    assert logged["metrics"]["training_accuracy_score"] == 1.0

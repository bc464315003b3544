"""The unmodified `mlflow` client, told nothing but an http address: it reads back what MLflow's server gives it."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import mlflow
import mlflow.sklearn
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LogisticRegression

from tests.conformance.client import FEATURES, LABELS, OnBoth
from tests.conformance.compare import Both


def shown(run: Run) -> dict[str, Any]:
    """What does not depend on who ran it, where and when."""
    tags = {key: value for key, value in run.data.tags.items() if key.startswith("own.") or key == "mlflow.runName"}
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "stage": run.info.lifecycle_stage,
        "ended": run.info.end_time is not None,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "tags": tags,
    }


def test_a_run_and_the_run_nested_in_it(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        with mlflow.start_run(run_name="parent") as parent:
            mlflow.log_param("depth", 3)
            mlflow.log_params({"a": 1, "b": None, "c": [1, 2]})
            with mlflow.start_run(run_name="child", nested=True) as child:
                mlflow.log_metric("loss", 0.5, step=1)
            mlflow.set_tag("own.team", "blue")
        read = [mlflow.get_run(run.info.run_id) for run in (parent, child)]
        assert read[1].data.tags["mlflow.parentRunId"] == parent.info.run_id
        return [shown(run) for run in read]

    parent, child = on_both(flow)
    assert parent["params"] == {"depth": "3", "a": "1", "b": "None", "c": "[1, 2]"}
    assert child["status"] == "FINISHED"


def test_a_run_that_raises_has_failed(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        with pytest.raises(ZeroDivisionError), mlflow.start_run(run_name="bad") as run:
            raise ZeroDivisionError
        return shown(mlflow.get_run(run.info.run_id))

    assert on_both(flow)["status"] == "FAILED"


def test_a_batch_and_the_history_of_its_metrics(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        client = MlflowClient()
        with mlflow.start_run(run_name="batch") as run:
            metrics = [Metric("loss", 1 / (1 + n), 1000 + n, n) for n in range(600)]
            odd = [Metric("odd", value, 5, n) for n, value in enumerate([float("nan"), float("inf"), -float("inf")])]
            params = [Param(f"p{n}", str(n)) for n in range(150)]
            tags = [RunTag(f"own.t{n}", str(n)) for n in range(120)]
            client.log_batch(run.info.run_id, metrics + odd, params[:100], tags[:100])
            client.log_batch(run.info.run_id, metrics, params[100:], tags[100:])  # the metrics once more
            mlflow.log_metrics({"a": 1, "b": 2.5}, step=3, timestamp=7)
        history = {key: client.get_metric_history(run.info.run_id, key) for key in ("loss", "odd", "a", "never")}
        points = {key: [[m.value, m.timestamp, m.step] for m in found] for key, found in history.items()}
        return {"run": shown(mlflow.get_run(run.info.run_id)), "history": points}

    found = on_both(flow)
    assert len(found["history"]["loss"]) == 600
    assert len(found["run"]["params"]) == 150


def test_a_param_cannot_be_changed(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        with mlflow.start_run(run_name="params") as run:
            mlflow.log_param("a", 1)
            mlflow.log_param("a", 1)
            with pytest.raises(MlflowException) as refused:
                mlflow.log_param("a", 2)
        return [refused.value.error_code, shown(mlflow.get_run(run.info.run_id))]

    assert on_both(flow)[0] == "INVALID_PARAMETER_VALUE"


def test_tags_are_set_overwritten_and_deleted(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        client = MlflowClient()
        with mlflow.start_run(run_name="tags") as run:
            mlflow.set_tags({"own.a": 1, "own.b": "x" * 8000, "own.c": "ü"})
            mlflow.set_tag("own.a", 2)
            mlflow.delete_tag("own.c")
            with pytest.raises(MlflowException) as refused:
                mlflow.delete_tag("own.c")
        client.update_run(run.info.run_id, name="renamed")
        return [refused.value.error_code, shown(mlflow.get_run(run.info.run_id))]

    assert on_both(flow)[0] == "RESOURCE_DOES_NOT_EXIST"


def test_a_figure_text_and_a_dict_are_logged_listed_and_read(on_both: OnBoth, tmp_path: Path) -> None:
    def flow(_: str) -> Any:
        with mlflow.start_run(run_name="files") as run:
            figure, axes = plt.subplots()
            axes.plot([1, 2, 3])
            mlflow.log_figure(figure, "plots/line.png")
            plt.close(figure)
            mlflow.log_text("hello ü", "notes/hello.txt")
            mlflow.log_dict({"a": [1, 2]}, "notes/a.json")
            (tmp_path / "folder" / "deep").mkdir(parents=True, exist_ok=True)
            (tmp_path / "folder" / "deep" / "a b+ü.bin").write_bytes(bytes(range(256)) * 100)
            mlflow.log_artifacts(str(tmp_path / "folder"), "copied")
        client = MlflowClient()
        run_id = run.info.run_id
        listed = {
            folder: [(entry.path, entry.is_dir) for entry in client.list_artifacts(run_id, folder)]
            for folder in ("", "notes", "plots", "copied", "copied/deep", "nowhere")
        }
        target = tmp_path / run_id
        target.mkdir()
        mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(target))
        files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
        copied = (target / "copied" / "deep" / "a b+ü.bin").read_bytes()
        return [
            listed, files, copied == bytes(range(256)) * 100,
            mlflow.artifacts.load_text(f"runs:/{run_id}/notes/hello.txt"),
            mlflow.artifacts.load_dict(f"runs:/{run_id}/notes/a.json"),
            (target / "plots" / "line.png").read_bytes()[:4].hex(),
        ]  # fmt: skip

    assert on_both(flow)[2] is True


def test_a_logged_model_is_loaded_again(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        model = LogisticRegression().fit(FEATURES, LABELS)
        with mlflow.start_run(run_name="model") as run:
            logged = mlflow.sklearn.log_model(
                model, name="model", pip_requirements=["scikit-learn"], params={"C": "1.0"}, input_example=FEATURES[:1]
            )
            mlflow.log_metric("accuracy", 0.75, step=2, model_id=logged.model_id)
        again = mlflow.sklearn.load_model(logged.model_uri)
        by_run = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
        read = mlflow.get_logged_model(logged.model_id)
        outputs = mlflow.get_run(run.info.run_id).outputs.model_outputs
        return [
            again.predict(FEATURES).tolist(),
            by_run.predict(FEATURES).tolist(),
            [read.name, str(read.status), read.params, read.source_run_id == run.info.run_id],
            [[metric.key, metric.value, metric.step] for metric in read.metrics],
            [[output.model_id == logged.model_id, output.step] for output in outputs],
            sorted(file.path for file in MlflowClient().list_logged_model_artifacts(logged.model_id)),
        ]

    found = on_both(flow)
    assert found[0] == LABELS.tolist()
    assert found[2][:2] == ["model", "READY"]


def test_a_logged_model_is_created_tagged_searched_and_deleted(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        client = MlflowClient()
        experiment = mlflow.get_experiment_by_name(mlflow.get_experiment(_experiment_id()).name)
        assert experiment is not None
        params = {f"p{n}": str(n) for n in range(250)}
        made = mlflow.create_external_model(name="external", params=params, tags={"own": "1"}, model_type="agent")
        client.set_logged_model_tags(made.model_id, {"own": "2", "more": "3"})
        client.delete_logged_model_tag(made.model_id, "more")
        read = mlflow.get_logged_model(made.model_id)
        ids = [experiment.experiment_id]
        found = client.search_logged_models(ids, filter_string="tags.own = '2' AND name LIKE 'ext%'", max_results=5)
        none = client.search_logged_models(ids, filter_string="params.p1 = '2'")
        client.delete_logged_model(made.model_id)
        with pytest.raises(MlflowException) as gone:
            mlflow.get_logged_model(made.model_id)
        return [
            read.name, str(read.status), read.params, read.model_type, read.tags.get("own"), read.tags.get("more"),
            [model.model_id == made.model_id for model in found], len(none), gone.value.error_code,
        ]  # fmt: skip

    found = on_both(flow)
    assert len(found[2]) == 250
    assert found[-1] == "RESOURCE_DOES_NOT_EXIST"


def test_autolog_of_scikit_learn(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        mlflow.sklearn.autolog(log_datasets=True, log_models=False, silent=True)
        with mlflow.start_run(run_name="auto") as run:
            LogisticRegression(C=0.5).fit(FEATURES, LABELS)
        read = mlflow.get_run(run.info.run_id)
        files = sorted(entry.path for entry in MlflowClient().list_artifacts(run.info.run_id))
        inputs = [
            [given.dataset.name, [[tag.key, tag.value] for tag in given.tags]] for given in read.inputs.dataset_inputs
        ]
        return [shown(read), files, inputs]

    run, _, inputs = on_both(flow)
    assert run["params"]["C"] == "0.5"
    assert run["metrics"]["training_accuracy_score"] > 0.5
    assert inputs == [["dataset", [["mlflow.data.context", "train"]]]]


def test_datasets_are_inputs_of_a_run(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        with mlflow.start_run(run_name="data") as run:
            mlflow.log_input(mlflow.data.from_numpy(FEATURES, name="four"), context="test")
        dataset = Dataset(name="five", digest="abc", source_type="code", source="{}")
        MlflowClient().log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("own", "1")])])
        given = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
        return sorted([one.dataset.name, one.dataset.digest, one.dataset.schema] for one in given)

    assert [name for name, *_ in on_both(flow)] == ["five", "four"]


def test_runs_are_searched_deleted_and_restored(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        client = MlflowClient()
        ids = []
        for n in range(4):
            with mlflow.start_run(run_name=f"r{n}") as run:
                mlflow.log_metric("m", n)
                mlflow.log_param("even", n % 2 == 0)
            ids.append(run.info.run_id)
        client.delete_run(ids[0])
        experiments = [_experiment_id()]

        def names(**query: Any) -> list[str]:
            return [run.info.run_name for run in client.search_runs(experiments, **query)]

        found = [
            names(filter_string="metrics.m > 1", order_by=["metrics.m DESC"]),
            names(filter_string="params.even = 'True'"),
            names(run_view_type=ViewType.DELETED_ONLY),
            names(run_view_type=ViewType.ALL, order_by=["attributes.run_name ASC"], max_results=2),
            mlflow.search_runs(filter_string="metrics.m >= 1", order_by=["metrics.m"])["metrics.m"].tolist(),
        ]
        first = client.search_runs(experiments, order_by=["metrics.m ASC"], max_results=2)
        second = client.search_runs(experiments, order_by=["metrics.m ASC"], max_results=2, page_token=first.token)
        client.restore_run(ids[0])
        return [found, [run.info.run_name for run in first + second], second.token is None or second.token == "",
                shown(client.get_run(ids[0]))]  # fmt: skip

    found, pages, _, restored = on_both(flow)
    assert found[0] == ["r3", "r2"]
    assert pages == ["r1", "r2", "r3"]
    assert restored["stage"] == "active"


def test_experiments_are_made_renamed_deleted_and_restored(on_both: OnBoth, both: Both) -> None:
    name = both.unique("made")

    def flow(_: str) -> Any:
        client = MlflowClient()
        made = client.create_experiment(name, tags={"own": "1"})
        with pytest.raises(MlflowException) as taken:
            client.create_experiment(name)
        client.rename_experiment(made, name + "x")
        client.set_experiment_tag(made, "own", "2")
        client.delete_experiment(made)
        with pytest.raises(MlflowException) as still_taken:
            client.create_experiment(name + "x")
        deleted = client.get_experiment(made)
        client.restore_experiment(made)
        [found] = client.search_experiments(filter_string=f"name = '{name}x'")
        return [taken.value.error_code, still_taken.value.error_code, deleted.lifecycle_stage, deleted.tags,
                found.name, found.lifecycle_stage, found.experiment_id == made]  # fmt: skip

    assert on_both(flow)[:3] == ["RESOURCE_ALREADY_EXISTS", "RESOURCE_ALREADY_EXISTS", "deleted"]


def test_a_client_of_an_unknown_run_is_told_so(on_both: OnBoth) -> None:
    def flow(_: str) -> Any:
        codes = []
        for call in (
            lambda: mlflow.get_run("0" * 32),
            lambda: MlflowClient().log_metric("nope", "a", 1),
            lambda: MlflowClient().list_artifacts("0" * 32),
        ):
            with pytest.raises(MlflowException) as refused:
                call()
            codes.append(refused.value.error_code)
        return codes

    on_both(flow)


def _experiment_id() -> str:
    """The experiment that `on_both` set."""
    with mlflow.start_run(run_name="probe") as run:
        pass
    MlflowClient().delete_run(run.info.run_id)
    return str(run.info.experiment_id)

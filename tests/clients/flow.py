"""What a user's program does, with whichever mlflow runs it: prints as JSON what it saw of itself on the server.

    python flow.py http://127.0.0.1:5000 a-name-of-its-own

It must keep to what mlflow 2.9 has; what only later ones have is asked for by version.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")  # deprecations are what old clients are about

import mlflow  # noqa: E402
import mlflow.sklearn  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag, ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

FEATURES = np.array([[0.0], [1.0], [2.0], [3.0]])
LABELS = np.array([0, 0, 1, 1])
VERSION = tuple(int(part) for part in mlflow.__version__.split(".")[:2])


def refusal(act: Any, *arguments: Any) -> str:
    """The error code with which the server refuses a call."""
    try:
        act(*arguments)
    except MlflowException as refused:
        return str(refused.error_code)
    return "accepted"


def experiments(client: MlflowClient, name: str) -> dict[str, Any]:
    made = client.create_experiment(f"{name}-made", tags={"team": "blue"})
    client.set_experiment_tag(made, "team", "red")
    taken = refusal(client.create_experiment, f"{name}-made")
    client.rename_experiment(made, f"{name}-renamed")
    client.delete_experiment(made)
    deleted = [found.lifecycle_stage for found in client.search_experiments(
        view_type=ViewType.DELETED_ONLY, filter_string=f"name = '{name}-renamed'")]  # fmt: skip
    client.restore_experiment(made)
    [found] = client.search_experiments(filter_string=f"name LIKE '{name}-%'", order_by=["name ASC"], max_results=5)
    by_name = client.get_experiment_by_name(f"{name}-renamed")
    return {
        "taken": taken,
        "deleted": deleted,
        "found": [found.name.removeprefix(name), found.lifecycle_stage, found.tags["team"]],
        "by name": by_name.experiment_id == made,
        "never": client.get_experiment_by_name(f"{name}-never"),
    }


def runs(client: MlflowClient) -> tuple[str, dict[str, Any]]:
    with mlflow.start_run(run_name="parent", tags={"own.a": "1"}, description="what it is") as parent:
        mlflow.log_params({"depth": 3, "none": None, "text": "ü"})
        mlflow.log_param("depth", 3)
        mlflow.set_tags({"own.b": "2", "own.gone": "x"})
        mlflow.delete_tag("own.gone")
        for step in range(3):
            mlflow.log_metric("loss", 1 / (1 + step), step=step)
        mlflow.log_metrics({"a": 1, "b": 2.5}, step=7)
        mlflow.log_metric("odd", float("nan"))
        with mlflow.start_run(run_name="child", nested=True) as child:
            mlflow.log_metric("loss", 0.25)
        mlflow.log_input(mlflow.data.from_numpy(FEATURES, name="four"), context="train")
    run_id = parent.info.run_id
    changed = refusal(client.log_param, run_id, "depth", 4)
    points = [Metric("many", float(n), 1000 + n, n) for n in range(700)]
    client.log_batch(
        run_id, points, [Param(f"p{n}", str(n)) for n in range(50)], [RunTag(f"own.t{n}", "v") for n in range(50)]
    )
    later = mlflow.log_metric("later", 5, synchronous=False, run_id=run_id) if VERSION >= (2, 16) else None
    if later is not None:
        later.wait()
    with mlflow.start_run(run_id=run_id):
        mlflow.log_metric("resumed", 1)
    client.update_run(run_id, name="renamed")
    client.set_terminated(child.info.run_id, "FAILED")
    read = client.get_run(run_id)
    history = client.get_metric_history(run_id, "many")
    [given] = read.inputs.dataset_inputs
    return run_id, {
        "info": [read.info.run_name, read.info.status, read.info.lifecycle_stage, read.info.end_time is not None],
        "params": [len(read.data.params), *(read.data.params[key] for key in ("depth", "none", "text"))],
        "metrics": [read.data.metrics[key] for key in ("loss", "a", "b", "resumed")],
        "odd": str(read.data.metrics["odd"]),
        "later": read.data.metrics.get("later", 5.0),
        "tags": {key: value for key, value in read.data.tags.items() if key in ("own.a", "own.b", "own.gone")},
        "note": read.data.tags["mlflow.note.content"],
        "changed": changed,
        "history": [len(history), history[0].value, history[-1].value, history[-1].step, history[-1].timestamp],
        "loss": [[point.step, point.value] for point in client.get_metric_history(run_id, "loss")],
        "dataset": [given.dataset.name, given.tags[0].value],
        "child": [
            client.get_run(child.info.run_id).info.status,
            mlflow.get_parent_run(child.info.run_id).info.run_id == run_id,
        ],
        "unknown": refusal(client.get_run, "0" * 32),
    }


def search(client: MlflowClient, experiment_id: str, run_id: str) -> dict[str, Any]:
    def names(**query: Any) -> list[str]:
        return [run.info.run_name for run in client.search_runs([experiment_id], **query)]

    first = client.search_runs([experiment_id], order_by=["metrics.loss ASC"], max_results=1)
    second = client.search_runs([experiment_id], order_by=["metrics.loss ASC"], max_results=1, page_token=first.token)
    frame = mlflow.search_runs([experiment_id], "metrics.loss > 0.3", order_by=["metrics.loss DESC"])
    client.delete_run(run_id)
    deleted = names(run_view_type=ViewType.DELETED_ONLY)
    left = names()
    refused = refusal(client.log_metric, run_id, "late", 1)
    client.restore_run(run_id)
    return {
        "by metric": names(filter_string="metrics.loss < 0.3"),
        "by param": names(filter_string="params.depth = '3' AND tags.`own.a` = '1'"),
        "by attribute": names(filter_string="attributes.status = 'FAILED'", order_by=["start_time DESC"]),
        "ordered": names(order_by=["metrics.loss DESC"]),
        "pages": [run.info.run_name for run in [*first, *second]],
        "frame": [frame["tags.mlflow.runName"].tolist(), frame["metrics.a"].tolist(), frame["params.p7"].tolist()],
        "deleted": [deleted, left, refused, client.get_run(run_id).info.lifecycle_stage],
        "nonsense": refusal(client.search_runs, [experiment_id], "nonsense"),
    }


def artifacts(client: MlflowClient, run_id: str, folder: Path) -> dict[str, Any]:
    content = bytes(range(256)) * 2000
    (folder / "up" / "deep").mkdir(parents=True)
    (folder / "up" / "deep" / "a b+ü.bin").write_bytes(content)
    (folder / "one.txt").write_text("one")
    with mlflow.start_run(run_id=run_id):
        mlflow.log_text("hello ü", "notes/hello.txt")
        mlflow.log_dict({"a": [1, None]}, "notes/a.json")
        mlflow.log_artifact(str(folder / "one.txt"))
        mlflow.log_artifacts(str(folder / "up"), "copied")
        mlflow.log_table({"x": [1, 2], "y": ["a", "b"]}, "table.json")
    (folder / "down").mkdir()
    down = Path(mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(folder / "down")))
    listed = {path: [[entry.path, entry.is_dir, entry.file_size] for entry in client.list_artifacts(run_id, path)]
              for path in ("notes", "copied", "copied/deep", "nowhere")}  # fmt: skip
    return {
        "root": [entry.path for entry in client.list_artifacts(run_id)],
        "listed": listed,
        "files": sorted(str(path.relative_to(down)) for path in down.rglob("*") if path.is_file()),
        "same": (down / "copied" / "deep" / "a b+ü.bin").read_bytes() == content,
        "text": mlflow.artifacts.load_text(f"runs:/{run_id}/notes/hello.txt"),
        "dict": mlflow.artifacts.load_dict(f"runs:/{run_id}/notes/a.json"),
        "one": Path(client.download_artifacts(run_id, "one.txt", str(folder))).read_text(),
        "table": mlflow.load_table("table.json", run_ids=[run_id])["y"].tolist(),
    }


def registry(client: MlflowClient, name: str) -> dict[str, Any]:
    model = LogisticRegression().fit(FEATURES, LABELS)
    for _ in range(2):
        with mlflow.start_run(run_name="model") as run:
            logged = mlflow.sklearn.log_model(
                model, "model", registered_model_name=name, pip_requirements=["scikit-learn"],
                signature=mlflow.models.infer_signature(FEATURES, LABELS),
            )  # fmt: skip
    by_hand = mlflow.register_model(f"runs:/{run.info.run_id}/model", name, tags={"by": "hand"})
    client.update_registered_model(name, "what it is")
    client.set_registered_model_tag(name, "team", "blue")
    client.set_model_version_tag(name, "1", "seen", "yes")
    client.update_model_version(name, "1", "the first")
    client.set_registered_model_alias(name, "champion", "1")
    client.transition_model_version_stage(name, "1", "Staging")
    client.transition_model_version_stage(name, "2", "Production")
    client.transition_model_version_stage(name, "3", "Production", archive_existing_versions=True)
    uris = [f"models:/{name}{suffix}" for suffix in ("/1", "@champion", "/Production", "/latest")]
    uris += [logged.model_uri, f"runs:/{run.info.run_id}/model"]
    found = client.get_registered_model(name)
    first = client.get_model_version_by_alias(name, "champion")
    [searched] = client.search_registered_models(f"name = '{name}'")
    versions = client.search_model_versions(f"name = '{name}'", order_by=["version_number ASC"])
    of_run = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    latest = client.get_latest_versions(name, ["Production", "Staging"])
    predictions = [mlflow.pyfunc.load_model(uri).predict(pd.DataFrame(FEATURES)).tolist() for uri in uris]
    client.delete_registered_model_alias(name, "champion")
    client.delete_model_version(name, "2")
    seen = {
        "predictions": predictions,
        "native": mlflow.sklearn.load_model(f"models:/{name}/3").predict(FEATURES).tolist(),
        "found": [found.description, found.tags, {alias: str(number) for alias, number in found.aliases.items()}],
        "first": [str(first.version), first.description, first.tags, list(first.aliases), first.status],
        "by hand": [str(by_hand.version), by_hand.tags, by_hand.run_id == run.info.run_id],
        "stages": [[str(version.version), version.current_stage] for version in versions],
        "latest": sorted([version.current_stage, str(version.version)] for version in latest),
        "searched": searched.name == name,
        "of run": sorted(str(version.version) for version in of_run),
        "gone": [
            refusal(client.get_model_version, name, "2"),
            refusal(client.get_model_version_by_alias, name, "champion"),
        ],
    }
    client.rename_registered_model(name, f"{name}-renamed")
    client.delete_registered_model(f"{name}-renamed")
    return seen | {"deleted": refusal(client.get_registered_model, f"{name}-renamed")}


def traces(experiment_id: str) -> list[Any]:
    """A function traced, read back with its spans and found again; mlflow 2.14 was the first to trace."""

    @mlflow.trace(name="outer", attributes={"k": 1})
    def outer(question: str) -> str:
        with mlflow.start_span("inner") as span:
            span.set_inputs({"q": question})
        return question.upper()

    outer("why?")
    if VERSION >= (3, 0):
        mlflow.flush_trace_async_logging()
    client = MlflowClient()
    [found] = client.search_traces([experiment_id], max_results=5)
    trace_id = found.info.trace_id if VERSION >= (3, 0) else found.info.request_id
    client.set_trace_tag(trace_id, "own", "1")
    read = client.get_trace(trace_id)
    seen = [
        sorted([span.name, span.inputs, span.outputs] for span in read.data.spans),
        str(getattr(read.info.status, "value", read.info.status)),
        read.info.tags["own"],
        read.info.tags["mlflow.traceName"],
    ]
    return [
        *seen,
        client.delete_traces(experiment_id, **{"trace_ids" if VERSION >= (3, 0) else "request_ids": [trace_id]}),
    ]


def main(url: str, name: str) -> dict[str, Any]:
    mlflow.set_tracking_uri(url)
    client = MlflowClient()
    experiment_id = mlflow.set_experiment(name).experiment_id
    seen: dict[str, Any] = {"version": mlflow.__version__}
    run_id, seen["runs"] = runs(client)
    with tempfile.TemporaryDirectory() as folder:
        seen["artifacts"] = artifacts(client, run_id, Path(folder))
    seen["search"] = search(client, experiment_id, run_id)
    seen["experiments"] = experiments(client, name)
    seen["registry"] = registry(client, f"{name}-m")
    if VERSION >= (2, 14):
        seen["traces"] = traces(experiment_id)
    return seen


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))

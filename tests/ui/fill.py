"""Logs what the pages are looked at with to a server (first argument), and writes the ids as JSON to a file (second).

A program of its own, because the client is one too: what it imports and warns of is no business of the tests.
"""

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric

from tests.ui.names import EXPERIMENT, RUNS

POINTS = 60
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc000000301010018dd8db0"
    "0000000049454e44ae426082"
)


def main(uri: str, answer: Path) -> None:
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    experiment = client.create_experiment(EXPERIMENT, tags={"mlflow.note.content": "How long, how hot?"})
    runs = [fill_run(client, experiment, number, name) for number, name in enumerate(RUNS)]
    model = fill_model(client, experiment, runs[0])
    client.create_registered_model("glaze")
    client.create_model_version("glaze", source=f"models:/{model}", run_id=runs[0], model_id=model)
    trace = fill_trace(client, experiment)
    dataset = fill_dataset(client, experiment)
    client.register_prompt("greet", "Hello, {{name}}!", commit_message="first")
    client.register_prompt("greet", "Good evening, {{name}}!", commit_message="second")
    answer.write_text(
        json.dumps({"trace": trace, "experiment": experiment, "runs": runs, "model": model, "dataset": dataset}),
        encoding="utf-8",
    )


def fill_run(client: MlflowClient, experiment: str, number: int, name: str) -> str:
    run = client.create_run(experiment, run_name=name, tags={"kiln": "north", "mlflow.note.content": "A *good* one"})
    run_id: str = run.info.run_id
    points = [
        Metric(key, value, 1_700_000_000_000 + step * 1000, step)
        for step in range(POINTS)
        for key, value in (
            ("loss", math.exp(-step / 20) + number / 10),
            ("temperature", 1000 * math.tanh(step / 30) + number),
        )
    ]
    client.log_batch(run_id, metrics=points, params=[])
    client.log_metric(run_id, "score", 0.5 + number / 10)
    for key, value in {"cone": 6 + number, "glaze": name, "learning_rate": 0.1 / (number + 1)}.items():
        client.log_param(run_id, key, value)
    client.log_text(run_id, "fired at dawn\n", "notes/log.txt")
    client.log_dict(run_id, {"cone": 6, "hold": [10, 20]}, "schedule.json")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "pot.png"
        picture.write_bytes(PIXEL)
        client.log_artifact(run_id, str(picture), "images")
    client.set_terminated(run_id)
    return run_id


def fill_model(client: MlflowClient, experiment: str, run_id: str) -> str:
    model: Any = client.create_logged_model(
        experiment, name="glaze-model", source_run_id=run_id, params={"cone": "6"}, tags={"stage": "trial"}
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "MLmodel").write_text(f"flavors: {{}}\nmodel_id: {model.model_id}\n", encoding="utf-8")
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, models=[LoggedModelOutput(model.model_id, 0)])
    client.log_metric(run_id, "accuracy", 0.75, model_id=model.model_id)
    return str(model.model_id)


def fill_trace(client: MlflowClient, experiment: str) -> str:
    """One trace with a span below its root."""
    root = client.start_trace("fire", inputs={"cone": 6}, experiment_id=experiment, tags={"kiln": "north"})
    below = client.start_span("heat", trace_id=root.trace_id, parent_id=root.span_id, inputs={"rate": 150})
    client.end_span(root.trace_id, below.span_id, outputs={"reached": 1222})
    client.end_trace(root.trace_id, outputs={"pot": "whole"})
    mlflow.flush_trace_async_logging()
    return str(root.trace_id)


def fill_dataset(client: MlflowClient, experiment: str) -> str:
    dataset: Any = client.create_dataset("firing questions", experiment_id=experiment, tags={"kiln": "north"})
    dataset.merge_records([{"inputs": {"question": "How hot is cone 6?"}, "expectations": {"answer": "1222 °C"}}])
    return str(dataset.dataset_id)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

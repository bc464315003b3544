"""Something of everything that MLflow keeps, written by its own client: `python -m tests.importing.fill URI FOLDER`."""

import json
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

DATASET = Dataset("wine", "abc123", "local", '{"uri": "wine.csv"}', '{"columns": ["a"]}', '{"rows": 3}')


def fill(uri: str, folder: Path) -> dict[str, Any]:
    """The ids of what was made."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient(uri, uri)
    made: dict[str, Any] = {}
    made["experiment"] = client.create_experiment("churn", tags={"team": "growth", "note": "first\nsecond"})
    made["gone_experiment"] = client.create_experiment("over", tags={"why": "old"})
    made["run"] = _long_run(client, made["experiment"], folder)
    made["small_runs"] = [_small_run(client, made["experiment"], number) for number in range(5)]
    made["deleted_run"] = _small_run(client, made["experiment"], 99)
    client.delete_run(made["deleted_run"])
    made["run_of_gone_experiment"] = _small_run(client, made["gone_experiment"], 7)
    made["default_run"] = _small_run(client, "0", 8)
    made["model"] = _logged_model(client, made["experiment"], made["run"], folder)
    _registry(client, made["run"], made["model"], folder)
    made["traces"] = _traces(client, made["experiment"], made["run"])
    client.delete_experiment(made["gone_experiment"])
    return made


def _long_run(client: MlflowClient, experiment: str, folder: Path) -> str:
    run_id = client.create_run(experiment, start_time=1_700_000_000_123, run_name="long one").info.run_id
    points = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(2500)]
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])
    odd = [Metric("odd", math.nan, 1, 0), Metric("odd", math.inf, 2, 1), Metric("odd", -math.inf, 3, 2)]
    odd += [
        Metric("odd", 0.0, 1, 0),
        Metric("back", 5.0, 50, 5),
        Metric("back", 4.0, 40, 4),
        Metric("nan", math.nan, 5, 5),
    ]
    client.log_batch(run_id, metrics=odd, params=[Param("lr", "0.1"), Param("long", "x" * 6000)])
    client.log_batch(run_id, tags=[RunTag("colour", "blé"), RunTag("mlflow.note.content", "a note")])
    tags = [InputTag("mlflow.data.context", "training")]
    client.log_inputs(run_id, datasets=[DatasetInput(DATASET, tags)])
    for name, content in (("files/a.txt", "a"), ("files/deep/b ü.txt", "b" * 3000), ("empty", "")):
        client.log_text(run_id, content, name)
    client.set_terminated(run_id, "FAILED", 1_700_000_100_000)
    return str(run_id)


def _small_run(client: MlflowClient, experiment: str, number: int) -> str:
    run_id = client.create_run(experiment, start_time=10_000 + number, run_name=f"small {number}").info.run_id
    tags = [RunTag("round", "once"), RunTag("temporary", "yes")]
    metrics = [Metric(key, number / 7, 1000 + number, number) for key in ("loss", "acc")]
    client.log_batch(run_id, metrics, [Param("number", f"n{number}")], tags)
    client.log_inputs(run_id, datasets=[DatasetInput(DATASET, [])])
    client.set_terminated(run_id, "FINISHED", 20_000 + number)
    return str(run_id)


def _logged_model(client: MlflowClient, experiment: str, run_id: str, folder: Path) -> str:
    model = client.create_logged_model(
        experiment, name="model", source_run_id=run_id, tags={"kind": "test"}, params={"depth": "3"}, model_type="tree"
    )
    file = folder / "MLmodel"
    file.write_text("flavors: {}\n")
    client.log_model_artifact(model.model_id, str(file))
    client.finalize_logged_model(model.model_id, "READY")
    of_data = {"dataset_name": "wine", "dataset_digest": "abc123"}
    client.log_batch(run_id, [Metric("f1", 0.5, 1_700_000_000_000, 1, model_id=model.model_id, **of_data)])
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 1)])
    client.log_inputs(run_id, models=[LoggedModelInput(model.model_id)])
    return str(model.model_id)


def _registry(client: MlflowClient, run_id: str, model_id: str, folder: Path) -> None:
    client.create_registered_model("classifier", {"owner": "ann"}, "of wines")
    root = client.get_run(run_id).info.artifact_uri
    client.create_model_version("classifier", f"{root}/files", run_id, tags={"good": "no"}, description="one")
    client.create_model_version("classifier", f"runs:/{run_id}/files", run_id)
    client.create_model_version("classifier", f"models:/{model_id}", run_id, model_id=model_id)
    client.transition_model_version_stage("classifier", "2", "Production")
    client.set_registered_model_alias("classifier", "champion", "1")
    client.set_registered_model_alias("classifier", "rival", "3")
    extra = client.create_model_version("classifier", f"runs:/{run_id}/files", run_id)
    client.delete_model_version("classifier", extra.version)
    mlflow.genai.register_prompt("greeting", "Hello {{name}}", tags={"tone": "warm"})


def _traces(client: MlflowClient, experiment: str, run_id: str) -> list[str]:
    found = []
    mlflow.set_experiment(experiment_id=experiment)
    for number in range(3):
        with mlflow.start_span(name=f"ask {number}", span_type="CHAIN") as root:
            root.set_inputs({"question": "why?", "number": number})
            with mlflow.start_span(name="answer", span_type="LLM") as child:
                child.set_attribute(
                    "mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
                )
            root.set_outputs({"answer": "because"})
        found.append(root.trace_id)
    mlflow.flush_trace_async_logging()
    mlflow.set_trace_tag(found[0], "reviewed", "yes")
    mlflow.log_feedback(trace_id=found[0], name="good", value=True, rationale="clear")
    mlflow.log_expectation(trace_id=found[1], name="answer", value={"text": "because"})
    with suppress(MlflowException):  # of a database alone
        client.link_traces_to_run(found[:2], run_id)
    return found


if __name__ == "__main__":
    print(json.dumps(fill(sys.argv[1], Path(sys.argv[2]))))

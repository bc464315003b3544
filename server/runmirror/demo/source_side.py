"""What the plain mlflow client reads of a run; the demo runs this file by its path, in the training's environment.

Argument: a run id. Output: one JSON object, the arguments of `snapshot.Snapshot`. A logged model's files are listed
under the model's name, where the workspace has them: it knows no logged models.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import FileInfo


def main() -> None:
    json.dump(read_run(MlflowClient(), sys.argv[1]), sys.stdout)


def read_run(client: MlflowClient, run_id: str) -> dict[str, object]:
    """Everything a client can learn of the run, with the size and the hash of every file."""
    run = client.get_run(run_id)
    histories = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
    model_ids = [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
    with tempfile.TemporaryDirectory() as folder:
        files = read_files(client, run_id, model_ids, Path(folder))
    return {
        "status": run.info.status,
        "name": run.info.run_name,
        "start_time_ms": run.info.start_time,
        "end_time_ms": run.info.end_time,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {key: [[p.value, p.step, p.timestamp] for p in points] for key, points in histories.items()},
        "files": files,
    }


def read_files(client: MlflowClient, run_id: str, model_ids: list[str], folder: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 by path; `folder` is for downloads."""
    models = [client.get_logged_model(model_id) for model_id in model_ids]
    found = {}
    for model in reversed(models):  # of two models with one name the first has it in the workspace

        def list_model(path: str | None, model_id: str = model.model_id) -> list[FileInfo]:
            return client.list_logged_model_artifacts(model_id, path)

        place = folder / model.model_id
        place.mkdir()
        mlflow.artifacts.download_artifacts(f"models:/{model.model_id}", dst_path=str(place))
        found.update({f"{model.name}/{path}": hash_file(place / path) for path in walk(list_model, None)})

    def list_run(path: str | None) -> list[FileInfo]:
        return client.list_artifacts(run_id, path)

    for path in walk(list_run, None):
        if path not in found:  # the client lists files of logged models among the run's, too
            found[path] = hash_file(Path(client.download_artifacts(run_id, path, str(folder))))
    return found


def walk(list_folder: Callable[[str | None], list[FileInfo]], path: str | None) -> list[str]:
    """The files of a folder and all below it."""
    files = []
    for entry in list_folder(path):
        files += walk(list_folder, entry.path) if entry.is_dir else [entry.path]
    return files


def hash_file(path: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()

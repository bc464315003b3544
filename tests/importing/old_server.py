"""The server that is imported from: `mlflow server` of the pinned wheel, and its database by itself."""

import shutil
import sqlite3
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.server import clean_environment

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class OldServer:
    """`made` are the ids of what tests.importing.fill has written."""

    url: str
    folder: Path
    made: dict[str, Any]

    @property
    def artifacts(self) -> str:
        return str(self.folder / "artifacts")

    def copied_database(self, folder: Path) -> Path:
        """As it is now; the server goes on with its own."""
        copy = folder / "copy.db"
        with sqlite3.connect(self.folder / "mlflow.db") as there, sqlite3.connect(copy) as here:
            there.backup(here)
        return copy

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/api/2.0/mlflow/{path}", json=body, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def start_filling(uri: str, folder: Path) -> subprocess.Popen[str]:
    """By a process of its own: the client keeps threads and addresses."""
    folder.mkdir(exist_ok=True)
    environment = clean_environment({"MLFLOW_ALLOW_FILE_STORE": "true", "PYTHONPATH": str(REPOSITORY)})
    command = [sys.executable, "-m", "tests.importing.fill", uri, str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def multiply(database: Path, experiment: int, count: int) -> list[str]:
    """Small runs, straight into the tables."""
    run_ids = [uuid.uuid4().hex for _ in range(count)]
    with sqlite3.connect(database) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.executemany(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri, "
            "experiment_id) VALUES (?, 'small', 'ann', 'FINISHED', 1000, 2000, 'active', ?, ?)",
            [(run_id, f"mlflow-artifacts:/{experiment}/{run_id}/artifacts", experiment) for run_id in run_ids],
        )
        of_runs = [("k", "v", run_id) for run_id in run_ids]
        db.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", of_runs)
        points = [("m", step / 3, step, step, run_id) for run_id in run_ids for step in range(10)]
        insert = "INSERT INTO {} (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, 0, ?)"
        db.executemany(insert.format("metrics"), points)
        db.executemany(insert.format("latest_metrics"), [point for point in points if point[2] == 9])
    return run_ids


def copy_of(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place))

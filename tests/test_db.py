"""What a client is told when the database does not answer as it should."""

from datetime import timedelta

import httpx
from asgi_lifespan import LifespanManager
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.app import create_app
from runmirror.settings import Settings

API = "/api/2.0/mlflow"


async def test_a_statement_that_takes_too_long_is_ended_and_told(settings: Settings, engine: AsyncEngine) -> None:
    assert settings.database_url is not None
    hasty = settings.model_copy(update={"db_statement_timeout": timedelta(seconds=0.3)})
    app = create_app(hasty, settings.database_url)
    async with LifespanManager(app) as manager, engine.connect() as holder:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            created = await client.post(f"{API}/runs/create", json={"experiment_id": "0"})
            run_id = created.json()["run"]["info"]["run_id"]
            await holder.execute(text("SELECT 1 FROM runs WHERE run_id = :run_id FOR UPDATE"), {"run_id": run_id})
            tag = {"run_id": run_id, "key": "k", "value": "v"}
            waited = await client.post(f"{API}/runs/set-tag", json=tag)
            assert (waited.status_code, waited.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")
            await holder.rollback()
            assert (await client.post(f"{API}/runs/set-tag", json=tag)).status_code == 200

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


async def test_when_every_connection_is_busy_a_write_may_be_repeated(settings: Settings, engine: AsyncEngine) -> None:
    assert settings.database_url is not None
    tiny = settings.model_copy(update={"db_pool_size": 1, "db_pool_timeout": timedelta(seconds=0.2)})
    app = create_app(tiny, settings.database_url)
    async with LifespanManager(app) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            async with app.state.engine.connect():
                refused = await client.post(f"{API}/experiments/create", json={"name": "wanted"})
                read = await client.get(f"{API}/experiments/get", params={"experiment_id": "0"})
            assert (refused.status_code, refused.json()["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")
            assert int(refused.headers["Retry-After"]) > 0
            assert read.status_code == 503
            assert (await client.post(f"{API}/experiments/create", json={"name": "wanted"})).status_code == 200

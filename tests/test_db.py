"""What a client is told when the database does not answer as it should."""

import asyncio
from datetime import timedelta

import httpx
import pytest
from asgi_lifespan import LifespanManager
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.app import create_app
from runmirror.database_url import engine_url
from runmirror.db import create_engine
from runmirror.listen import cancel, listen
from runmirror.migrate import migrate
from runmirror.settings import Settings

API = "/api/2.0/mlflow"


async def test_an_address_may_say_how_to_use_tls_and_everybody_who_connects_understands_it(database_url: str) -> None:
    """As Azure's portal writes it; each connects in its own way: migration, engine, hot writes, listeners."""
    told = make_url(database_url).update_query_dict({"sslmode": "prefer"}).render_as_string(hide_password=False)
    await asyncio.to_thread(migrate, told)
    settings = Settings(database_url=told)
    engine = create_engine(settings, told)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM runs")) == 0
    await engine.dispose()
    heard = asyncio.Event()
    listening = asyncio.create_task(listen(told, "channel", heard))
    await asyncio.wait_for(heard.wait(), 10)  # set once it listens
    await cancel(listening)


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_an_engine_is_told_to_insist_on_tls(mode: str) -> None:
    url = engine_url(f"postgresql://u:p@db.example:5432/name?sslmode={mode}&application_name=x")
    assert (url.drivername, dict(url.query)) == ("postgresql+asyncpg", {"ssl": mode, "application_name": "x"})


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

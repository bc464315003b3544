"""What a client is told when the database does not answer as it should."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from runmirror.outage import Outage
from runmirror.settings import Settings
from tests.database_line import database_line

API = "/api/2.0/mlflow"


@asynccontextmanager
async def serving(settings: Settings, database_url: str) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A client of the app, and a run."""
    async with LifespanManager(create_app(settings, database_url)) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            created = await client.post(f"{API}/runs/create", json={"experiment_id": "0"})
            yield client, created.json()["run"]["info"]["run_id"]


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
    async with serving(hasty, settings.database_url) as (client, run_id), engine.connect() as holder:
        await holder.execute(text("SELECT 1 FROM runs WHERE run_id = :run_id FOR UPDATE"), {"run_id": run_id})
        tag = {"run_id": run_id, "key": "k", "value": "v"}
        waited = await client.post(f"{API}/runs/set-tag", json=tag)
        assert (waited.status_code, waited.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")
        await holder.rollback()
        assert (await client.post(f"{API}/runs/set-tag", json=tag)).status_code == 200


async def test_a_database_that_stands_still_is_not_waited_for_without_end(settings: Settings) -> None:
    assert settings.database_url is not None
    hasty = settings.model_copy(update={"db_statement_timeout": timedelta(seconds=0.5)})
    async with database_line(settings.database_url) as line, serving(hasty, line.url) as (client, run_id):

        async def ask() -> dict[str, int]:
            """A hot write, an ordinary one, a read, and the probe, at once."""
            asked = {
                "hot": client.post(f"{API}/runs/set-tag", json={"run_id": run_id, "key": "k", "value": "v"}),
                "write": client.post(f"{API}/runs/update", json={"run_id": run_id, "run_name": "new"}),
                "read": client.get(f"{API}/experiments/get", params={"experiment_id": "0"}),
                "ready": client.get("/readyz"),
            }
            return dict(
                zip(asked, [answer.status_code for answer in await asyncio.gather(*asked.values())], strict=True)
            )

        well = dict.fromkeys(("hot", "write", "read", "ready"), 200)
        assert await ask() == well  # now each has a connection to wait at
        line.passing.clear()
        began = time.monotonic()
        answered = await ask()
        took_s = time.monotonic() - began
        line.passing.set()
        assert answered == {"hot": 429, "write": 429, "read": 503, "ready": 503}
        assert took_s < 10
        assert await ask() == well


async def test_a_database_without_room_is_no_error_of_ours(settings: Settings, engine: AsyncEngine) -> None:
    assert settings.database_url is not None
    async with serving(settings, settings.database_url) as (client, run_id):
        tag = {"run_id": run_id, "key": "k", "value": "v"}
        async with engine.begin() as connection:
            await connection.execute(
                text("CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
                     "$$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$")
            )  # fmt: skip
            await connection.execute(
                text("CREATE TRIGGER full_disk BEFORE INSERT ON tags FOR EACH ROW EXECUTE FUNCTION full_disk()")
            )
        refused = await client.post(f"{API}/runs/set-tag", json=tag)
        assert (refused.status_code, refused.json()["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED"), refused.text
        assert int(refused.headers["Retry-After"]) > 0
        assert "disk is full" in refused.json()["message"]
        async with engine.begin() as connection:
            await connection.execute(text("DROP TRIGGER full_disk ON tags"))
        assert (await client.post(f"{API}/runs/set-tag", json=tag)).status_code == 200


def test_seven_repeats_outlive_an_outage_of_a_minute_and_a_half() -> None:
    """The mlflow client repeats a call seven times, each time when it was told to."""
    now = 100.0
    outage = Outage(lambda: now)
    for _ in range(2):
        began, waits = now, []
        for _ in range(7):
            waits.append(outage.wait_s())
            now += waits[-1]
        assert waits == [2, 2, 4, 8, 16, 30, 30]
        assert now - began > 90
        outage.over()

"""When linking adds a workspace and when it replaces one, and a database from before there were several."""

import asyncio
import itertools

import pytest
from alembic import command
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runmirror import migrate
from runmirror.artifacts.files import Store
from runmirror.mirror import link_queries
from runmirror.mirror.link import Link, LinkRefused, Wish, adopt_settings, write_link
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.mirror.conftest import WORKSPACE_ID
from tests.mirror.factories import Source, points
from tests.mirror.memory_target import Remote
from tests.mirror.workspaces import Workspaces, arm_id

_numbers = itertools.count()


async def shown(connection: AsyncConnection) -> list[str]:
    """Names in their order, the default one with a star."""
    return [link.name + "*" * link.is_default for link in await link_queries.read_links(connection)]


async def test_without_a_wish_there_is_one_workspace(connection: AsyncConnection) -> None:
    assert not await write_link(connection, Link(arm_id("a")))
    assert not await write_link(connection, Link(arm_id("A")))
    assert await write_link(connection, Link(arm_id("b")))
    assert await shown(connection) == ["b*"]


async def test_with_a_wish_a_workspace_is_added_or_changed(connection: AsyncConnection) -> None:
    await write_link(connection, Link(arm_id("a")))
    assert not await write_link(connection, Link(arm_id("b")), Wish(experiments=("b/*",)))
    assert not await write_link(connection, Link(arm_id("c")), Wish("third"))
    assert await shown(connection) == ["a*", "b", "third"]
    await write_link(connection, Link(arm_id("b")), Wish("second", is_default=True))
    assert await shown(connection) == ["a", "second*", "third"]
    assert (await link_queries.read_links(connection))[1].experiments == ("b/*",)
    await write_link(connection, Link(arm_id("b")), Wish(experiments=("x", "y"), is_default=False))
    assert await shown(connection) == ["a", "second", "third"]
    with pytest.raises(LinkRefused, match="3 workspaces are linked"):
        await write_link(connection, Link(arm_id("d")))
    await write_link(connection, Link(arm_id("B")))
    assert await shown(connection) == ["a", "second", "third"]


async def test_the_settings_name_the_default_workspace_and_leave_the_others_alone(
    connection: AsyncConnection, settings: Settings
) -> None:
    def naming(name: str) -> Settings:
        return settings.model_copy(update={"azureml_workspace": arm_id(name)})

    await adopt_settings(connection, settings)
    assert await shown(connection) == []
    await adopt_settings(connection, naming("a"))
    await adopt_settings(connection, naming("b"))
    assert await shown(connection) == ["b*"], "of one workspace, another one takes the place"
    await write_link(connection, Link(arm_id("c")), Wish(experiments=("c/*",)))
    await adopt_settings(connection, naming("a"))
    assert await shown(connection) == ["c", "a*"]
    await adopt_settings(connection, naming("c"))
    assert await shown(connection) == ["c*", "a"]
    before = await connection.scalar(text("SELECT max(xmin::text) FROM mirror_links"))
    await adopt_settings(connection, naming("C"))
    assert await connection.scalar(text("SELECT max(xmin::text) FROM mirror_links")) == before, "nothing to do"


@pytest.mark.parametrize("is_linked", [True, False])
async def test_a_database_with_one_link_goes_on_where_it_was(
    postgres: str, settings: Settings, store: Store, is_linked: bool
) -> None:
    """What is mirrored stays mirrored, learned limits and known experiments are kept, and back again."""
    name = f"earlier_{next(_numbers)}"
    admin = create_async_engine(make_url(postgres).set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await admin.dispose()
    url = make_url(postgres).set(database=name, drivername="postgresql+asyncpg")
    config = migrate._config(url.render_as_string(hide_password=False))
    engine = create_async_engine(url)
    await asyncio.to_thread(command.upgrade, config, "0007")
    await fill(engine, is_linked)
    await asyncio.to_thread(migrate.migrate, url.render_as_string(hide_password=False))
    async with engine.begin() as connection:
        rows = (await connection.execute(text("SELECT * FROM mirrors ORDER BY run_id"))).all()
        assert [(row.state, row.watermark, row.link_id, row.unrouted) for row in rows] == (
            [("current", 1, 1, None), ("due", 1, 1, None)] if is_linked
            else [("current", 1, None, "live"), ("due", 1, None, "live")]
        )  # fmt: skip
        assert await shown(connection) == (["memory*"] if is_linked else [])
        assert not await write_link(connection, Link(arm_id("second")), Wish("second", is_default=False))
        ids = await connection.scalars(text("SELECT link_id FROM mirror_links ORDER BY link_id"))
        assert list(ids) == ([1, 2] if is_linked else [1])
    if is_linked:
        await check_nothing_is_sent_twice(engine, settings, store)
    await asyncio.to_thread(command.downgrade, config, "0007")
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM mirror_links WHERE link_id = 1")) == 1
    await asyncio.to_thread(migrate.migrate, url.render_as_string(hide_password=False))
    await engine.dispose()


async def check_nothing_is_sent_twice(engine: AsyncEngine, settings: Settings, store: Store) -> None:
    workspaces = Workspaces(engine)
    target = workspaces["memory"]
    for number in (1, 2):
        remote_id, tags = f"remote-{number}", {"runmirror.run_id": f"{number:032x}"}
        target.runs[remote_id] = Remote(remote_id, "e", "run", tags)
    elsewhere = Source(engine, store)
    await Worker(settings, engine, store, workspaces.open).drain()
    assert target.runs["remote-2"].params == {"p": "1"}
    assert target.calls == ["probe", "log_batch", "copy_files"], "of one run, what was to come"
    new = await elsewhere.run()
    await new.log(metrics=points("m", 3))
    await Worker(settings, engine, store, workspaces.open).drain()
    assert target.of(new.run_id.hex).experiment_id == "e", "the experiment is known already"
    async with engine.connect() as connection:
        learned = await connection.execute(text("SELECT link_id, name, value FROM mirror_limits"))
        assert tuple(learned.one()) == (1, "params", 7)


async def fill(engine: AsyncEngine, is_linked: bool) -> None:
    """Two runs as the version before left them: one mirrored, one with a write to come."""
    statements = [
        """INSERT INTO runs (run_id, experiment_id, name, status, start_time_ms, artifact_uri, seq)
           SELECT CAST(lpad(to_hex(n), 32, '0') AS uuid), 0, 'run', 'RUNNING', 1, 'mlflow-artifacts:/0', n
           FROM generate_series(1, 2) AS n""",
        """INSERT INTO mirrors (run_id, state, watermark, info_watermark, sent_upto, remote_experiment_id,
               remote_run_id)
           SELECT run_id, CASE WHEN seq = 1 THEN 'current' ELSE 'due' END, 1, 1, 1, 'e', 'remote-' || seq FROM runs""",
        "UPDATE mirrors SET behind_since = NULL WHERE state = 'current'",
        "INSERT INTO params (run_id, key, value, seq) SELECT run_id, 'p', '1', 2 FROM runs WHERE seq = 2",
        "INSERT INTO mirrored_experiments VALUES (0, 'e', 'Default')",
        "INSERT INTO mirror_limits (name, value) VALUES ('params', 7)",
    ]
    if is_linked:
        statements.append(f"INSERT INTO mirror_links (link_id, workspace_id) VALUES (1, '{WORKSPACE_ID}')")
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))

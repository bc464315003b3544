"""Migrations: alone they make the schema the code describes, and many may start at once."""

import asyncio
import itertools
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runmirror.migrate import head_revision, migrate
from runmirror.tables import metadata

_numbers = itertools.count()


@pytest.fixture
async def empty_database(postgres: str) -> str:
    name = f"empty_{next(_numbers)}"
    admin = create_async_engine(make_url(postgres).set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await admin.dispose()
    return make_url(postgres).set(database=name).render_as_string(hide_password=False)


async def test_the_migrated_schema_is_the_one_the_code_describes(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


def start_four(database_url: str) -> list[tuple[int, str]]:
    """Exit codes and errors of four processes that migrate at once."""
    program = "import sys; from runmirror.migrate import migrate; migrate(sys.argv[1])"
    command = [sys.executable, "-W", "ignore", "-c", program, database_url]
    starting = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [child.communicate()[1] for child in starting]
    return [(child.returncode, error) for child, error in zip(starting, errors, strict=True)]


async def test_replicas_that_start_at_once_migrate_once(empty_database: str) -> None:
    outcomes = await asyncio.to_thread(start_four, empty_database)
    assert [code for code, _ in outcomes] == [0] * 4, outcomes
    engine = create_async_engine(make_url(empty_database).set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == head_revision()
        assert await connection.scalar(text("SELECT count(*) FROM experiments")) == 1
    await engine.dispose()


def test_migrating_again_changes_nothing(postgres: str) -> None:
    url = make_url(postgres).set(database="runmirror_template").render_as_string(hide_password=False)
    migrate(url)

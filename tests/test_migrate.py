"""Migrations: alone they make the schema the code describes, and many may start at once."""

import asyncio
import itertools
import subprocess
import sys

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runmirror.migrate import _config, head_revision, migrate
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


async def test_old_metrics_and_params_learn_their_experiment(empty_database: str) -> None:
    await asyncio.to_thread(command.upgrade, _config(empty_database), "0013")
    engine = create_async_engine(make_url(empty_database).set(drivername="postgresql+asyncpg"))
    async with engine.begin() as connection:
        for statement in (
            """INSERT INTO runs (run_id, experiment_id, name, status, start_time_ms, artifact_uri)
               SELECT gen_random_uuid(), n % 3, 'r', 'FINISHED', n, '' FROM generate_series(1, 2500) n""",
            "INSERT INTO params (run_id, key, value, seq) SELECT run_id, 'p', 'x', 1 FROM runs",
            """INSERT INTO latest_metrics (run_id, key, metric_id, seq, step, timestamp_ms, value)
               SELECT run_id, 'm', 1, 1, 0, 0, 0.5 FROM runs""",
        ):
            await connection.execute(text(statement))
    await asyncio.to_thread(migrate, empty_database)
    async with engine.connect() as connection:
        for table in ("params", "latest_metrics"):
            right = f"SELECT count(*) FROM {table} t JOIN runs r USING (run_id) WHERE t.experiment_id = r.experiment_id"
            assert await connection.scalar(text(right)) == 2500
    await engine.dispose()

"""Alembic's environment: one async connection, one advisory lock, every migration in its own transaction."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from runmirror.tables import metadata

LOCK = 7_203_551_019  # any number, the same in every version: "a runmirror schema change is under way"
_ASK_AGAIN_S = 0.1


def upgrade(connection: Connection) -> None:
    """Runs inside the advisory lock; a DDL lock that cannot be had within 10 s fails instead of queueing readers."""
    connection.execute(text("SET lock_timeout = '10s'"))
    connection.commit()
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    engine = create_async_engine(context.config.attributes["database_url"], poolclass=NullPool)
    async with engine.connect() as lock_holder, engine.connect() as connection:
        # A connection of its own holds the lock, so that it outlives the migrations' transactions. It has no
        # transaction itself, and who waits for the lock asks again and again: building an index concurrently waits
        # for everybody who is in the middle of one.
        await lock_holder.execution_options(isolation_level="AUTOCOMMIT")
        while not await lock_holder.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}):  # noqa: ASYNC110 - another process
            await asyncio.sleep(_ASK_AGAIN_S)
        await connection.run_sync(upgrade)
        await lock_holder.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
    await engine.dispose()


asyncio.run(main())

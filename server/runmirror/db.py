"""The engine, and the two ways a route reaches Postgres.

Routes and queries work on SQLAlchemy Core connections rather than ORM sessions: every statement is written by hand,
so an identity map would only cost time.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

import asyncpg
from fastapi import Depends, Request
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runmirror.admission import Gate, Share
from runmirror.database_url import engine_url
from runmirror.errors import Busy, InvalidParameter, RunmirrorError, TookTooLong, Unavailable
from runmirror.hot.connections import Connections
from runmirror.settings import Settings

# SQLAlchemy passes on what asyncpg raises while it connects.
DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)

_HOT_CONNECTIONS = 4
BESIDE = 1  # for probes, /metrics and webhooks: what is no request of a client waits behind none
_TIMED_OUT = "57014"
_BAD_VALUE_CLASS = "22"  # SQLSTATE class "data exception": a value Postgres cannot store


def create_engine(
    settings: Settings, database_url: str, *, statement_timeout: timedelta = timedelta(0), beside: int = 0
) -> AsyncEngine:
    """An engine with a bounded pool; `database_url` is `postgresql://…`, as users write it; timeout 0 is none."""
    url = make_url(database_url)
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError(f"runmirror needs Postgres: {url.get_backend_name()} is not supported (postgresql://…)")
    return create_async_engine(
        engine_url(database_url),
        pool_size=settings.db_pool_size + beside,
        max_overflow=0,
        pool_timeout=settings.db_pool_timeout.total_seconds(),
        pool_recycle=1800,
        connect_args={
            "timeout": 10,
            "server_settings": {
                "application_name": "runmirror",
                "idle_in_transaction_session_timeout": "60000",
                "statement_timeout": str(round(statement_timeout.total_seconds() * 1000)),
                "jit": "off",  # compiling takes longer than any statement of ours runs
                "max_parallel_workers_per_gather": "0",  # starting helpers too, and many requests share the cores
            },
        },
    )


def hot_connections(settings: Settings, database_url: str) -> Connections:
    """Those beside the engine's pool, for `runmirror.hot`."""
    return Connections(database_url, most=_HOT_CONNECTIONS, statement_timeout=settings.db_statement_timeout)


def gate(settings: Settings) -> Gate:
    """In front of the engine's pool, for the requests of clients."""
    return Gate(
        connections=settings.db_pool_size, most_waiting=settings.db_queue_size, patience=settings.db_pool_timeout
    )


def shares(gate: Gate) -> Mapping[Callable[..., Any], Share]:
    """Which share a route belongs to is told by the connection it takes."""
    return {read_connection: gate.reads, write_connection: gate.writes}


async def write_connection(request: Request) -> AsyncIterator[AsyncConnection]:
    """One transaction per write; it commits before the answer leaves (scope="function" below)."""
    state = request.app.state
    async with state.gate.turn(state.gate.writes), _connected(state.engine, Busy) as connection:
        transaction = await connection.begin()
        try:
            yield connection
        except DBAPIError as error:
            await transaction.rollback()
            raise answer_for(error, wrote_nothing=True) from error
        except BaseException:
            await transaction.rollback()
            raise
        try:
            await transaction.commit()
        except DBAPIError as error:
            raise answer_for(error, wrote_nothing=False) from error


async def read_connection(request: Request) -> AsyncIterator[AsyncConnection]:
    """A connection without a transaction: every statement sees what is committed when it starts."""
    state = request.app.state
    engine: AsyncEngine = state.engine
    async with (
        state.gate.turn(state.gate.reads),
        _connected(engine.execution_options(isolation_level="AUTOCOMMIT"), Unavailable) as connection,
    ):
        try:
            yield connection
        except DBAPIError as error:
            raise answer_for(error, wrote_nothing=False) from error


@asynccontextmanager
async def _connected(engine: AsyncEngine, otherwise: type[RunmirrorError]) -> AsyncIterator[AsyncConnection]:
    connection = engine.connect()
    try:
        await connection.start()
    except (OSError, DBAPIError, PoolTimeout) as error:
        raise otherwise("The database cannot be reached or is busy; nothing was done, try again.") from error
    try:
        yield connection
    finally:
        await connection.close()


def answer_for(error: DBAPIError, *, wrote_nothing: bool) -> Exception:
    """What a client is told about a failed statement; a fault of ours stays what it is (500, logged)."""
    if error.connection_invalidated or _sqlstate(error).startswith(("08", "57P")):
        gone = "The database connection was lost; "
        if wrote_nothing:
            return Busy(gone + "nothing was written, try again.")
        return Unavailable(gone + "try again.")
    if _sqlstate(error) == _TIMED_OUT:
        return TookTooLong("The request took the database too long (RUNMIRROR_DB_STATEMENT_TIMEOUT): ask for less.")
    if _sqlstate(error).startswith(_BAD_VALUE_CLASS) or type(error.orig).__name__ == "DataError":
        return unstorable()
    return error


def unstorable() -> RunmirrorError:
    return InvalidParameter(
        "A value in the request cannot be stored: text must be valid Unicode without NUL characters, and whole "
        "numbers must fit 64 bits."
    )


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


WriteConnection = Annotated[AsyncConnection, Depends(write_connection, scope="function")]
ReadConnection = Annotated[AsyncConnection, Depends(read_connection, scope="function")]

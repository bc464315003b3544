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
from runmirror.hot.connections import KEPT_ALIVE, Connections
from runmirror.outage import Outage
from runmirror.settings import Settings

# SQLAlchemy passes on what asyncpg raises while it connects.
DATABASE_ERRORS = (
    SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError,
)  # fmt: skip
# And what it does not wrap when a statement met with it: the connection broke, or Postgres said nothing.
_BROKEN = (ConnectionError, TimeoutError)

_HOT_CONNECTIONS = 4
BESIDE = 1  # for probes, /metrics and webhooks: what is no request of a client waits behind none
_TIMED_OUT = "57014"
_NO_ROOM_CLASS = "53"  # SQLSTATE class "insufficient resources": the disk is full, too many connections
# Postgres ends a statement that takes too long. If it says nothing for so much longer, it stands still or is gone.
_SILENCE = timedelta(seconds=5)
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
        pool_use_lifo=True,  # the one used last has its statements prepared, and what it read at hand
        connect_args={
            "timeout": 10,
            "command_timeout": silence(statement_timeout).total_seconds() or None,
            "server_settings": {
                "application_name": "runmirror",
                "idle_in_transaction_session_timeout": "60000",
                **KEPT_ALIVE,
                "statement_timeout": str(round(statement_timeout.total_seconds() * 1000)),
                "jit": "off",  # compiling takes longer than any statement of ours runs
                "max_parallel_workers_per_gather": "0",  # starting helpers too, and many requests share the cores
            },
        },
    )


def hot_connections(settings: Settings, database_url: str) -> Connections:
    """Those beside the engine's pool, for `runmirror.hot`."""
    timeout = settings.db_statement_timeout
    return Connections(database_url, most=_HOT_CONNECTIONS, statement_timeout=timeout, silence=silence(timeout))


def silence(statement_timeout: timedelta) -> timedelta:
    """How long to wait for a word of Postgres; 0 is for ever, as with the timeout itself."""
    return statement_timeout + min(_SILENCE, statement_timeout)


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
    async with state.gate.turn(state.gate.writes), _connected(state, state.engine, Busy) as connection:
        try:
            transaction = await connection.begin()
        except (DBAPIError, *_BROKEN) as error:
            await _give_up(connection, error)
            raise answer_for(error, wrote_nothing=True) from error
        try:
            yield connection
        except (DBAPIError, *_BROKEN) as error:
            if not await _give_up(connection, error):
                await transaction.rollback()
            raise answer_for(error, wrote_nothing=True) from error
        except BaseException:
            await transaction.rollback()
            raise
        try:
            await transaction.commit()
        except (DBAPIError, *_BROKEN) as error:
            await _give_up(connection, error)
            raise answer_for(error, wrote_nothing=False) from error


async def read_connection(request: Request) -> AsyncIterator[AsyncConnection]:
    """See `reading`."""
    async with reading(request.app.state) as connection:
        yield connection


@asynccontextmanager
async def reading(state: Any) -> AsyncIterator[AsyncConnection]:
    """A connection without a transaction: every statement sees what is committed when it starts."""
    async with (
        state.gate.turn(state.gate.reads),
        _connected(state, state.read_engine, Unavailable) as connection,
    ):
        try:
            yield connection
        except (DBAPIError, *_BROKEN) as error:
            await _give_up(connection, error)
            raise answer_for(error, wrote_nothing=False) from error


@asynccontextmanager
async def _connected(
    state: Any, engine: AsyncEngine, otherwise: type[RunmirrorError]
) -> AsyncIterator[AsyncConnection]:
    outage: Outage = state.outage
    connection = engine.connect()
    try:
        await connection.start()
    except PoolTimeout as error:
        raise otherwise("The database is busy; nothing was done, try again.") from error
    except DATABASE_ERRORS as error:
        refusal = otherwise("The database cannot be reached; nothing was done, try again.")
        refusal.retry_after_s = outage.wait_s()
        raise refusal from error
    outage.over()
    try:
        yield connection
    finally:
        await connection.close()


async def _give_up(connection: AsyncConnection, error: Exception) -> bool:
    """Throw a connection away whose other end is gone or silent: to take leave there would only mean to wait again."""
    gone = _is_gone(error)
    if gone and not connection.invalidated:
        pooled = await connection.get_raw_connection()
        if pooled.driver_connection is not None:
            pooled.driver_connection.terminate()
        await connection.invalidate()
    return gone


def answer_for(error: Exception, *, wrote_nothing: bool) -> Exception:
    """What a client is told about a failed statement; a fault of ours stays what it is (500, logged)."""
    if trouble := _trouble(error):
        if wrote_nothing:
            return Busy(f"{trouble}; nothing was written, try again.")
        return Unavailable(f"{trouble}; try again.")
    if not isinstance(error, DBAPIError):
        return error
    if _sqlstate(error) == _TIMED_OUT:
        return TookTooLong("The request took the database too long (RUNMIRROR_DB_STATEMENT_TIMEOUT): ask for less.")
    if _sqlstate(error).startswith(_BAD_VALUE_CLASS) or type(error.orig).__name__ == "DataError":
        return unstorable()
    return error


def _trouble(error: Exception) -> str | None:
    """What ails the database itself, whatever it was asked."""
    if _is_gone(error):
        return "The database connection was lost"
    if isinstance(error, DBAPIError) and _sqlstate(error).startswith(_NO_ROOM_CLASS):
        return "The database has no room: its disk is full, or it has too many connections"
    return None


def _is_gone(error: Exception) -> bool:
    if not isinstance(error, DBAPIError):
        return isinstance(error, _BROKEN)
    # asyncpg's own complaint: it has not finished reading the word with which Postgres has ended the connection.
    is_leaving = error.orig is not None and isinstance(error.orig.__cause__, asyncpg.InternalClientError)
    return error.connection_invalidated or is_leaving or _sqlstate(error).startswith(("08", "57P"))


def unstorable() -> RunmirrorError:
    return InvalidParameter(
        "A value in the request cannot be stored: text must be valid Unicode without NUL characters, and whole "
        "numbers must fit 64 bits."
    )


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


WriteConnection = Annotated[AsyncConnection, Depends(write_connection, scope="function")]
ReadConnection = Annotated[AsyncConnection, Depends(read_connection, scope="function")]

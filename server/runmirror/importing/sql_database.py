"""MLflow's own database, read only: whatever SQLAlchemy opens, Postgres by the driver that we have anyway."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, create_engine, inspect, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.sql import bindparam
from sqlalchemy.sql.elements import TextClause

from runmirror.importing.source import SourceError

Rows = Sequence[Sequence[Any]]
_T = TypeVar("_T")
_CONNECTIONS = 4


class Database(Protocol):
    """Reads; every method raises `SourceError`."""

    async def tables(self) -> Mapping[str, frozenset[str]]:
        """The columns of each table."""
        ...

    async def rows(self, statement: TextClause, values: Mapping[str, Any]) -> Rows: ...

    def stream(self, statement: TextClause, values: Mapping[str, Any], size: int) -> AsyncIterator[Rows]:
        """The rows in pieces of `size`, never all at once in memory."""
        ...

    async def close(self) -> None: ...


def open_database(url: str) -> Database:
    """Raises `SourceError`."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() in {"postgresql", "postgres"}:
            return _Async(parsed.set(drivername="postgresql+asyncpg"))
        return _InThreads(parsed)
    except (ArgumentError, NoSuchModuleError) as error:
        raise SourceError(f"this is no address of a database: {error}") from error
    except ModuleNotFoundError as error:
        raise SourceError(
            f"this database needs the Python package {error.name!r}: pip install it beside runmirror"
        ) from error


def identity_of(url: str) -> str:
    """Without user, password and driver."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return f"sqlite:///{Path(parsed.database or '').resolve()}"
    port = f":{parsed.port}" if parsed.port else ""
    host = parsed.host or parsed.query.get("host") or ""
    return f"{parsed.get_backend_name()}://{host}{port}/{parsed.database}"


def many(statement: str, *lists: str) -> TextClause:
    """A statement in which `:name` of each of `lists` stands for any number of values."""
    return text(statement).bindparams(*(bindparam(name, expanding=True) for name in lists))


class _Async:
    def __init__(self, url: URL) -> None:
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            connect_args={"server_settings": {"default_transaction_read_only": "on", "jit": "off"}},
        )

    async def tables(self) -> Mapping[str, frozenset[str]]:
        with _readable():
            async with self._engine.connect() as connection:
                return await connection.run_sync(_tables)

    async def rows(self, statement: TextClause, values: Mapping[str, Any]) -> Rows:
        with _readable():
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, dict(values))).all()

    async def stream(self, statement: TextClause, values: Mapping[str, Any], size: int) -> AsyncIterator[Rows]:
        with _readable():
            async with self._engine.connect() as connection:
                result = await connection.stream(statement, dict(values))
                async for some in result.partitions(size):
                    yield some

    async def close(self) -> None:
        await self._engine.dispose()


class _InThreads:
    """A driver that blocks; a connection at a time does what it does in one thread after the other."""

    def __init__(self, url: URL) -> None:
        more: dict[str, Any] = {}
        if url.get_backend_name() == "sqlite":
            path = Path(url.database or "")
            if not path.is_file():
                raise SourceError(f"there is no file {path}")
            # Never made, never written to; the server that owns it may go on meanwhile.
            url = url.set(database=f"file:{path.resolve()}", query={"mode": "ro", "uri": "true"})
            more = {"connect_args": {"check_same_thread": False}}
        self._engine: Engine = create_engine(url, pool_size=_CONNECTIONS, max_overflow=0, **more)

    async def tables(self) -> Mapping[str, frozenset[str]]:
        return await self._do(_tables)

    async def rows(self, statement: TextClause, values: Mapping[str, Any]) -> Rows:
        return await self._do(lambda connection: connection.execute(statement, dict(values)).all())

    async def stream(self, statement: TextClause, values: Mapping[str, Any], size: int) -> AsyncIterator[Rows]:
        with _readable():
            async with self._connected() as connection:
                options = {"stream_results": True}
                result = await asyncio.to_thread(
                    lambda: connection.execute(statement, dict(values), execution_options=options)
                )
                while some := await asyncio.to_thread(result.fetchmany, size):
                    yield some

    async def close(self) -> None:
        await asyncio.to_thread(self._engine.dispose)

    async def _do(self, act: Callable[[Connection], _T]) -> _T:
        with _readable():
            async with self._connected() as connection:
                return await asyncio.to_thread(act, connection)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        connection = await asyncio.to_thread(self._engine.connect)
        try:
            yield connection
        finally:
            await asyncio.to_thread(connection.close)


def _tables(connection: Connection) -> Mapping[str, frozenset[str]]:
    looking = inspect(connection)
    return {
        table: frozenset(column["name"] for column in looking.get_columns(table)) for table in looking.get_table_names()
    }


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        told = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise SourceError(f"the database cannot be read: {told}") from error

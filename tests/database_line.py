"""The line between server and Postgres, on which nothing may pass for a while."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy import make_url


class DatabaseLine:
    """Takes connections of TCP and passes them on to a Postgres that listens at a Unix socket only."""

    def __init__(self, database_url: str) -> None:
        self._url = make_url(database_url)
        self.passing = asyncio.Event()
        self.passing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return self._url.set(host="127.0.0.1", port=self.port, query={}).render_as_string(hide_password=False)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        folder = str(self._url.query["host"])
        there, back = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back))
                await self._pump(there, writer)
                raise ConnectionAbortedError
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            back.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            await self.passing.wait()
            writer.write(chunk)
            await writer.drain()

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def database_line(database_url: str) -> AsyncIterator[DatabaseLine]:
    line = DatabaseLine(database_url)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        await line.end()

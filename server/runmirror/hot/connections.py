"""asyncpg without anything around it, for statements that are a transaction of their own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import asyncpg
from sqlalchemy import make_url

from runmirror.errors import Unavailable

_CONNECT_S = 5.0
_CLOSE_S = 2.0


# The connection used last is used next, so that others may be idle for hours. What lies between, and forgets
# connections that say nothing (in Azure after four minutes), must not forget these.
KEPT_ALIVE = {"tcp_keepalives_idle": "60"}


class NotConnected(Exception):
    """There is no connection, so nothing was sent."""


# How a statement can fail here, after which it may be sent again the ordinary way if it may be sent twice at all.
NOT_DONE = (NotConnected, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
# What asyncpg says of a connection that Postgres has ended with a word, which it has not finished reading.
_TAKING_LEAVE = "cannot switch to state"

# Every statement sent here finds its rows by a key. The planner must not think otherwise while tables are still small:
# a plan is kept as long as the connection.
_BY_KEY = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",  # rows in the order of an index come from that index, see migration 0025
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    # Who waits for a lock longer than this does so the ordinary way, where nobody waits behind them.
    "lock_timeout": "250",
}


@contextmanager
def or_the_ordinary_way() -> Iterator[None]:
    """What fails here is left to whoever does it the ordinary way; silence would only be met with again."""
    try:
        yield
    except TimeoutError as error:
        raise Unavailable("The database does not answer; try again.") from error
    except NOT_DONE:
        pass


class Connections:
    """At most `most` connections, opened when they are needed; the one used last is used next.

    `silence`: how long Postgres may say nothing, after which `TimeoutError` is raised; 0 is for ever. So it is when it
    takes no new connection.
    """

    def __init__(
        self, database_url: str, *, most: int, statement_timeout: timedelta, silence: timedelta = timedelta(0)
    ) -> None:
        self._dsn = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._free: list[asyncpg.Connection] = []
        self._turns = asyncio.Semaphore(most)
        self._silence_s = silence.total_seconds() or None
        self._settings = {
            "application_name": "runmirror",
            **KEPT_ALIVE,
            "statement_timeout": str(round(statement_timeout.total_seconds() * 1000)),
            **_BY_KEY,
        }

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Wait for a turn. What fails otherwise than by Postgres' word ends the connection.

        Raises `NotConnected`, and `TimeoutError` for silence.
        """
        async with self._turns:
            connection = await self._open()
            try:
                yield connection
            except asyncpg.PostgresError:
                raise
            except asyncpg.InternalClientError as error:
                connection.terminate()
                if _TAKING_LEAVE in str(error):
                    raise NotConnected from error
                raise
            except BaseException:
                connection.terminate()
                raise
            finally:
                if not connection.is_closed():
                    self._free.append(connection)

    async def close(self) -> None:
        while self._free:
            connection = self._free.pop()
            try:
                await connection.close(timeout=_CLOSE_S)
            except NOT_DONE:
                connection.terminate()

    async def _open(self) -> asyncpg.Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
        try:
            return await asyncpg.connect(
                self._dsn, timeout=_CONNECT_S, command_timeout=self._silence_s, server_settings=self._settings
            )
        except TimeoutError:
            raise
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise NotConnected from error

"""Wakes whoever waits for work: a connection of its own that comes back by itself."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import asyncpg
from sqlalchemy import make_url

log = logging.getLogger(__name__)

_ALIVE_EVERY_S = 30.0
_RECONNECT_S = 1.0
_CANCEL_AGAIN_S = 0.5


async def listen(
    database_url: str, channel: str, wake: asyncio.Event, *, lost: Callable[[], None] = lambda: None
) -> None:
    """Set `wake` at every notification on `channel`, and at every (re)connection; never ends.

    Notifications are not kept: those of a time without a connection are made up for by looking once it is there.
    `lost` is called when that time begins.
    """
    dsn = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    while True:
        try:
            await _listen_once(dsn, channel, wake)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            log.warning("not listening for work: %s; asking every now and then instead", type(error).__name__)
        finally:
            lost()
        await asyncio.sleep(_RECONNECT_S)


async def _listen_once(dsn: str, channel: str, wake: asyncio.Event) -> None:
    connection = await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "runmirror listen"})
    gone = asyncio.Event()
    try:
        connection.add_termination_listener(lambda *_: gone.set())
        await connection.add_listener(channel, lambda *_: wake.set())
        wake.set()
        while not gone.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_ALIVE_EVERY_S):
                    await gone.wait()
            # A connection whose peer vanished without a word is found out here.
            await connection.execute("SELECT 1", timeout=10)
    finally:
        connection.terminate()


async def cancel(task: asyncio.Task[None]) -> None:
    """End a task that has nothing to tidy up.

    `asyncio.wait_for`, until Python 3.12, loses a cancellation that comes together with what was waited for; a library
    that uses it may do so once, but not every time.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)

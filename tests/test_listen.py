"""How a task that waits for work is ended."""

import asyncio
from contextlib import suppress

from runmirror.listen import cancel


async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    lost = asyncio.Event()

    async def loses_one() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        lost.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(loses_one())
    await asyncio.sleep(0)  # it waits now
    async with asyncio.timeout(10):
        await cancel(task)
    assert lost.is_set()
    assert task.cancelled()


async def test_a_task_that_has_ended_is_left_alone() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    await cancel(task)
    assert not task.cancelled()

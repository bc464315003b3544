"""Waiting for many at once."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

_Result = TypeVar("_Result")


async def together(tasks: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Run side by side; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            started = [group.create_task(task) for task in tasks]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in started]

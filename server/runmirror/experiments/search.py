"""STUB until the search lands."""

from typing import Any


async def search_experiments(connection: Any, **_: Any) -> tuple[list[int], str | None]:
    return [], None

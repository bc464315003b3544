"""Which of the `search_ways` a search takes, and what is remembered of searches that are asked again and again."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.runs import search_ways
from runmirror.runs.search_ways import Asked, Start
from runmirror.search.tree import Entity

FEW = 2000
_MOST_COUNTED = 4  # comparisons
_COUNTED_S = 10.0  # for which a count is good: whoever asks the same again mostly does so within seconds


async def fetch(connection: AsyncConnection, asked: Asked, *, remember: bool = True) -> Sequence[Row[Any]]:
    """`(run_id, version, *sort values)`, in order; in one to three statements, and one less when asked again soon.

    `remember`: keep what is found out about the search, for the next time it is asked.
    """
    return await (_remembered(asked) if remember else _Search(asked)).fetch(connection)


class _Search:
    """A search, and what was found out about it."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._walked = search_ways.walked_key(asked)
        self._starts = tuple(search_ways.starts(asked, self._walked))
        self._few: tuple[Start, ...] = ()
        self._counted_until_s = 0.0
        self._statements: dict[object, _Statement] = {}

    async def fetch(self, connection: AsyncConnection) -> Sequence[Row[Any]]:
        asked, walked = self._asked, self._walked
        if few := await self._counted(connection):
            return await self._sent(connection, search_ways.from_few, asked, few)
        if walked is None:
            return await self._sent(connection, search_ways.of_all, asked)
        if walked.entity is Entity.ATTRIBUTE:
            return await self._sent(connection, search_ways.by_start_time, asked)
        rows = await self._sent(connection, search_ways.by_metric, asked, walked)
        if len(rows) == asked.most or search_ways.asks_for_number(asked, walked):
            return rows
        # Runs without the metric fill the page. All of it is read again, as it is now: no run is given twice.
        return await self._sent(connection, search_ways.by_metric_and_rest, asked, walked)

    async def _counted(self, connection: AsyncConnection) -> tuple[Start, ...]:
        """The starts of few runs, as counted now or a moment ago: this only decides how the runs are found."""
        if time.monotonic() >= self._counted_until_s:
            self._few = await self._count(connection)
            self._counted_until_s = time.monotonic() + _COUNTED_S
        return self._few

    async def _count(self, connection: AsyncConnection) -> tuple[Start, ...]:
        if few := tuple(start for start in self._starts if start.few):
            return few
        counted = tuple(start for start in self._starts if start.comparison is not None)[:_MOST_COUNTED] or self._starts
        if not counted:
            return ()
        # All runs of an experiment are few only if they do not fill the page: else an order is better walked through.
        bounds = tuple(FEW if start.comparison is not None else min(FEW, self._asked.most - 1) for start in counted)
        [found] = await self._sent(connection, search_ways.counts, counted, bounds)
        return tuple(start for start, bound, count in zip(counted, bounds, found, strict=True) if count <= bound)

    async def _sent(
        self, connection: AsyncConnection, make: Callable[..., Select[Any]], *given: object
    ) -> Sequence[Row[Any]]:
        if (make, given) not in self._statements:
            self._statements[make, given] = _Statement(make(*given))
        return await self._statements[make, given].rows(connection)


class _Statement:
    """A query; once it was sent, what SQLAlchemy made of it: that takes 0.3 ms, and megabytes for a long one."""

    __slots__ = ("_it",)

    def __init__(self, query: Select[Any]) -> None:
        self._it: Select[Any] | tuple[str, Any] = query

    async def rows(self, connection: AsyncConnection) -> Sequence[Row[Any]]:
        if isinstance(self._it, tuple):
            result = await connection.exec_driver_sql(*self._it)
        else:
            result = await connection.execute(self._it)
            self._it = result.context.statement, result.context.parameters[0]
        rows: Sequence[Row[Any]] = result.all()
        return rows


_remembered = lru_cache(maxsize=50)(_Search)

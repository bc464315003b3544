"""Looks something up once for all who ask at the same time, remembers for a while that it is not to be had."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from runmirror.errors import Busy, DoesNotExist, RunmirrorError
from runmirror.mirror.keeper import clock_s

Found = TypeVar("Found")

_MOST_AT_ONCE = 16
_MOST_REMEMBERED = 1000
_REMEMBER_ABSENT_S = 15.0
_REMEMBER_OUTAGE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    error: RunmirrorError
    until: float


class Flights(Generic[Found]):
    """`wait_s`: how long one who asks waits; the look-up itself goes on, for the next who asks."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._flying: dict[str, asyncio.Task[Found]] = {}
        self._refusals: dict[str, _Refusal] = {}

    async def find(self, key: str, look_up: Callable[[], Awaitable[Found]]) -> Found:
        """Raises what `look_up` raises of `RunmirrorError`, and `Busy` when that takes too long."""
        refusal = self._refusals.get(key)
        if refusal is not None and clock_s() < refusal.until:
            raise type(refusal.error)(refusal.error.message)
        task = self._flying.get(key)
        if task is None:
            if len(self._flying) >= _MOST_AT_ONCE:
                raise Busy("The Azure ML workspace is being asked about too many runs at once; try again.")
            task = asyncio.create_task(self._fly(key, look_up), name=f"look up {key}")
            self._flying[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        # Whoever asks may go away meanwhile; the others still want to know.
        await asyncio.wait([task], timeout=self._wait_s)
        if not task.done():
            raise Busy("The Azure ML workspace is being asked about this and has not answered yet; try again.")
        return task.result()

    async def close(self) -> None:
        for task in list(self._flying.values()):
            task.cancel()
        await asyncio.gather(*self._flying.values(), return_exceptions=True)

    async def _fly(self, key: str, look_up: Callable[[], Awaitable[Found]]) -> Found:
        try:
            return await look_up()
        except RunmirrorError as error:
            self._remember(key, error)
            raise

    def _remember(self, key: str, error: RunmirrorError) -> None:
        now = clock_s()
        if len(self._refusals) >= _MOST_REMEMBERED:
            self._refusals = {known: told for known, told in self._refusals.items() if now < told.until}
        while len(self._refusals) >= _MOST_REMEMBERED:
            del self._refusals[next(iter(self._refusals))]
        seconds = _REMEMBER_ABSENT_S if isinstance(error, DoesNotExist) else _REMEMBER_OUTAGE_S
        self._refusals[key] = _Refusal(error, now + seconds)

    def _landed(self, key: str, task: asyncio.Task[Found]) -> None:
        del self._flying[key]
        if not task.cancelled():
            task.exception()  # all who asked may have gone

"""Writes that arrive together are committed together.

While one commit is on its way to the disk, what arrives meanwhile waits and goes with the next: the busier the server,
the more writes share one commit. Each is answered after the commit that holds it. If what was sent together fails,
nothing of it was written, and each half is sent again, so that an error reaches only the request that made it.
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import msgspec

from runmirror.errors import Busy

log = logging.getLogger(__name__)

_LONG_S = 0.01  # of one sending: several times what a commit takes

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Waiting(msgspec.Struct, Generic[Item, Result]):
    item: Item
    key: Hashable
    weight: int
    answer: asyncio.Future[Result]


class Together(Generic[Item, Result]):
    """`send` writes several items in one transaction, and answers in their order.

    `repeatable` says which errors of `send` mean that nothing was written. Items with the same key are written in the
    order they came; at most `lanes` sendings are under way, none of more than `most` weight unless one item is heavier.
    What weighs less than `worth` in all waits for the lane that sends and goes with its next, unless that takes long: a
    lock or a slow disk that holds up some is not to hold up all.
    No item may wait behind `most_waiting` others. All that wait weigh `most_weight` at most, unless it is one; each
    leaves as much room as it takes, so that what is heavy is refused while there is room for what is light.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        repeatable: tuple[type[Exception], ...],
        lanes: int,
        most: int,
        most_waiting: int,
        most_weight: int = sys.maxsize,
        worth: int = 1,
    ) -> None:
        self._send = send
        self._repeatable = repeatable
        self._lanes = lanes
        self._most = most
        self._most_waiting = most_waiting
        self._most_weight = most_weight
        self._worth = worth
        self._weight = 0  # of all that wait
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._under_way: set[Hashable] = set()
        self._running = 0  # lanes that send, or are about to look whether there is something
        self._sent = 0  # times that a lane took something
        self._is_watched = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, item: Item, *, key: Hashable, weight: int = 1) -> Result:
        """Raises what `send` raised for this item alone, or `Busy` when too many wait."""
        if len(self._queue) >= self._most_waiting or 0 < self._weight > self._most_weight - 2 * weight:
            raise Busy("Too many writes are waiting; nothing was done, try again.")
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(item, key, weight, answer)
        self._queue.append(waiting)
        self._weight += weight
        if self._running == 0 or (self._running < self._lanes and self._weight >= self._worth):
            self._begin()
        elif self._running < self._lanes and not self._is_watched:
            self._watch()
        return await answer

    def _begin(self) -> None:
        self._running += 1
        task = asyncio.create_task(self._lane())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _watch(self) -> None:
        self._is_watched = True
        asyncio.get_running_loop().call_later(_LONG_S, self._look, self._sent)

    def _look(self, sent: int) -> None:
        self._is_watched = False
        if not self._queue or self._running >= self._lanes:
            return
        if sent == self._sent:  # nothing was taken meanwhile
            self._begin()
        else:
            self._watch()

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lane(self) -> None:
        await asyncio.sleep(0)  # requests that were read from their sockets at the same time come along
        while taken := self._take():
            try:
                await self._write(taken)
            finally:
                self._under_way.difference_update(waiting.key for waiting in taken)
        self._running -= 1  # in the same step as the look at the queue: whoever comes now starts a lane

    def _take(self) -> list[_Waiting[Item, Result]]:
        """What goes next: no key that another lane is writing, so that no lane waits for another's lock."""
        taken: list[_Waiting[Item, Result]] = []
        passed_over: list[_Waiting[Item, Result]] = []
        blocked = set(self._under_way)
        weight = 0
        while self._queue:
            waiting = self._queue[0]
            if waiting.key in blocked:
                passed_over.append(self._queue.popleft())
                continue
            if taken and weight + waiting.weight > self._most:
                break
            weight += waiting.weight
            taken.append(self._queue.popleft())
        self._queue.extendleft(reversed(passed_over))
        self._under_way.update(waiting.key for waiting in taken)
        self._weight -= weight
        self._sent += bool(taken)
        return taken

    async def _write(self, taken: Sequence[_Waiting[Item, Result]]) -> None:
        try:
            results = await self._send([waiting.item for waiting in taken])
        except Exception as error:  # noqa: BLE001 - it is handed to whoever waits
            if len(taken) > 1 and isinstance(error, self._repeatable):
                middle = len(taken) // 2
                await self._write(taken[:middle])
                await self._write(taken[middle:])
                return
            for waiting in taken:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting, result in zip(taken, results, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(result)

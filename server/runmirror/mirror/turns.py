"""Every experiment gets its turn: one with a thousand runs behind does not hold up another one's only run."""

from collections import deque
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror import claims
from runmirror.mirror.keeper import clock_s

_LOOK_EVERY_S = 0.1
_SHARE = 50  # looking takes at most this part of the time, however much is behind


class Turns:
    """Of each experiment that has runs due the longest waiting one, looked up anew when all had their turn.

    Only while more is due than is claimed: else everybody's turn is now.
    """

    def __init__(self, workspace_id: str) -> None:
        self._workspace_id = workspace_id
        self._waiting: deque[UUID] = deque()
        self._crowded = False
        self._look_at = float("-inf")

    async def take(self, connection: AsyncConnection, most: int, debounce: timedelta) -> list[UUID]:
        """Up to `most` runs whose turn it is."""
        if not self._crowded:
            self._waiting.clear()
            return []
        began = clock_s()
        if not self._waiting and began >= self._look_at:
            found = await claims.oldest_of_each_experiment(
                connection, workspace_id=self._workspace_id, debounce=debounce
            )
            self._waiting.extend(found)
            ended = clock_s()
            self._look_at = ended + max(_LOOK_EVERY_S, _SHARE * (ended - began))
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def claimed(self, number: int, most: int) -> None:
        """`number` of the `most` runs that were wanted are leased."""
        self._crowded = number == most

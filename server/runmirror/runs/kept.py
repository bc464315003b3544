"""Runs as JSON that were answered before, in the memory of this process: given again while nothing of them has changed.

Whether something has is asked of Postgres each time: a run stands at a version, which every write to it changes (see
`search_ways`). The version is read before the content, so what is kept is never older than it says; at worst it is
newer, under a version that nobody asks for again.
"""

from collections import OrderedDict
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.runs import answers, queries
from runmirror.runs.inputs_queries import load_inputs_outputs

_OVERHEAD_BYTES = 400  # of an entry, beside its text
_LARGEST_SHARE = 16


class KeptRuns:
    """At most `limit_bytes` of them; those that were not asked for the longest go first."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._kept: OrderedDict[UUID, tuple[str, bytes]] = OrderedDict()

    def get(self, run_id: UUID, version: str) -> bytes | None:
        found = self._kept.get(run_id)
        if found is None or found[0] != version:
            return None
        self._kept.move_to_end(run_id)
        return found[1]

    def keep(self, run_id: UUID, version: str, run: bytes) -> None:
        if (before := self._kept.pop(run_id, None)) is not None:
            self.bytes -= _size(before[1])
        if _size(run) > self.limit_bytes // _LARGEST_SHARE:
            return
        self._kept[run_id] = (version, run)
        self.bytes += _size(run)
        while self.bytes > self.limit_bytes:
            self.bytes -= _size(self._kept.popitem(last=False)[1][1])


async def load(connection: AsyncConnection, kept: KeptRuns, versions: Mapping[UUID, str]) -> list[bytes]:
    """`Run` of MLflow's wire for each of these in this order, those that exist."""
    found = {run_id: kept.get(run_id, version) for run_id, version in versions.items()}
    if missing := [run_id for run_id, run in found.items() if run is None]:
        rows = await queries.load_json(connection, missing)
        inputs_outputs = await load_inputs_outputs(connection, missing)
        for row in rows:
            run = found[row.run_id] = answers.run(row, inputs_outputs)
            kept.keep(row.run_id, versions[row.run_id], run)
    return [run for run in found.values() if run is not None]


def _size(run: bytes) -> int:
    return len(run) + _OVERHEAD_BYTES

"""What every write of a run begins with: the run's lock, its next seq, and a place in the mirror's queue."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import LifecycleStage
from runmirror.errors import InvalidParameter, RunNotFound
from runmirror.mirror import queue
from runmirror.run_ids import stored_id

# The update locks the row (FOR NO KEY UPDATE): writers of one run take turns, so its seqs commit in order.
_BUMP = text("""
    UPDATE runs SET seq = seq + 1 WHERE run_id = :run_id
    RETURNING seq, experiment_id, lifecycle_stage, artifact_uri
""")


@dataclass(frozen=True, slots=True)
class RunWrite:
    """A write of a run under way: `seq` is what every row it touches is stamped with."""

    run_id: UUID
    named: str  # the id as the caller wrote it, for messages
    seq: int
    experiment_id: int
    artifact_uri: str


def parse_run_id(run_id: str) -> UUID:
    """The id as stored. Raises `RunNotFound`: what has not the shape of an id cannot exist."""
    if (key := stored_id(run_id)) is None:
        raise RunNotFound(run_id)
    return key


async def begin(
    connection: AsyncConnection, run_id: str | UUID, *, stage: LifecycleStage | None = LifecycleStage.ACTIVE
) -> RunWrite:
    """Lock the run, number this write and mark the run behind, in the caller's transaction.

    Raises `RunNotFound`, or `InvalidParameter` when the run is not in `stage` (None: any stage will do).
    """
    key = run_id if isinstance(run_id, UUID) else parse_run_id(run_id)
    named = key.hex if isinstance(run_id, UUID) else run_id
    row = (await connection.execute(_BUMP, {"run_id": key})).one_or_none()
    if row is None:
        raise RunNotFound(named)
    if stage is not None and row.lifecycle_stage != stage:
        raise InvalidParameter(
            f"The run {named} must be in the '{stage}' state. Current state is {row.lifecycle_stage}."
        )
    await queue.mark_behind(connection, key)
    return RunWrite(key, named, row.seq, row.experiment_id, row.artifact_uri)

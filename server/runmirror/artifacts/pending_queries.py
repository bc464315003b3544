"""All SQL of files that clients were given a URL to upload to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.artifacts.places import Place

FIRST_CHECK = timedelta(seconds=5)
GRACE = timedelta(days=1)  # Azure looks at the time when an upload begins, so it may end long after
_RETRY = timedelta(minutes=1)

# A second URL for the same file prolongs the first one's watch.
_ADD = text("""
    INSERT INTO pending_uploads (run_id, model_id, path, issued_at, check_at, last_check_at)
    VALUES (:run_id, :model_id, :path, now(), now() + :first, now() + :watch)
    ON CONFLICT (run_id, model_id, path) DO UPDATE
    SET issued_at = now(), check_at = excluded.check_at,
        last_check_at = greatest(pending_uploads.last_check_at, excluded.last_check_at)
""")

# The pauses double, and end with the last check, which is repeated until it has been made.
_CLAIM = text("""
    WITH due AS (
        SELECT run_id, model_id, path FROM pending_uploads WHERE check_at <= now()
        ORDER BY check_at LIMIT :most FOR UPDATE SKIP LOCKED)
    UPDATE pending_uploads AS pending
    SET check_at = CASE WHEN now() < last_check_at
        THEN least(last_check_at, now() + greatest(now() - issued_at, :first)) ELSE now() + :retry END
    FROM due WHERE (pending.run_id, pending.model_id, pending.path) = (due.run_id, due.model_id, due.path)
    RETURNING pending.run_id, pending.model_id, pending.path, last_check_at, now() >= last_check_at AS is_last
""")

_REMOVE = text("""
    DELETE FROM pending_uploads
    WHERE run_id = :run_id AND model_id = :model_id AND path = :path AND last_check_at = :last_check_at
""")


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that may have been uploaded; `is_last`: its URL can no more be in use."""

    run_id: UUID
    model_id: str
    path: str
    last_check_at: datetime
    is_last: bool


async def add(connection: AsyncConnection, place: Place, lifetime: timedelta) -> None:
    """Note that a URL valid for `lifetime` is about to be given out."""
    key = {"run_id": place.root.run_id, "model_id": place.root.model_id, "path": place.path}
    await connection.execute(_ADD, {**key, "first": FIRST_CHECK, "watch": lifetime + GRACE})


async def claim(connection: AsyncConnection, most: int) -> Sequence[Pending]:
    """Files to look at now; each comes up again later, so a crash loses none."""
    found = await connection.execute(_CLAIM, {"most": most, "first": FIRST_CHECK, "retry": _RETRY})
    return [Pending(*row) for row in found]


async def remove(connection: AsyncConnection, pending: Pending) -> None:
    """Stop watching, unless another URL was given out meanwhile."""
    key = {"run_id": pending.run_id, "model_id": pending.model_id, "path": pending.path}
    await connection.execute(_REMOVE, {**key, "last_check_at": pending.last_check_at})

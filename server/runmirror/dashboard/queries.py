"""What the pages show, beside `mirror.overview`."""

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth.clauses import experiment_is_readable, readers_values

_NONE, _LAST = UUID(int=0), UUID(int=2**128 - 1)
_DIGITS = re.compile(r"[0-9a-f]{1,32}\Z")
_LIKE = re.compile(r"[\\%_]")


@dataclass(frozen=True, slots=True)
class Minute:
    """`lag_s` is None when no worker was there to look."""

    minute: datetime
    lag_s: float | None
    runs_per_min: float
    points_per_s: float
    bytes_per_s: float
    throttles: int
    outages: int


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in a list."""

    run_id: UUID
    name: str
    experiment: str
    state: str
    partial: bool
    behind_s: float | None
    last_error: str | None
    last_error_at: datetime | None
    due_at: datetime
    portal_url: str | None


# A minute that is not over has had fewer seconds.
_LAST_HOUR = text("""
    SELECT clock.minute, lag_s, sent.runs * 60 / seconds, sent.points / seconds, sent.bytes / seconds,
        throttles, outages
    FROM (
            SELECT minute, GREATEST(LEAST(extract(epoch FROM now() - minute), 60), 1)::double precision AS seconds
            FROM generate_series(date_trunc('minute', now()) - interval '59 minutes', now(), '1 minute')
                AS minutes (minute)) AS clock
        LEFT JOIN mirror_lag ON mirror_lag.minute = clock.minute
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum(runs), 0)::double precision AS runs,
                COALESCE(sum(points), 0)::double precision AS points,
                COALESCE(sum(bytes), 0)::double precision AS bytes,
                COALESCE(sum(throttles), 0)::bigint AS throttles, COALESCE(sum(outages), 0)::bigint AS outages
            FROM mirror_throughput WHERE mirror_throughput.minute = clock.minute) AS sent
    ORDER BY clock.minute
""")

_LINE = """
    SELECT run_id, runs.name, experiments.name AS experiment, state, partial,
        extract(epoch FROM now() - behind_since)::double precision AS behind_s, last_error, last_error_at, due_at,
        portal_url
    FROM mirrors JOIN runs USING (run_id) JOIN experiments USING (experiment_id)
"""

_TROUBLED = text(f"""
    {_LINE}
    WHERE behind_since IS NOT NULL AND (state = 'quarantined' OR (state = 'due' AND last_error IS NOT NULL))
    ORDER BY state DESC, last_error_at DESC NULLS LAST LIMIT :most
""")

_STATES = {
    "": "true",
    "behind": "behind_since IS NOT NULL AND state <> 'quarantined'",
    "failing": "behind_since IS NOT NULL AND state = 'due' AND last_error IS NOT NULL",
    "quarantined": "behind_since IS NOT NULL AND state = 'quarantined'",
    "partial": "partial AND state = 'current'",
    "mirrored": "NOT partial AND state = 'current'",
    "unrouted": "behind_since IS NOT NULL AND link_id IS NULL AND unrouted IS NULL",
    "off": "state = 'off'",
}
STATES = tuple(_STATES)

# Ids grow with time, so the newest runs come first, and a page goes on where the one before ended.
_RUNS = {
    state: text(f"""
        {_LINE}
        WHERE {condition} AND {experiment_is_readable("experiment_id")}
            AND run_id BETWEEN :first AND :last AND run_id <> :after
            AND (:wanted = '' OR run_id BETWEEN :id_from AND :id_to OR runs.name ILIKE :pattern
                OR experiment_id = ANY (SELECT experiment_id FROM experiments WHERE name ILIKE :pattern))
        ORDER BY run_id DESC LIMIT :most
    """)
    for state, condition in _STATES.items()
}


async def last_hour(connection: AsyncConnection) -> list[Minute]:
    """Sixty minutes, the current one last."""
    return [Minute(*row) for row in await connection.execute(_LAST_HOUR)]


async def troubled(connection: AsyncConnection, most: int) -> list[RunLine]:
    """Runs that were set aside, then those that failed and are tried again; the latest failure first."""
    return [RunLine(*row) for row in await connection.execute(_TROUBLED, {"most": most})]


async def runs(connection: AsyncConnection, *, wanted: str, state: str, after: UUID | None, most: int) -> list[RunLine]:
    """Runs in a state of `STATES` whose name or experiment's name contains `wanted`, or whose id begins with it."""
    id_from, id_to = _ids_beginning_with(wanted.lower().replace("-", ""))
    values = {
        "wanted": wanted, "pattern": f"%{_LIKE.sub(_escaped, wanted)}%", "id_from": id_from, "id_to": id_to,
        "first": _NONE, "last": after or _LAST, "after": after or _NONE, "most": most,
        **readers_values(),
    }  # fmt: skip
    if id_from == id_to:
        # A whole id is found by the index, where a part of a name makes Postgres look at one run after the other.
        the_run = {"first": id_from, "last": id_to}
        if found := [RunLine(*row) for row in await connection.execute(_RUNS[state], values | the_run)]:
            return found
    return [RunLine(*row) for row in await connection.execute(_RUNS[state], values)]


def _ids_beginning_with(digits: str) -> tuple[UUID, UUID]:
    """The least and the greatest; what begins no id is between none."""
    if not _DIGITS.match(digits):
        return _LAST, _NONE
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def _escaped(special: re.Match[str]) -> str:
    return "\\" + special[0]

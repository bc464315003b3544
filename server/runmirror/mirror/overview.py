"""The mirror at one glance, in one statement: what the dashboard shows and /metrics counts."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.pulse import BEHIND, EVERY_S

ALIVE_FOR = timedelta(seconds=4 * EVERY_S)  # a worker that is silent for longer is gone

# Upper bounds of the ages by which the backlog is shown; what is older than the last one comes after it.
AGES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2), timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Linked:
    """A linked workspace, and what was last heard of it."""

    name: str
    workspace_id: str
    portal_base: str | None
    linked_at: datetime
    last_contact_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None

    @property
    def studio(self) -> str | None:
        return web_address(self.portal_base)


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker, and when it last gave a sign of life."""

    name: str
    version: str
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Overview:
    """`oldest_due_s`: for how long the run that nobody has taken yet could have been taken.

    `backlog` counts the runs behind by `AGES`; quarantined ones are counted apart. `points`, `bytes`, `runs` and
    `overflowed` are all that was ever mirrored, `throttles` and `outages` all attempts that the workspace
    throttled, or could not be used for.
    """

    now: datetime
    linked: tuple[Linked, ...]
    workers: tuple[WorkerSeen, ...]
    due: int
    leased: int
    quarantined: int
    failing: int
    partial: int
    lag_s: float
    oldest_due_s: float
    backlog: tuple[int, ...]
    points: int
    bytes: int
    runs: int
    overflowed: int
    throttles: int
    outages: int
    learned_limits: dict[str, int]

    @property
    def alive(self) -> int:
        """How many workers gave a sign of life lately."""
        return sum(map(self.is_alive, self.workers))

    def is_alive(self, worker: WorkerSeen) -> bool:
        return self.now - worker.seen_at <= ALIVE_FOR

    @property
    def behind(self) -> int:
        return self.due + self.leased


def _behind_for(least: timedelta | None, most: timedelta | None) -> str:
    """How many have been behind for so long: moments are compared, which costs less than to reckon with ages."""
    bounds = [] if least is None else [f"behind_since <= now() - interval '{least.total_seconds()} seconds'"]
    bounds += [] if most is None else [f"behind_since > now() - interval '{most.total_seconds()} seconds'"]
    return f"count(*) FILTER (WHERE state <> 'quarantined' AND {' AND '.join(bounds)})"


_BACKLOG = ", ".join(_behind_for(least, most) for least, most in zip((None, *AGES), (*AGES, None), strict=True))

_OVERVIEW = text(f"""
    SELECT now(), behind.*, total.*, (SELECT count(*) FROM mirrors WHERE partial) AS partial,
        (SELECT jsonb_object_agg(name, value) FROM (
            SELECT name, min(value) AS value FROM mirror_limits GROUP BY name) AS tightest) AS learned_limits,
        (SELECT json_agg(json_build_array(
            name, workspace_id, portal_base, linked_at, last_contact_at, last_error, last_error_at)
            ORDER BY position, link_id)
            FROM mirror_links) AS linked,
        (SELECT json_agg(json_build_array(name, version, started_at, seen_at) ORDER BY started_at)
            FROM mirror_workers) AS workers
    FROM (
            SELECT count(*) FILTER (WHERE state = 'due') AS due, count(*) FILTER (WHERE state = 'leased') AS leased,
                count(*) FILTER (WHERE state = 'quarantined') AS quarantined,
                count(*) FILTER (WHERE state = 'due' AND last_error IS NOT NULL) AS failing,
                COALESCE(extract(epoch FROM now() - min(behind_since) FILTER (WHERE state <> 'quarantined')), 0)
                    AS lag_s,
                GREATEST(extract(epoch FROM now() - min(due_at) FILTER (WHERE state = 'due')), 0) AS oldest_due_s,
                ARRAY[{_BACKLOG}] AS backlog
            FROM mirrors WHERE {BEHIND}) AS behind
        CROSS JOIN (
            SELECT COALESCE(sum(points), 0)::bigint AS points, COALESCE(sum(bytes), 0)::bigint AS bytes,
                COALESCE(sum(runs), 0)::bigint AS runs, COALESCE(sum(overflowed), 0)::bigint AS overflowed,
                COALESCE(sum(throttles), 0)::bigint AS throttles, COALESCE(sum(outages), 0)::bigint AS outages
            FROM mirror_throughput) AS total
""").columns(learned_limits=JSONB)  # noqa: S608 - constants of ours


async def overview(connection: AsyncConnection) -> Overview:
    """The mirror as it is now, by the database's clock."""
    row = (await connection.execute(_OVERVIEW)).one()
    return Overview(
        now=row.now,
        linked=tuple(_linked(*link) for link in row.linked or ()),
        workers=tuple(_worker(*worker) for worker in row.workers or ()),
        due=row.due,
        leased=row.leased,
        quarantined=row.quarantined,
        failing=row.failing,
        partial=row.partial,
        lag_s=float(row.lag_s),
        oldest_due_s=float(row.oldest_due_s),
        backlog=tuple(row.backlog),
        points=row.points,
        bytes=row.bytes,
        runs=row.runs,
        overflowed=row.overflowed,
        throttles=row.throttles,
        outages=row.outages,
        learned_limits=row.learned_limits or {},
    )


def web_address(url: str | None) -> str | None:
    """An address that may stand in a link: what is not https would be a surprise."""
    return url if url and urlsplit(url).scheme == "https" else None


def _linked(
    name: str, workspace_id: str, portal: str | None, linked: str, contact: str | None, *failure: str | None
) -> Linked:
    error, error_at = failure
    return Linked(name, workspace_id, portal, _time(linked), _time_or_none(contact), error, _time_or_none(error_at))


def _worker(name: str, version: str, started: str, seen: str) -> WorkerSeen:
    return WorkerSeen(name, version, _time(started), _time(seen))


def _time(written: str) -> datetime:
    return datetime.fromisoformat(written)


def _time_or_none(written: str | None) -> datetime | None:
    return None if written is None else _time(written)

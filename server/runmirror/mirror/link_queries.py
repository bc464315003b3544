"""SQL of the linked workspaces. A row's workspace never changes: linking another one is another row."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror import destinations
from runmirror.mirror.queue import CHANNEL


@dataclass(frozen=True, slots=True)
class Link:
    """`tracking_uri` and `portal_base` once they are known: with them Resource Manager is not asked again.

    `experiments` are patterns; a run that no pattern of any link fits goes to the default one.
    """

    workspace_id: str
    tracking_uri: str | None = None
    portal_base: str | None = None
    link_id: int = 0
    name: str = ""
    experiments: tuple[str, ...] = ()
    is_default: bool = True

    @property
    def own_name(self) -> str:
        """That of the workspace."""
        return self.workspace_id.rpartition("/")[2]


_PATTERNS = bindparam("experiments", type_=ARRAY(Text))

# Whoever changes links takes turns.
_TURN = text("SELECT pg_advisory_xact_lock(hashtext('runmirror.mirror_links'))")

_READ = text("""
    SELECT workspace_id, tracking_uri, portal_base, link_id, name, experiments, is_default
    FROM mirror_links ORDER BY position, link_id
""")

_ADD = text("""
    INSERT INTO mirror_links (workspace_id, tracking_uri, portal_base, name, experiments, is_default, position)
    SELECT :workspace_id, :tracking_uri, :portal_base, :name, :experiments, :is_default, COALESCE(max(position), 0) + 1
    FROM mirror_links RETURNING link_id
""").bindparams(_PATTERNS)

_CHANGE = text("""
    UPDATE mirror_links SET name = :name, experiments = :experiments, is_default = :is_default WHERE link_id = :link_id
""").bindparams(_PATTERNS)

_RESOLVED = text("""
    UPDATE mirror_links SET tracking_uri = :tracking_uri, portal_base = :portal_base WHERE link_id = :link_id
""")

_NO_DEFAULT = text("UPDATE mirror_links SET is_default = false WHERE is_default")

_REMOVE = text("DELETE FROM mirror_links WHERE link_id = :link_id")
_FORGET_LIMITS = text("DELETE FROM mirror_limits WHERE link_id = :link_id")
_FORGET_EXPERIMENTS = text("DELETE FROM mirrored_experiments WHERE link_id = :link_id")

_COUNT_BEHIND = text("""
    SELECT count(*) FROM mirrors
    WHERE state <> 'off' AND (
        behind_since IS NOT NULL OR unrouted IS NOT NULL
        OR NOT EXISTS (SELECT FROM mirror_links WHERE mirror_links.link_id = mirrors.link_id))
""")

_NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', '')")

_PUT_BEHIND = text(f"""
    WITH asked AS (
        UPDATE mirrors SET backfill = true
        WHERE state = 'due' AND NOT backfill AND run_id IN (
            SELECT run_id FROM runs JOIN experiments USING (experiment_id)
            WHERE start_time_ms >= COALESCE(CAST(:since_ms AS bigint), start_time_ms)
                AND (CAST(:experiment AS text) IS NULL
                    OR experiments.name = :experiment OR CAST(experiment_id AS text) = :experiment))
        RETURNING run_id),
    told AS (SELECT pg_notify('{CHANNEL}', '') FROM asked LIMIT 1)
    SELECT count(*) FROM asked LEFT JOIN told ON true
""")


async def begin_changes(connection: AsyncConnection) -> Sequence[Link]:
    """The links, which nobody else changes until this transaction ends."""
    await connection.execute(_TURN)
    return await read_links(connection)


async def read_links(connection: AsyncConnection) -> Sequence[Link]:
    """In the order of their routes."""
    rows = await connection.execute(_READ)
    return [
        Link(row.workspace_id, row.tracking_uri, row.portal_base, row.link_id, row.name, tuple(row.experiments),
             row.is_default)
        for row in rows
    ]  # fmt: skip


async def add(connection: AsyncConnection, link: Link) -> int:
    """A new link, whose patterns come after the others'; if it is the default one, no other is any more."""
    await _only_default(connection, link)
    values = _values(link) | {"workspace_id": link.workspace_id}
    values |= {"tracking_uri": link.tracking_uri, "portal_base": link.portal_base}
    link_id: int = (await connection.execute(_ADD, values)).scalar_one()
    await _changed(connection)
    return link_id


async def change(connection: AsyncConnection, link: Link) -> None:
    """Another name, other patterns, default or not."""
    await _only_default(connection, link)
    await connection.execute(_CHANGE, _values(link) | {"link_id": link.link_id})
    await _changed(connection)


async def remove(connection: AsyncConnection, link_id: int) -> None:
    """Its runs are routed anew; what stands in the workspace stays there."""
    for statement in (_REMOVE, _FORGET_LIMITS, _FORGET_EXPERIMENTS):
        await connection.execute(statement, {"link_id": link_id})
    await _changed(connection)


async def save_resolution(connection: AsyncConnection, link: Link) -> None:
    """Keep the addresses of a linked workspace."""
    values = {"link_id": link.link_id, "tracking_uri": link.tracking_uri, "portal_base": link.portal_base}
    await connection.execute(_RESOLVED, values)


async def count_behind(connection: AsyncConnection) -> int:
    """Runs that are, or may turn out to be, behind."""
    return int(await connection.scalar(_COUNT_BEHIND) or 0)


async def put_behind(connection: AsyncConnection, *, experiment: str | None, since_ms: int | None) -> int:
    """Let runs that wait be mirrored as the past, until they are written again; how many that concerns."""
    return int(await connection.scalar(_PUT_BEHIND, {"experiment": experiment, "since_ms": since_ms}) or 0)


async def _only_default(connection: AsyncConnection, link: Link) -> None:
    if link.is_default:
        await connection.execute(_NO_DEFAULT)


async def _changed(connection: AsyncConnection) -> None:
    await destinations.reroute_all(connection)
    await connection.execute(_NOTIFY)


def _values(link: Link) -> dict[str, object]:
    return {
        "name": link.name or link.own_name, "experiments": list(link.experiments), "is_default": link.is_default,
    }  # fmt: skip

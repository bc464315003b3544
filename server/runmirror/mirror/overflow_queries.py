"""SQL of what does not fit: who has a place, what was decided, what the target was heard to refuse."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.leftovers import Changes
from runmirror.mirror.limits import Limits
from runmirror.mirror.overflow import Held, Overflowing, Translation, too_long_tag
from runmirror.mirror.queries import Page

_OVERFLOWING = text("SELECT kind, key, from_seq FROM mirror_overflows WHERE run_id = :run_id")

# What went to the file once does not come back: it leaves its place to the next.
_OUT = "EXISTS (SELECT FROM mirror_overflows o WHERE o.run_id = :run_id AND o.kind = '{}' AND o.key = {})"

_PARAMS = text(f"""
    SELECT key FROM params p
    WHERE run_id = :run_id AND length(key) <= :longest_key AND length(value) <= :longest_value
        AND NOT {_OUT.format("param", "p.key")}
    ORDER BY seq, key LIMIT :most
""")

# The numbers of a run's metrics are in the order of their first writes.
_METRICS = text(f"""
    SELECT key FROM latest_metrics m
    WHERE run_id = :run_id AND length(key) <= :longest_key AND NOT {_OUT.format("metric", "m.key")}
    ORDER BY metric_id LIMIT :most
""")

_INPUTS = text(f"""
    SELECT replace(CAST(dataset_id AS text), '-', '') FROM dataset_inputs i JOIN datasets d USING (dataset_id)
    WHERE run_id = :run_id AND NOT {_OUT.format("dataset", "replace(CAST(i.dataset_id AS text), '-', '')")}
    ORDER BY i.seq, d.name, d.digest LIMIT :most
""")

_COUNT_TAGS = text("""
    SELECT count(*) FROM tags WHERE run_id = :run_id AND value IS NOT NULL AND NOT starts_with(key, 'runmirror.')
""")

_KINDS, _KEYS = bindparam("kinds", type_=ARRAY(Text)), bindparam("keys", type_=ARRAY(Text))

_REMOVE = text("""
    DELETE FROM mirror_overflows o USING unnest(:kinds, :keys) AS g (kind, key)
    WHERE o.run_id = :run_id AND o.kind = g.kind AND o.key = g.key
""").bindparams(_KINDS, _KEYS)

_ADD = text("""
    INSERT INTO mirror_overflows (run_id, kind, key, from_seq, reason)
    SELECT :run_id, kind, key, from_seq, reason FROM unnest(:kinds, :keys, :seqs, :reasons)
        AS g (kind, key, from_seq, reason)
    ON CONFLICT (run_id, kind, key) DO UPDATE SET from_seq = LEAST(mirror_overflows.from_seq, excluded.from_seq)
""").bindparams(
    _KINDS, _KEYS, bindparam("seqs", type_=ARRAY(Integer)), bindparam("reasons", type_=ARRAY(Text))
)  # fmt: skip

_LEARNED = text("SELECT name, value FROM mirror_limits WHERE link_id = :link_id")

_LEARN = text("""
    INSERT INTO mirror_limits (link_id, name, value) VALUES (:link_id, :name, :value)
    ON CONFLICT (link_id, name) DO UPDATE SET value = excluded.value, learned_at = now()
    WHERE excluded.value < mirror_limits.value
""")

_REPORT = text("""
    SELECT kind, key, from_seq, reason FROM mirror_overflows
    WHERE run_id = :run_id ORDER BY kind, from_seq, key LIMIT :most
""")

_COUNTS = text("""
    SELECT kind, count(*) AS number FROM mirror_overflows WHERE run_id = :run_id GROUP BY kind ORDER BY kind
""")


@dataclass(frozen=True, slots=True)
class Report:
    """What of a run is in its overflow file: how many of each kind, and the first of them one by one."""

    counts: dict[str, int]
    first: tuple[Overflowing, ...]


async def decided(connection: AsyncConnection, run_id: UUID) -> dict[tuple[str, str], int]:
    """Everything of a run that goes to its file: kind and key, and the write from which on."""
    rows = await connection.execute(_OVERFLOWING, {"run_id": run_id})
    return {(row.kind, row.key): row.from_seq for row in rows}


async def read_held(connection: AsyncConnection, page: Page, limits: Limits) -> Held:
    """What is decided of the run, and who has a place, for the kinds that the page holds."""
    run: dict[str, object] = {"run_id": page.source.run_id}
    held = Held(
        await decided(connection, page.source.run_id),
        points=page.source.overflow.points,
        points_upto=page.source.overflow.points_upto,
    )
    lengths = {"longest_key": limits.param_key, "longest_value": limits.param_value, "most": limits.params}
    params = await connection.scalars(_PARAMS, run | lengths) if page.params else ()
    lengths = {"longest_key": limits.metric_key, "most": limits.metrics}
    metrics = await connection.scalars(_METRICS, run | lengths) if page.points else ()
    inputs = await connection.scalars(_INPUTS, run | {"most": limits.inputs}) if page.inputs else ()
    return Held(
        held.overflowing, frozenset(params), frozenset(metrics), frozenset(inputs), held.points, held.points_upto
    )  # fmt: skip


async def may_exceed_tags(connection: AsyncConnection, page: Page, limits: Limits, reserved: int) -> bool:
    """Whether it has to be known which tags stand in the target to tell which of the page's can."""
    if not page.tags:
        return False
    if any(too_long_tag(tag, page, limits) for tag in page.tags):
        return True
    return (await connection.scalar(_COUNT_TAGS, {"run_id": page.source.run_id}) or 0) + reserved > limits.tags


async def record(connection: AsyncConnection, run_id: UUID, translation: Translation) -> None:
    """Write the decisions down; the caller holds the lease."""
    await record_changes(connection, run_id, Changes(translation.added, translation.removed))


async def record_changes(connection: AsyncConnection, run_id: UUID, changes: Changes) -> None:
    """The same for what was decided otherwise."""
    if changes.removed:
        kinds, keys = zip(*changes.removed, strict=True)
        await connection.execute(_REMOVE, {"run_id": run_id, "kinds": list(kinds), "keys": list(keys)})
    if changes.added:
        columns = {
            "kinds": [entry.kind for entry in changes.added],
            "keys": [entry.key for entry in changes.added],
            "seqs": [entry.from_seq for entry in changes.added],
            "reasons": [entry.reason for entry in changes.added],
        }
        await connection.execute(_ADD, {"run_id": run_id, **columns})


async def learned_limits(connection: AsyncConnection, link_id: int) -> dict[str, int]:
    return {row.name: row.value for row in await connection.execute(_LEARNED, {"link_id": link_id})}


async def learn_limit(connection: AsyncConnection, link_id: int, name: str, value: int) -> None:
    """Remember a limit of a linked workspace; of two, the tighter."""
    await connection.execute(_LEARN, {"link_id": link_id, "name": name, "value": value})


async def report(connection: AsyncConnection, run_id: UUID, most: int) -> Report:
    counts = await connection.execute(_COUNTS, {"run_id": run_id})
    first = await connection.execute(_REPORT, {"run_id": run_id, "most": most})
    return Report({row.kind: row.number for row in counts}, tuple(Overflowing(*row) for row in first))

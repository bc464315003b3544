"""SQL of what does not fit: who has a place, what was decided, what the target was heard to refuse."""

import json
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import Metric
from runmirror.mirror.leftovers import Changes
from runmirror.mirror.limits import Limits
from runmirror.mirror.overflow import Held, Overflowing, Translation, too_long_tag
from runmirror.mirror.queries import IS_THING, Page

_SINCE = "_since"

_DIVIDED = text("""
    SELECT replace(kind, '_since', '') AS kind, key, from_seq, reason FROM mirror_overflows
    WHERE run_id = :run_id AND kind IN ('points_since', 'nan_since')
""")

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

_OVERFLOWING = text("SELECT kind, key, from_seq FROM mirror_overflows WHERE run_id = :run_id")

_LEARN = text("""
    INSERT INTO mirror_limits (link_id, name, value) VALUES (:link_id, :name, :value)
    ON CONFLICT (link_id, name) DO UPDATE SET value = excluded.value, learned_at = now()
    WHERE excluded.value < mirror_limits.value
""")

_REPORT = text(f"""
    SELECT kind, key, from_seq, reason FROM mirror_overflows
    WHERE run_id = :run_id AND {IS_THING} ORDER BY kind, from_seq, key LIMIT :most
""")

_COUNTS = text(f"""
    SELECT kind, count(*) AS number FROM mirror_overflows WHERE run_id = :run_id AND {IS_THING}
    GROUP BY kind ORDER BY kind
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
    """What is decided of the run, and who has a place, for the kinds that the page holds.

    Where a run has no more of a kind than the target takes, everything has a place, and nothing is asked.
    """
    run: dict[str, object] = {"run_id": page.source.run_id}
    held, params, metrics, inputs = page.held, set[str](), set[str](), set[str]()
    if held.params <= limits.params:
        params.update(param.key for param in page.params)
    elif page.params:
        lengths = {"longest_key": limits.param_key, "longest_value": limits.param_value, "most": limits.params}
        params.update(await connection.scalars(_PARAMS, run | lengths))
    if held.metrics <= limits.metrics:
        metrics.update(point.metric.key for point in page.points)
    elif page.points:
        lengths = {"longest_key": limits.metric_key, "most": limits.metrics}
        metrics.update(await connection.scalars(_METRICS, run | lengths))
    if held.inputs <= limits.inputs:
        inputs.update(given.dataset_id for given in page.inputs)
    elif page.inputs:
        inputs.update(await connection.scalars(_INPUTS, run | {"most": limits.inputs}))
    counted = page.source.overflow
    return Held(page.overflowing, params, metrics, inputs, counted.points, counted.points_upto)


def may_exceed_tags(page: Page, limits: Limits, reserved: int) -> bool:
    """Whether it has to be known which tags stand in the target to tell which of the page's can."""
    if not page.tags:
        return False
    if any(too_long_tag(tag, page, limits) for tag in page.tags):
        return True
    return page.held.tags + reserved > limits.tags


async def record(connection: AsyncConnection, run_id: UUID, translation: Translation) -> None:
    """Write the decisions down; the caller holds the lease."""
    await record_changes(connection, run_id, Changes(translation.added, translation.removed))


async def record_changes(connection: AsyncConnection, run_id: UUID, changes: Changes) -> None:
    """The same for what was decided otherwise."""
    if changes.removed:
        gone = {"kinds": [kind for kind, _ in changes.removed], "keys": [key for _, key in changes.removed]}
        await connection.execute(_REMOVE, {"run_id": run_id, **gone})
    if changes.added:
        rows: list[tuple[str, str, int, str]] = [
            (entry.kind, entry.key, entry.from_seq, entry.reason) for entry in changes.added
        ]
        rows += [
            (f"{entry.kind}{_SINCE}", entry.key, entry.from_seq, _place(entry.since))
            for entry in changes.added
            if entry.since is not None
        ]
        kinds, keys, seqs, reasons = map(list, zip(*rows, strict=True))
        columns = {"kinds": kinds, "keys": keys, "seqs": seqs, "reasons": reasons}
        await connection.execute(_ADD, {"run_id": run_id, **columns})


async def divided(connection: AsyncConnection, run_id: UUID) -> dict[tuple[str, str, int], tuple[int, int, float]]:
    """Writes whose points are divided, by kind, key and number: the step, time and value of the first in the file."""
    found = {}
    for row in await connection.execute(_DIVIDED, {"run_id": run_id}):
        step, timestamp_ms, value = json.loads(row.reason)
        found[row.kind, row.key, row.from_seq] = step, timestamp_ms, float(value)
    return found


def _place(metric: Metric) -> str:
    """Where a point stands among those of its metric in one write."""
    return json.dumps([metric.step, metric.timestamp_ms, repr(metric.value)])


async def learn_limit(connection: AsyncConnection, link_id: int, name: str, value: int) -> None:
    """Remember a limit of a linked workspace; of two, the tighter."""
    await connection.execute(_LEARN, {"link_id": link_id, "name": name, "value": value})


async def report(connection: AsyncConnection, run_id: UUID, most: int) -> Report:
    counts = await connection.execute(_COUNTS, {"run_id": run_id})
    first = await connection.execute(_REPORT, {"run_id": run_id, "most": most})
    return Report({row.kind: row.number for row in counts}, tuple(Overflowing(*row) for row in first))

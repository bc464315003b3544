"""SQL of verification: which runs, what was found, and what is sent again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.own_tags import STATUS_TAG
from runmirror.mirror.queue import CHANNEL
from runmirror.mirror.verify.differences import STATE, Kind
from runmirror.mirror.verify.verdicts import Outcome, Verdict

REPAIRING = "repairing"
_MOST_KEPT = 100
_LONGEST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Record:
    """What was last found of a run."""

    verified_at: datetime
    verdict: str
    differences: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Summary:
    """`runs_verified` counts the last day; `runs_different` all that are so still, as far as is known."""

    runs_verified: int
    runs_different: int
    last_verified_at: datetime | None


_EXPERIMENTS = text("""
    SELECT experiment_id FROM experiments
    WHERE name = :wanted OR CAST(experiment_id AS text) = :wanted
    ORDER BY name = :wanted DESC LIMIT 1
""")

_COUNT = text("""
    SELECT count(*) FROM runs JOIN mirrors USING (run_id)
    WHERE run_id > :after AND state <> 'off'
        AND (CAST(:experiment_id AS bigint) IS NULL OR experiment_id = :experiment_id)
""")

_PAGE = text("""
    SELECT run_id FROM runs JOIN mirrors USING (run_id)
    WHERE run_id > :after AND state <> 'off'
        AND (CAST(:experiment_id AS bigint) IS NULL OR experiment_id = :experiment_id)
    ORDER BY run_id LIMIT :most
""")

# The newest of those that were never verified (or were sent again since), then the one verified longest ago.
_SAMPLE = text(f"""
    WITH fresh AS (
        SELECT m.run_id FROM mirrors m
        WHERE state = 'current' AND NOT EXISTS (
            SELECT FROM mirror_verifications v WHERE v.run_id = m.run_id AND v.verdict <> '{REPAIRING}')
        ORDER BY m.run_id DESC LIMIT :most),
    old AS (
        SELECT v.run_id FROM mirror_verifications v JOIN mirrors m USING (run_id)
        WHERE m.state = 'current' AND v.verdict <> '{REPAIRING}'
        ORDER BY v.verified_at, v.run_id LIMIT :most)
    (SELECT run_id FROM fresh) UNION ALL (SELECT run_id FROM old) LIMIT :most
""")  # noqa: S608 - a constant of ours

# The first time only starts the clock: a worker that has just begun has other things to do.
_CLAIM_ROUND = text("""
    WITH link AS (SELECT link_id, sampled_at FROM mirror_links ORDER BY link_id LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE mirror_links SET sampled_at = now() FROM link
    WHERE mirror_links.link_id = link.link_id
        AND (link.sampled_at IS NULL OR link.sampled_at <= now() - CAST(:every AS interval))
    RETURNING link.sampled_at IS NOT NULL
""")

_SAVE = text("""
    INSERT INTO mirror_verifications (run_id, verified_at, verdict, differences)
    SELECT run_id, now(), verdict, CAST(differences AS jsonb)
    FROM unnest(CAST(:run_ids AS uuid[]), CAST(:verdicts AS text[]), CAST(:differences AS text[]))
        AS new (run_id, verdict, differences)
    ORDER BY run_id
    ON CONFLICT (run_id) DO UPDATE SET
        verified_at = excluded.verified_at, verdict = excluded.verdict, differences = excluded.differences
""")

_OF_RUN = text("SELECT verified_at, verdict, differences FROM mirror_verifications WHERE run_id = :run_id")

_SUMMARY = text("""
    SELECT (SELECT count(*) FROM mirror_verifications WHERE verified_at > now() - interval '1 day'),
        (SELECT count(*) FROM mirror_verifications WHERE verdict = 'different'),
        (SELECT max(verified_at) FROM mirror_verifications)
""")

# Fenced by the stand that was judged. `sent_upto` keeps saying how far the copy may be: the worker reads back what is
# there of it, and sends the rest. What goes to the overflow file stays decided, but for tags: they are decided anew
# with every write, so the file, if there is one, is made again.
_REPAIR = text(f"""
    WITH woken AS (
        UPDATE mirrors SET
            state = 'due', due_at = now(), behind_since = now(), attempt = 0,
            sent_upto = CASE WHEN :anew THEN 0 ELSE GREATEST(sent_upto, watermark) END,
            watermark = LEAST(watermark, :upto),
            info_watermark = CASE WHEN :with_state THEN 0 ELSE info_watermark END,
            remote_experiment_id = CASE WHEN :anew THEN NULL ELSE remote_experiment_id END,
            remote_run_id = CASE WHEN :anew THEN NULL ELSE remote_run_id END,
            waiting = false, overflow_told = 0, overflow_at = NULL,
            overflow_seq = CASE WHEN :with_overflow THEN GREATEST(overflow_seq, 1) ELSE overflow_seq END
        WHERE run_id = :run_id AND state = 'current' AND watermark = :watermark
            AND mirrored_at IS NOT DISTINCT FROM CAST(:mirrored_at AS timestamptz)
        RETURNING run_id),
    forgotten AS (
        DELETE FROM mirrored_experiments USING runs, woken
        WHERE :without_home AND runs.run_id = woken.run_id
            AND mirrored_experiments.experiment_id = runs.experiment_id
            AND mirrored_experiments.remote_experiment_id = :remote_experiment_id),
    shown AS (
        UPDATE tags SET value = 'pending' FROM woken
        WHERE tags.run_id = woken.run_id AND tags.key = '{STATUS_TAG}' AND tags.seq = 0),
    noted AS (
        UPDATE mirror_verifications SET verdict = '{REPAIRING}' FROM woken
        WHERE mirror_verifications.run_id = woken.run_id)
    SELECT pg_notify('{CHANNEL}', '') FROM woken
""")  # noqa: S608 - constants of ours


async def experiment_id(connection: AsyncConnection, wanted: str) -> int | None:
    """By name, else by id."""
    found: int | None = await connection.scalar(_EXPERIMENTS, {"wanted": wanted})
    return found


async def count_runs(connection: AsyncConnection, *, experiment_id: int | None, after: UUID) -> int:
    return int(await connection.scalar(_COUNT, {"experiment_id": experiment_id, "after": after}) or 0)


async def page_of_runs(
    connection: AsyncConnection, *, experiment_id: int | None, after: UUID, most: int
) -> list[UUID]:  # fmt: skip
    """The next runs, oldest first."""
    wanted = {"experiment_id": experiment_id, "after": after, "most": most}
    return list(await connection.scalars(_PAGE, wanted))


async def sample(connection: AsyncConnection, most: int) -> list[UUID]:
    """Runs whose copy should be complete: those never verified first, the newest first, then the longest ago."""
    return list(await connection.scalars(_SAMPLE, {"most": most}))


async def claim_round(connection: AsyncConnection, every: timedelta) -> bool:
    """Whether it is time for a round, and ours to make: of all workers one is told so."""
    return bool(await connection.scalar(_CLAIM_ROUND, {"every": every}))


async def save(connection: AsyncConnection, verdicts: Sequence[Verdict]) -> None:
    """Keep what was found; a run about which nothing can be said keeps what was found before."""
    found = [verdict for verdict in verdicts if verdict.outcome in {Outcome.EQUAL, Outcome.DIFFERENT}]
    if not found:
        return
    differences = [json.dumps(_storable(verdict.as_json()["differences"][:_MOST_KEPT])) for verdict in found]
    await connection.execute(
        _SAVE,
        {
            "run_ids": [verdict.run_id for verdict in found],
            "verdicts": [verdict.outcome.value for verdict in found],
            "differences": differences,
        },
    )


def _storable(value: Any) -> Any:
    """Postgres keeps neither NUL nor half a surrogate pair, and we no endless text."""
    match value:
        case str():
            kept = value if len(value) <= _LONGEST_KEPT else f"{value[:_LONGEST_KEPT]}…"
            return kept.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
        case list():
            return [_storable(part) for part in value]
        case dict():
            return {_storable(name): _storable(part) for name, part in value.items()}
    return value


async def of_run(connection: AsyncConnection, run_id: UUID) -> Record | None:
    row = (await connection.execute(_OF_RUN, {"run_id": run_id})).one_or_none()
    return None if row is None else Record(*row)


async def summary(connection: AsyncConnection) -> Summary:
    return Summary(*(await connection.execute(_SUMMARY)).one())


async def repair(connection: AsyncConnection, verdict: Verdict) -> bool:
    """Have what differs sent again; False when nothing of it can be, or the run has moved on meanwhile.

    What is too much in the workspace stays: nothing is ever deleted there but a tag that was deleted here.
    """
    stand = verdict.stand
    repairable = [found for found in verdict.differences if found.is_repairable]
    if stand is None or not repairable:
        return False
    is_gone = any(found.kind is Kind.RUN for found in repairable)
    data = [found.from_seq for found in repairable if found.kind not in STATE and found.from_seq is not None]
    done = await connection.execute(
        _REPAIR,
        {
            "run_id": stand.run_id,
            "watermark": stand.watermark,
            "mirrored_at": stand.mirrored_at,
            "upto": 0 if is_gone else min(data, default=stand.watermark + 1) - 1,
            "with_state": is_gone or any(found.kind in STATE for found in repairable),
            "anew": is_gone,
            "with_overflow": any(found.in_overflow for found in repairable),
            "without_home": any(found.kind is Kind.EXPERIMENT for found in repairable),
            "remote_experiment_id": stand.remote_experiment_id,
        },
    )
    return done.one_or_none() is not None

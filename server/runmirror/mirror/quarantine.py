"""Runs that were set aside: why, since when, and what to do about it; and how they go back to the queue."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth.clauses import experiment_is_readable, readers_values
from runmirror.mirror.own_tags import STATUS_TAG
from runmirror.mirror.queue import CHANNEL

MOST = 1000
NOTHING_BEFORE = UUID(int=0)
_AFTER_ALL = UUID(int=2**128 - 1)
_VANISHED = "is not in the workspace any more"
_REQUEST_ID = re.compile(r"request id ([^),\s]+)")
_PAYLOAD = re.compile(r"payload ((?:sha256|md5):[0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Cause:
    """A kind of failure: recognised by its words, and what helps."""

    code: str
    words: re.Pattern[str]
    advice: str


# The first that fits. Azure's own codes are too coarse to tell these apart, its words are not.
CAUSES = (
    Cause(
        "RUN_VANISHED",
        re.compile(_VANISHED),
        "The copy was removed from the workspace for good. Replay makes a new one, with everything.",
    ),
    Cause(
        "OVER_LIMIT",
        re.compile(r"over the size limit"),
        "The run holds more of this field than the workspace keeps, and the field has no place in the overflow file. "
        "Shorten it at the source, or have the workspace's limit raised, and replay.",
    ),
    Cause(
        "EXPERIMENT_ARCHIVED",
        re.compile(r"experiment \S+ must be in the 'active' state", re.IGNORECASE),
        "The experiment is archived in the workspace. Restore it there and replay.",
    ),
    Cause(
        "SOURCE_FILE_CHANGED",
        re.compile(
            r"is missing, or is not as it was uploaded|has another size than recorded|^gave up.*No such artifact"
        ),
        "A file in the artifact store was changed or removed behind the server's back. Log it again, or restore it, "
        "and replay.",
    ),
    Cause(
        "ARTIFACT_REFUSED",
        re.compile(r"may not be uploaded|\(artifact '"),
        "The workspace's artifact service takes this path neither anew nor again. Check the rights on its storage "
        "account and the file's name, and replay.",
    ),
    Cause(
        "UNEXPECTED",
        re.compile(r"unexpected \w+ \(see the worker's log\)"),
        "A fault of runmirror: the worker's log has the details. Report it, and replay with a version that mends it.",
    ),
    Cause(
        "REFUSED",
        re.compile(r"\(HTTP 4\d\d to "),
        "The workspace refuses this run. Give the request id to Azure's support if the reason does not help; replay "
        "when it is mended.",
    ),
)
_OTHERWISE = Cause("FAILED", re.compile(""), "Read the reason, mend it, and replay.")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """`reason` is what the target said, as it said it."""

    run_id: UUID
    run_name: str
    experiment_id: int
    experiment_name: str
    reason: str
    quarantined_at: datetime | None
    seq: int
    watermark: int
    remote_run_id: str | None
    portal_url: str | None

    @property
    def cause(self) -> Cause:
        return cause_of(self.reason)

    @property
    def request_id(self) -> str | None:
        """By which Azure's support finds the request again."""
        found = _REQUEST_ID.search(self.reason)
        return found[1] if found else None

    @property
    def payload_digest(self) -> str | None:
        """Hash of what was refused: the same after a replay means that nothing was mended here."""
        found = _PAYLOAD.search(self.reason)
        return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the quarantined runs: these, those of the experiments, or (with neither) all."""

    run_ids: Sequence[UUID] | None = None
    experiment_ids: Sequence[int] | None = None


_CHOSEN = """
    m.state = 'quarantined' AND m.run_id > :after
    AND (CAST(:run_ids AS uuid[]) IS NULL OR m.run_id = ANY(:run_ids))
    AND (CAST(:experiment_ids AS bigint[]) IS NULL OR r.experiment_id = ANY(:experiment_ids))
"""


def _list(order: str) -> TextClause:
    return text(f"""
        SELECT m.run_id, r.name, r.experiment_id, e.name, COALESCE(m.last_error, ''), m.last_error_at, r.seq,
            m.watermark, m.remote_run_id, m.portal_url
        FROM mirrors m JOIN runs r USING (run_id) JOIN experiments e USING (experiment_id)
        WHERE {_CHOSEN} AND m.run_id < :before AND {experiment_is_readable("r.experiment_id")}
        ORDER BY m.run_id {order} LIMIT :most
    """)  # noqa: S608 - constants of ours


_NEWEST, _OLDEST = _list("DESC"), _list("ASC")

# A run whose copy was removed begins anew, its overflow file too. If the copy is there after all it is found by its
# tag, and what arrived is read back.
_REPLAY = text(f"""
    WITH chosen AS (
        SELECT m.run_id,
            COALESCE(m.last_error, '') LIKE '%{_VANISHED}%' AS begins_anew
        FROM mirrors m JOIN runs r USING (run_id)
        WHERE {_CHOSEN}
        ORDER BY m.run_id LIMIT :most
        FOR UPDATE OF m),
    woken AS (
        UPDATE mirrors m SET
            state = 'due', due_at = now(), attempt = 0, behind_since = COALESCE(behind_since, now()), waiting = false,
            overflow_told = CASE WHEN begins_anew THEN 0 ELSE overflow_told END,
            overflow_at = CASE WHEN begins_anew THEN NULL ELSE overflow_at END,
            watermark = CASE WHEN begins_anew THEN 0 ELSE watermark END,
            info_watermark = CASE WHEN begins_anew THEN 0 ELSE info_watermark END,
            sent_upto = CASE WHEN begins_anew THEN 0 ELSE sent_upto END,
            remote_experiment_id = CASE WHEN begins_anew THEN NULL ELSE remote_experiment_id END,
            remote_run_id = CASE WHEN begins_anew THEN NULL ELSE remote_run_id END
        FROM chosen WHERE m.run_id = chosen.run_id
        RETURNING m.run_id),
    shown AS (
        UPDATE tags SET value = 'pending' FROM woken
        WHERE tags.run_id = woken.run_id AND tags.key = '{STATUS_TAG}' AND tags.seq = 0),
    told AS (SELECT pg_notify('{CHANNEL}', '') FROM woken LIMIT 1)
    SELECT run_id FROM woken WHERE (SELECT count(*) FROM told) >= 0 ORDER BY run_id
""")  # noqa: S608 - constants of ours


def cause_of(reason: str) -> Cause:
    return next((cause for cause in CAUSES if cause.words.search(reason)), _OTHERWISE)


async def newest(connection: AsyncConnection, *, before: UUID | None, most: int) -> list[Quarantined]:
    """Quarantined runs, the newest run first, `before` one that was given out."""
    return await _read(connection, _NEWEST, Choice(), most=most, before=before or _AFTER_ALL)


async def chosen(connection: AsyncConnection, choice: Choice, *, after: UUID, most: int = MOST) -> list[Quarantined]:
    """What `replay` would take, the oldest run first."""
    return await _read(connection, _OLDEST, choice, after=after, most=most)


async def _read(
    connection: AsyncConnection, query: TextClause, choice: Choice, *,
    most: int, after: UUID = NOTHING_BEFORE, before: UUID = _AFTER_ALL,
) -> list[Quarantined]:  # fmt: skip
    wanted = _wanted(choice) | {"after": after, "before": before, "most": most} | readers_values()
    return [Quarantined(*row) for row in await connection.execute(query, wanted)]


async def replay(
    connection: AsyncConnection, choice: Choice, *, after: UUID = NOTHING_BEFORE, most: int = MOST
) -> list[UUID]:  # fmt: skip
    """Put quarantined runs back into the queue, all their attempts before them; the oldest `most` of those chosen."""
    return list(await connection.scalars(_REPLAY, _wanted(choice) | {"after": after, "most": most}))


def _wanted(choice: Choice) -> dict[str, object]:
    run_ids = None if choice.run_ids is None else list(choice.run_ids)
    return {
        "run_ids": run_ids,
        "experiment_ids": None if choice.experiment_ids is None else list(choice.experiment_ids),
    }

"""What a verification says of a run, and how it comes to say it: never at the first look."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from runmirror.mirror.retry import backoff
from runmirror.mirror.target import SourceChanged, SourceUnavailable, TargetError, TargetOutage
from runmirror.mirror.verify.differences import Difference, Json
from runmirror.mirror.verify.look import Seen, Sides, look
from runmirror.mirror.verify.source import Stand
from runmirror.mirror.verify.together import together

log = logging.getLogger(__name__)

_LOOKS = 3
_PATIENCE = 5


class Outcome(StrEnum):
    EQUAL = "equal"
    DIFFERENT = "different"
    BEHIND = "behind"  # it is being mirrored, or was written meanwhile: nothing can be said yet
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class Verdict:
    run_id: UUID
    outcome: Outcome
    differences: tuple[Difference, ...] = ()
    reason: str | None = None
    stand: Stand | None = None

    def as_json(self) -> Json:
        told: Json = {"run_id": self.run_id.hex, "verdict": self.outcome.value}
        if self.stand is not None and self.stand.remote_run_id is not None:
            told["remote_run_id"] = self.stand.remote_run_id
        if self.reason is not None:
            told["reason"] = self.reason
        return told | {"differences": [difference.as_json() for difference in self.differences]}


async def verify(
    sides: Sides, run_ids: Sequence[UUID], *, at_once: int, looked: Callable[[], None] = lambda: None
) -> list[Verdict]:  # fmt: skip
    """Judge some runs side by side. Raises `TargetOutage` when the workspace cannot be read.

    `looked` is called once for every run.

    Azure's reads lag its writes, and a run may be written while it is looked at. So a difference counts only when a
    second look, a grace later, finds it again, and nothing happened to the run in between.
    """
    slots = asyncio.Semaphore(at_once)
    # What is taken for missing while it is only late would be sent twice by a repair.
    grace_s = max(sides.settings.mirror_verify_grace, sides.settings.mirror_settle).total_seconds()
    decided: dict[UUID, Verdict] = {}
    before: dict[UUID, Seen] = {}
    open_runs = list(run_ids)

    async def one(run_id: UUID) -> Verdict | Seen:
        async with slots:
            seen = await _patiently(sides, run_id)
        if run_id not in before:
            looked()
        return seen

    for number in range(1, _LOOKS + 1):
        seen = await together(one(run_id) for run_id in open_runs)
        last = number == _LOOKS
        for run_id, now in zip(open_runs, seen, strict=True):
            if isinstance(now, Verdict):
                # A file may have been replaced while it was read.
                verdict = now if last else None
            else:
                verdict = judge(run_id, before.get(run_id), now, last=last)
            if verdict is not None:
                decided[run_id] = verdict
            elif isinstance(now, Seen):
                before[run_id] = now
        open_runs = [run_id for run_id in open_runs if run_id not in decided]
        if not open_runs:
            break
        await asyncio.sleep(grace_s)
    return [decided[run_id] for run_id in run_ids]


def judge(run_id: UUID, before: Seen | None, now: Seen, *, last: bool) -> Verdict | None:
    """What two looks say together; None when another one is needed."""
    if now.stand is None or now.stand.state == "off":
        why = "there is no such run" if now.stand is None else "it is kept out of the mirror"
        return Verdict(run_id, Outcome.UNCHECKED, reason=why, stand=now.stand)
    if now.differences == ():
        return Verdict(run_id, Outcome.EQUAL, stand=now.stand)
    if before is not None and before.differences is not None and now.differences and before.stand == now.stand:
        if before.differences == now.differences:
            reason = "quarantined: see runmirror replay" if now.stand.state == "quarantined" else None
            return Verdict(run_id, Outcome.DIFFERENT, now.differences, reason, now.stand)
        if last:
            # What changes from look to look may be on its way still; what both saw is not.
            places = {difference.place for difference in before.differences}
            common = tuple(difference for difference in now.differences if difference.place in places)
            return Verdict(run_id, Outcome.DIFFERENT if common else Outcome.BEHIND, common, stand=now.stand)
    if last:
        return Verdict(run_id, Outcome.BEHIND, reason="it is being mirrored", stand=now.stand)
    return None


async def _patiently(sides: Sides, run_id: UUID) -> Verdict | Seen:
    """One look, repeated while the workspace is throttled or away for a moment."""
    failures = 0
    while True:
        try:
            return await look(sides, run_id)
        except TargetOutage as error:
            failures += 1
            if failures == _PATIENCE:
                raise
            wait_s = backoff(failures, random.random(), sides.settings).total_seconds()  # noqa: S311 - spreads load
            log.warning("looking at run %s again: %s", run_id.hex, error)
            await asyncio.sleep(max(wait_s, error.retry_after_s or 0.0))
        except (TargetError, SourceChanged, SourceUnavailable) as error:
            return Verdict(run_id, Outcome.UNCHECKED, reason=str(error))

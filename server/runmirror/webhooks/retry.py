"""What becomes of a delivery after an attempt: decided here, done in `deliverer`."""

from dataclasses import dataclass
from datetime import timedelta

from runmirror.webhooks.sender import Answered, NotAnswered

_LONGEST_WAIT_S = 3600.0
_PASSING = {408, 425, 429}  # and 5xx


@dataclass(frozen=True, slots=True)
class Done:
    """`delivered`, or given up."""

    outcome: str
    delivered: bool


@dataclass(frozen=True, slots=True)
class Again:
    outcome: str
    wait: timedelta


def decide(result: Answered | NotAnswered, *, attempts: int, max_retries: int, jitter: float) -> Done | Again:
    """`attempts`: those made so far; `jitter`: between 0 and 1.

    The waits are 1, 4, 16, 64 … seconds, an hour at most. Who redirects or blames the request is not asked again.
    """
    asked_s = 0.0
    match result:
        case Answered(status) as answered if answered.success:
            return Done(f"HTTP {status}", delivered=True)
        case Answered(status) if status < 500 and status not in _PASSING:
            return Done(f"HTTP {status}", delivered=False)
        case Answered(status, _, retry_after_s):
            outcome, asked_s = f"HTTP {status}", retry_after_s or 0.0
        case NotAnswered(outcome, for_good):
            if for_good:
                return Done(outcome, delivered=False)
    if attempts > max_retries:
        return Done(f"gave up after {attempts} attempts: {outcome}", delivered=False)
    wait_s = min(4.0 ** min(attempts - 1, 10), _LONGEST_WAIT_S)
    return Again(outcome, timedelta(seconds=max(wait_s * (1 + jitter / 4), asked_s)))

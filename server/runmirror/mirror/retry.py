"""What becomes of a run, and of all runs, after a failure: decided here, done in `worker`."""

from dataclasses import dataclass
from datetime import timedelta

from runmirror.mirror.target import (
    ParentNotMirrored,
    RemoteRunVanished,
    RunRestored,
    SourceChanged,
    SourceUnavailable,
    TargetError,
    TargetOutage,
    TargetRejected,
)
from runmirror.settings import Settings

# What can happen without any mistake of ours.
EXPECTED = (TargetError, ParentNotMirrored, RunRestored, SourceChanged, SourceUnavailable)
MAX_ATTEMPTS = 10
_BELIEVED_AFTER = 3
_FIRST_WAIT = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Set the run aside until somebody has looked at it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Postpone:
    """This run waits and has used up an attempt; the others go on."""

    wait: timedelta


@dataclass(frozen=True, slots=True)
class Release:
    """This run waits, through no fault of its own; the others go on."""

    wait: timedelta


@dataclass(frozen=True, slots=True)
class Pause:
    """The workspace is at fault: everybody waits for `wait`, this run for `run_wait`, and no attempt is used up."""

    wait: timedelta
    run_wait: timedelta


def decide(
    error: Exception, *, attempt: int, outages: int, run_outages: int, jitter: float, settings: Settings
) -> Quarantine | Postpone | Release | Pause:
    """What to do about `error`.

    `attempt`: failures of this run that were its own; `outages`, `run_outages`: failures of the workspace in a row, for
    all runs and for this one; `jitter`: between 0 and 1.
    """
    match error:
        case RemoteRunVanished() if attempt + 1 < _BELIEVED_AFTER:
            # Azure's reads lag behind its writes: a run that has just been made may not be found at first.
            return Postpone(max(backoff(attempt, jitter, settings), settings.mirror_settle))
        case TargetRejected():
            return Quarantine(str(error))
        case ParentNotMirrored() | SourceUnavailable():
            return Release(backoff(run_outages, jitter, settings))
        case TargetOutage():
            wait = backoff(outages, jitter, settings)
            run_wait = backoff(run_outages, jitter, settings)
            if error.retry_after_s is not None:
                wait = max(wait, timedelta(seconds=error.retry_after_s))
            if error.uncertain:
                run_wait = max(run_wait, settings.mirror_settle)
            # The one that failed waits a little longer, so that after the pause another run is tried first: a run
            # that alone makes the workspace fail must not stand in everybody's way.
            return Pause(wait, max(wait, run_wait))
    if attempt + 1 >= MAX_ATTEMPTS:
        return Quarantine(f"gave up after {attempt + 1} attempts: {describe(error)}")
    return Postpone(backoff(attempt, jitter, settings))


def backoff(failures: int, jitter: float, settings: Settings) -> timedelta:
    """Exponential from one second, at most `mirror_backoff_max`, the upper half of it random."""
    longest: timedelta = min(_FIRST_WAIT * 2 ** min(failures, 20), settings.mirror_backoff_max)
    return longest * (0.5 + jitter / 2)


def describe(error: BaseException) -> str:
    """What may be stored and shown: our own errors speak for themselves, of others only the kind is told."""
    if isinstance(error, EXPECTED):
        return str(error)
    return f"unexpected {type(error).__name__} (see the worker's log)"

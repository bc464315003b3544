"""What verification looks like over HTTP."""

from datetime import datetime
from typing import Any, Self

from runmirror.mirror.verify.records import Record, Summary
from runmirror.wire import Wire


class VerificationAnswer(Wire):
    """`runs_verified` counts the last day; `runs_different` those that differed when they were last looked at."""

    runs_verified: int
    runs_different: int
    last_verified_at: datetime | None = None

    @classmethod
    def of(cls, summary: Summary) -> Self:
        return cls(
            runs_verified=summary.runs_verified,
            runs_different=summary.runs_different,
            last_verified_at=summary.last_verified_at,
        )


class RunVerificationAnswer(Wire):
    """`verdict` is `equal`, `different`, or `repairing`: what differed is sent again; the first hundred differences."""

    verified_at: datetime
    verdict: str
    differences: list[dict[str, Any]]

    @classmethod
    def of(cls, record: Record) -> Self:
        return cls(verified_at=record.verified_at, verdict=record.verdict, differences=record.differences)

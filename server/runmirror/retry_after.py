"""How long an answer asks its client to wait."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

LONGEST_RETRY_AFTER_S = 600.0


class Answer(Protocol):
    """Of whichever HTTP client."""

    @property
    def headers(self) -> Mapping[str, str]: ...


def retry_after_s(answer: Answer) -> float | None:
    """The wait an answer asks for, in seconds or until a date by the server's own clock."""
    wanted = answer.headers.get("retry-after", "").strip()
    if not wanted:
        return None
    try:
        seconds = float(wanted)
    except ValueError:
        try:
            until = parsedate_to_datetime(wanted)
            now = parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else datetime.now(UTC)
            seconds = (until - now).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else None  # noqa: PLR0124 - NaN

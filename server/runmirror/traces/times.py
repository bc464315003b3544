"""Times as protobuf's JSON writes them: RFC 3339 timestamps and durations in seconds; ours are milliseconds."""

import re
from datetime import UTC, datetime, timedelta

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # years 1 to 9999


def parse_timestamp(text: str) -> int:
    """Milliseconds since the epoch. Raises `ValueError`."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError("a timestamp looks like 2025-01-31T12:00:00.123Z")
    *numbers, fraction, sign, hours, minutes = match.groups()
    year, month, day, hour, minute, second = map(int, numbers)
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    ms = (moment - _EPOCH) // timedelta(milliseconds=1) + _thousandths(fraction)
    if sign:
        offset_ms = (int(hours) * 60 + int(minutes)) * 60_000
        ms += offset_ms if sign == "-" else -offset_ms
    return ms


def format_timestamp(ms: int) -> str:
    seconds, rest = divmod(min(max(ms, _FIRST_MS), _LAST_MS), 1000)
    moment = _EPOCH + timedelta(seconds=seconds)
    return moment.strftime(f"{moment.year:04d}-%m-%dT%H:%M:%S") + (f".{rest:03d}Z" if rest else "Z")


def parse_duration(text: str) -> int:
    """Milliseconds. Raises `ValueError`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("a duration looks like 1.500s")
    sign, seconds, fraction = match.groups()
    ms = int(seconds) * 1000 + _thousandths(fraction)
    return -ms if sign else ms


def format_duration(ms: int) -> str:
    seconds, rest = divmod(abs(ms), 1000)
    return ("-" if ms < 0 else "") + str(seconds) + (f".{rest:03d}s" if rest else "s")


def _thousandths(fraction: str | None) -> int:
    return int((fraction or "0").ljust(3, "0")[:3])

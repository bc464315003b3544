"""Numbers and times as people read them."""

from datetime import datetime, timedelta

# Why something stands in the overflow file: by the names of limits, see `runmirror.mirror.limits.Limits`.
LIMITS = {
    "params": "the run has more params than the workspace holds",
    "param_key": "the name is longer than the workspace allows",
    "param_value": "the value is longer than the workspace allows",
    "tags": "the run has more tags than the workspace holds",
    "tag_key": "the name is longer than the workspace allows",
    "tag_value": "the value is longer than the workspace allows",
    "metrics": "the run has more metric names than the workspace holds",
    "metric_key": "the name is longer than the workspace allows",
    "points": "the metric has more points than the workspace holds",
    "inputs": "the run has more datasets than the workspace holds",
    "run_name": "the name is longer than the workspace allows",
}

# What an entry of the overflow report is about, one and many: see `runmirror.mirror.overflow.Kind`.
KINDS = {
    "param": ("param", "params"),
    "tag": ("tag", "tags"),
    "metric": ("metric", "metrics"),
    "points": ("later points of a metric", "metrics with later points"),
    "nan": ("NaN points of a metric", "metrics with NaN points"),
    "dataset": ("dataset", "datasets"),
    "run_name": ("run name", "run name"),
    "revision": ("overwritten file", "overwritten files"),
    "deleted_artifact": ("file deleted here, kept there", "files deleted here, kept there"),
}

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def number(value: float) -> str:
    """1,234; 0.25; 3.5."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2g}"


def size(bytes_: float) -> str:
    """Bytes with a fitting unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if bytes_ < 1024:
            return f"{number(bytes_)} {unit}"
        bytes_ /= 1024
    return f"{number(bytes_)} TiB"


def span(seconds: float | timedelta) -> str:
    """A length of time: its greatest unit, and the next one while that matters."""
    left = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if left < 60:
        return f"{max(left, 0):.0f} s"
    for at, (unit_s, unit) in enumerate(_UNITS):
        if left >= unit_s:
            whole, rest = divmod(left, unit_s)
            smaller = _UNITS[at + 1] if at + 1 < len(_UNITS) else None
            if smaller and whole < 10 and rest >= smaller[0]:
                return f"{whole:.0f} {unit} {rest // smaller[0]:.0f} {smaller[1]}"
            return f"{whole:.0f} {unit}"
    return f"{left:.0f} s"


def ago(then: datetime, now: datetime) -> str:
    """`now` is the database's, as `then` was."""
    return f"{span(now - then)} ago" if then <= now else f"in {span(then - now)}"


def utc(then: datetime) -> str:
    return f"{then:%Y-%m-%d %H:%M:%S} UTC"


def many(count: int, one: str, several: str = "") -> str:
    """1 run; 2 runs."""
    return f"{number(count)} {one if count == 1 else several or one + 's'}"


def reason(told: str) -> str:
    """Why something overflowed: a limit in words, or Azure's own."""
    return LIMITS.get(told, told)


def kind(name: str, count: int = 1) -> str:
    """What an overflowing thing is."""
    one, several = KINDS.get(name, (name, name))
    return one if count == 1 else several

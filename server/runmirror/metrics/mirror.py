"""The mirror's numbers, made from one look at the database when somebody asks for them."""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from runmirror.mirror.overview import AGES, Overview


class MirrorMetrics:
    """A collector over an overview; None when the database cannot be asked: then only that is told."""

    def __init__(self, overview: Overview | None) -> None:
        self._overview = overview

    def collect(self) -> Iterator[Metric]:
        up = self._overview is not None
        yield _gauge("runmirror_database_up", "Whether the database answered this scrape.", float(up))
        if self._overview is not None:
            yield from _mirror(self._overview)


def _mirror(seen: Overview) -> Iterator[Metric]:
    yield _gauge("runmirror_mirror_lag_seconds", "For how long the run that waits longest is behind.", seen.lag_s)
    yield _gauge(
        "runmirror_mirror_oldest_due_age_seconds", "For how long a due run has not been taken up.", seen.oldest_due_s
    )
    yield _gauge("runmirror_mirror_workers", "Workers that gave a sign of life lately.", seen.alive)
    runs = GaugeMetricFamily(
        "runmirror_mirror_runs", "Runs by what is not well with them; failing ones are due too.", labels=["state"]
    )
    states = {
        "due": seen.due, "leased": seen.leased, "failing": seen.failing, "quarantined": seen.quarantined,
        "partial": seen.partial,
    }  # fmt: skip
    for state, count in states.items():
        runs.add_metric([state], count)
    yield runs
    yield _counter("runmirror_mirrored_points", "Metric points sent to the workspace.", seen.points)
    yield _counter("runmirror_mirrored_bytes", "Bytes of files sent to the workspace.", seen.bytes)
    yield _counter("runmirror_mirrored_runs", "Times a run was brought up to date.", seen.runs)
    yield _counter(
        "runmirror_mirror_overflowed", "Params, tags, names, datasets … that went to overflow files.", seen.overflowed
    )
    yield _counter("runmirror_mirror_throttles", "Attempts that the workspace throttled.", seen.throttles)
    yield _counter("runmirror_mirror_outages", "Attempts that met a workspace that could not be used.", seen.outages)
    backlog = GaugeMetricFamily(
        "runmirror_mirror_backlog", "Runs waiting or being copied, by the least time they have been behind.",
        labels=["behind_seconds"],
    )  # fmt: skip
    for least, count in zip((0, *(int(age.total_seconds()) for age in AGES)), seen.backlog, strict=True):
        backlog.add_metric([str(least)], count)
    yield backlog
    yield _by_workspace(
        "runmirror_mirror_outage", "1 while the workspace cannot be used.",
        ((link.workspace_id, float(link.last_error is not None)) for link in seen.linked),
    )  # fmt: skip
    yield _by_workspace(
        "runmirror_mirror_contact_age_seconds", "Since the workspace last answered; an idle mirror does not ask it.",
        (
            (link.workspace_id, (seen.now - link.last_contact_at).total_seconds())
            for link in seen.linked
            if link.last_contact_at is not None
        ),
    )  # fmt: skip


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)


def _by_workspace(name: str, meaning: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=["workspace"])
    for workspace, value in values:
        family.add_metric([workspace], value)
    return family

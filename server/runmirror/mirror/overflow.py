"""What of a page the target itself can hold, and what goes to the run's overflow file: decided here, done elsewhere.

Who comes first keeps the place: params by first write, metrics by first write of the name, points by write. A tag stays
where it is while it fits; new ones get the free places, MLflow's own before the user's. Whatever once went to the file
stays there (a tag until it is written again), so that a decision outlives crashes and changed limits.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from runmirror.entities import Metric, Param, Tag
from runmirror.mirror.limits import Limits, length
from runmirror.mirror.queries import Input, Page, Point

PATH = "runmirror/overflow.jsonl"
OVERFLOW_TAG = "runmirror.overflow"
RUN_NAME_TAG = "mlflow.runName"

Kind = Literal["param", "tag", "metric", "points", "nan", "dataset", "run_name", "revision", "deleted_artifact"]
"""`metric`: a name the target never sees; `points`, `nan`: of one it has, all or the NaN points from a write on.

`revision`, `deleted_artifact`: a path where the target keeps an earlier content, or one that the source has no more.
"""


@dataclass(frozen=True, slots=True)
class Overflowing:
    """One thing that goes to the file, and why: the name of a limit, or the target's own words.

    `since`: of the write `from_seq` itself only the points from this one on, those before it are at the target.
    """

    kind: Kind
    key: str
    from_seq: int
    reason: str
    since: Metric | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What is decided of the run so far, and who has a place now.

    `native_tags`: the keys at the target, or None when all tags of the run fit and nothing needs to be known of it.
    """

    overflowing: Mapping[tuple[str, str], int]
    params: Collection[str] = ()
    metrics: Collection[str] = ()
    inputs: Collection[str] = ()
    points: Mapping[str, int] = field(default_factory=dict)
    points_upto: int = 0
    native_tags: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Translation:
    """A page in terms of the target. `changes_file`: the overflow file has to be written anew."""

    points: tuple[Point, ...]
    params: tuple[Param, ...]
    tags: tuple[Tag, ...]
    deleted_tags: tuple[str, ...]
    inputs: tuple[Input, ...]
    added: tuple[Overflowing, ...]
    removed: tuple[tuple[str, str], ...]
    counts: Mapping[str, int]
    changes_file: bool


def translate(page: Page, held: Held, limits: Limits, *, reserved_tags: Collection[str]) -> Translation:
    """Sort the page's content; `reserved_tags` are the mirror's own and always have their place."""
    return _Sorting(held, limits).of(page, reserved_tags)


class _Sorting:
    def __init__(self, held: Held, limits: Limits) -> None:
        self._held = held
        self._limits = limits
        self._out = dict(held.overflowing)
        self._added: dict[tuple[str, str], Overflowing] = {}
        self._removed: list[tuple[str, str]] = []
        self._touched = False

    def of(self, page: Page, reserved_tags: Collection[str]) -> Translation:
        points, counts = self._points(page)
        params = tuple(param for param in page.params if self._takes_param(param, page.upto))
        inputs = tuple(given for given in page.inputs if self._takes_input(given))
        self._name(page)
        tags, deleted = self._tags(page, reserved_tags)
        return Translation(
            points, params, tags, deleted, inputs, tuple(self._added.values()), tuple(self._removed), counts,
            changes_file=self._touched,
        )  # fmt: skip

    def _send_away(self, kind: Kind, key: str, seq: int, reason: str) -> None:
        self._touched = True
        if (kind, key) not in self._out:
            self._out[kind, key] = seq
            self._added[kind, key] = Overflowing(kind, key, seq, reason)

    def _points(self, page: Page) -> tuple[tuple[Point, ...], dict[str, int]]:
        held, limits = self._held, self._limits
        counts = Counter(held.points)
        sizes = Counter((point.metric.key, point.seq) for point in page.points if point.seq > held.points_upto)
        native = []
        for point in page.points:
            key, seq = point.metric.key, point.seq
            if ("metric", key) in self._out:
                self._touched = True
                continue
            if length(key) > limits.metric_key or key not in held.metrics:
                self._send_away("metric", key, seq, "metric_key" if length(key) > limits.metric_key else "metrics")
                continue
            # A write is never divided: what of it is on this side of the limit would depend on the order of its points.
            whole = sizes.pop((key, seq), 0)
            if whole and not self._is_out("points", key, seq) and counts[key] + whole > limits.points:
                self._send_away("points", key, seq, "points")
            if self._is_out("points", key, seq) or (_is_nan(point.metric) and self._is_out("nan", key, seq)):
                self._touched = True
                continue
            if seq > held.points_upto:
                counts[key] += 1
            native.append(point)
        return tuple(native), dict(counts)

    def _is_out(self, kind: Kind, key: str, seq: int) -> bool:
        since = self._out.get((kind, key))
        return since is not None and seq >= since

    def _takes_param(self, param: Param, seq: int) -> bool:
        limits = self._limits
        if ("param", param.key) in self._out:
            self._touched = True
            return False
        reason = (
            "param_key" if length(param.key) > limits.param_key
            else "param_value" if length(param.value) > limits.param_value
            else "params" if param.key not in self._held.params
            else None
        )  # fmt: skip
        if reason is not None:
            self._send_away("param", param.key, seq, reason)
        return reason is None

    def _takes_input(self, given: Input) -> bool:
        if ("dataset", given.dataset_id) not in self._out and given.dataset_id in self._held.inputs:
            return True
        self._send_away("dataset", given.dataset_id, given.seq, "inputs")
        return False

    def _name(self, page: Page) -> None:
        if length(page.source.state.name) > self._limits.run_name:
            if ("run_name", "") not in self._out or page.source.info_seq > self._out["run_name", ""]:
                self._bring_back("run_name", "")
                self._send_away("run_name", "", page.source.info_seq, "run_name")
        else:
            self._bring_back("run_name", "")

    def _bring_back(self, kind: Kind, key: str) -> None:
        if (kind, key) in self._out:
            del self._out[kind, key]
            self._removed.append((kind, key))
            self._touched = True

    def _tags(self, page: Page, reserved: Collection[str]) -> tuple[tuple[Tag, ...], tuple[str, ...]]:
        """Deletions go first, so that they make room."""
        limits = self._limits
        there = None if self._held.native_tags is None else {*self._held.native_tags, *reserved}
        deleted = [*page.deleted_tags]
        for key in page.deleted_tags:
            self._bring_back("tag", key)
        fitting: list[Tag] = []
        for tag in page.tags:
            too_long = too_long_tag(tag, page, limits)
            self._bring_back("tag", tag.key)
            if too_long is None:
                fitting.append(tag)
            else:
                if there is not None and tag.key in there:
                    deleted.append(tag.key)  # what stood there before would contradict the file
                self._send_away("tag", tag.key, page.upto, too_long)
        if there is not None:
            there -= set(deleted)
            fitting.sort(key=lambda tag: (tag.key not in there, not tag.key.startswith("mlflow.")))
            for tag in fitting:
                if len(there) < limits.tags:
                    there.add(tag.key)
                elif tag.key not in there:
                    self._send_away("tag", tag.key, page.upto, "tags")
            fitting = [tag for tag in fitting if tag.key in there]
        return tuple(fitting), tuple(deleted)


def too_long_tag(tag: Tag, page: Page, limits: Limits) -> str | None:
    """The limit that keeps a tag out, whatever else the run has."""
    if length(tag.key) > limits.tag_key:
        return "tag_key"
    if length(tag.value) > limits.tag_value:
        return "tag_value"
    is_long_name = tag.key == RUN_NAME_TAG and length(page.source.state.name) > limits.run_name
    return "run_name" if is_long_name else None


def _is_nan(metric: Metric) -> bool:
    return math.isnan(metric.value)

"""One look at both sides of a run."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.entities import LifecycleStage
from runmirror.mirror import nested
from runmirror.mirror.one_run import STAGE_TAG
from runmirror.mirror.overflow import OVERFLOW_TAG, PATH, RUN_NAME_TAG
from runmirror.mirror.target import RemoteRun, TargetError
from runmirror.mirror.verify.differences import Change, Difference, Kind
from runmirror.mirror.verify.files import Files
from runmirror.mirror.verify.overflow import Overflow, read_overflow
from runmirror.mirror.verify.reader import Reader, RemoteCopy
from runmirror.mirror.verify.series import Point, Series, point_of, shown
from runmirror.mirror.verify.source import Expected, Points, Stand, pages, read_expected, read_stand
from runmirror.settings import Settings

# The service's own, and ours: they are not the source's, so it need not have them.
_OWN_TAG = "runmirror."
_AZURE_TAGS = frozenset({nested.ROOT_TAG})
_ORIGIN_TAG = "runmirror.run_id"
_KEPT = "deleted here, kept there"


@dataclass(frozen=True, slots=True)
class Sides:
    """The source and the linked workspaces, by their ids in small letters; `unreadable`: why one has no reader.

    `deep`: read files whole even where the target tells their hash.
    """

    engine: AsyncEngine
    store: Store
    readers: Mapping[str, Reader]
    settings: Settings
    unreadable: Mapping[str, str] = field(default_factory=dict)
    deep: bool = False
    experiment_names: dict[str, str | None] = field(default_factory=dict)

    def reader_of(self, stand: Stand) -> Reader:
        """Raises `TargetError` when the run's workspace cannot be read."""
        workspace_id = stand.workspace_id or ""
        if workspace_id not in self.readers:
            raise TargetError(self.unreadable.get(workspace_id, "its workspace is not linked"))
        return self.readers[workspace_id]


@dataclass(frozen=True, slots=True)
class Seen:
    """`differences` is None when the run or its mirror was moving; `stand` is None when there is no such run."""

    stand: Stand | None
    differences: tuple[Difference, ...] | None = None


async def look(sides: Sides, run_id: UUID) -> Seen:
    """Compare everything. Raises `TargetError`, `SourceChanged`, `SourceUnavailable`."""
    stand = await read_stand(sides.engine, run_id)
    if stand is None or not stand.is_settled:
        return Seen(stand)
    differences = tuple(
        [
            difference
            async for difference in _compare(sides, stand)
            if not (stand.is_born_there and difference.change is Change.SURPLUS)
        ]
    )
    after = await read_stand(sides.engine, run_id)
    return Seen(stand, differences) if after == stand else Seen(after)


@dataclass(frozen=True, slots=True)
class _Both:
    """What was read of a run, here and there, but for its points and the content of its files.

    `overflow` is empty when there is no such file.
    """

    stand: Stand
    reader: Reader
    expected: Expected
    remote: RemoteRun
    copy: RemoteCopy
    paths: frozenset[str]
    overflow: Overflow
    has_overflow: bool
    on_delete: str


async def _compare(sides: Sides, stand: Stand) -> AsyncIterator[Difference]:
    remote, reader = stand.remote, sides.reader_of(stand)
    copy = None if remote is None else await reader.run(remote)
    if remote is None or copy is None:
        yield Difference(Kind.RUN, "", Change.MISSING, from_seq=1)
        home, name = stand.remote_experiment_id, stand.remote_experiment_name
        if home is not None and name is not None and await reader.experiment_name(home) is None:
            yield Difference(Kind.EXPERIMENT, name, Change.MISSING, home, from_seq=1)
        return
    expected = await read_expected(sides.engine, sides.store, stand.run_id, sides.settings.mirror_page_rows)
    paths = frozenset([path async for path in reader.paths(remote)])
    overflow = await read_overflow(reader, remote, paths)
    both = _Both(
        stand, reader, expected, remote, copy, paths, overflow or Overflow(), overflow is not None,
        "keep" if stand.is_born_there else sides.settings.mirror_on_delete,
    )  # fmt: skip
    for compare in (_state, _params, _tags, _inputs, _overflow_file):
        for difference in compare(both):
            yield difference
    for compare_deeper in (_place, _metrics, _files):
        async for difference in compare_deeper(sides, both):
            yield difference


def _state(both: _Both) -> Iterator[Difference]:
    ours, theirs = both.expected.state, both.copy.state
    if ours is None:
        return
    if both.expected.overflows.has("run_name", "") and theirs.name and ours.name.startswith(theirs.name):
        ours = replace(ours, name=theirs.name)  # cut to what the workspace holds; the whole is in the overflow file
    if ours.end_time_ms is None:
        # MLflow knows no way to take an end back.
        ours = replace(ours, end_time_ms=theirs.end_time_ms)
    if both.stand.is_born_there:
        # Whether a job runs and when it ended is for its own control plane to say.
        ours = replace(ours, status=theirs.status, end_time_ms=theirs.end_time_ms)
    for kind, left, right in (
        (Kind.STATUS, ours.status.value, theirs.status.value),
        (Kind.NAME, ours.name, theirs.name),
        (Kind.END_TIME, ours.end_time_ms, theirs.end_time_ms),
        (Kind.STAGE, *_stages(both, ours.stage)),
    ):
        if left != right:
            yield Difference(kind, "", Change.DIFFERS, left, right, from_seq=both.expected.info_seq)


def _stages(both: _Both, ours: LifecycleStage) -> tuple[str, str]:
    """A copy that is kept when its run is deleted says so by a tag."""
    theirs = both.copy.state.stage
    if both.on_delete == "archive" and ours is LifecycleStage.DELETED:
        return _KEPT, _KEPT  # hidden in the studio, which MLflow's side of the workspace shows in no one way
    if both.on_delete != "keep":
        return ours.value, theirs.value
    is_told = both.copy.tags.get(STAGE_TAG) == LifecycleStage.DELETED.value
    there = _KEPT if theirs is LifecycleStage.ACTIVE and is_told else theirs.value
    return _KEPT if ours is LifecycleStage.DELETED else ours.value, there


def _params(both: _Both) -> Iterator[Difference]:
    expected, there = both.expected.params, both.copy.params
    for key, (value, from_seq) in sorted(expected.items()):
        overflows = both.expected.overflows.has("param", key)
        if overflows and (told := both.overflow.params.get(key)) != value:
            yield from _not_in_file(both, Kind.PARAM, key, value, told)
        if key not in there:
            if not overflows:
                yield Difference(Kind.PARAM, key, Change.MISSING, value, from_seq=from_seq)
        elif there[key] != value:
            # Write-once in the workspace too: nothing can put this right there.
            yield Difference(Kind.PARAM, key, Change.DIFFERS, value, there[key])
    for key in sorted(there.keys() - expected.keys()):
        yield Difference(Kind.PARAM, key, Change.SURPLUS, target=there[key])
    for key in sorted(both.overflow.params):
        if not both.expected.overflows.has("param", key):
            yield Difference(Kind.PARAM, key, Change.SURPLUS, target=both.overflow.params[key], in_overflow=True)


def _tags(both: _Both) -> Iterator[Difference]:
    expected, there = both.expected.tags, both.copy.tags
    origin = both.stand.run_id.hex
    if there.get(_ORIGIN_TAG) != origin:
        yield Difference(Kind.TAG, _ORIGIN_TAG, Change.DIFFERS, origin, there.get(_ORIGIN_TAG))
    for key, (value, from_seq) in sorted(expected.items()):
        overflows = value is not None and both.expected.overflows.has("tag", key)
        if overflows and (told := both.overflow.tags.get(key)) != value:
            yield from _not_in_file(both, Kind.TAG, key, value, told)
        found = _tag_there(both, key, value)
        if value is None:
            if found is not None:
                yield Difference(Kind.TAG, key, Change.SURPLUS, target=found, from_seq=from_seq)
        elif found != value and not (overflows and found is None):
            change = Change.MISSING if found is None else Change.DIFFERS
            yield Difference(Kind.TAG, key, change, value, found, from_seq=from_seq)
    for key in sorted(there.keys() - expected.keys() - _AZURE_TAGS):
        if not key.startswith(_OWN_TAG):
            yield Difference(Kind.TAG, key, Change.SURPLUS, target=there[key])
    for key in sorted(both.overflow.tags):
        if expected.get(key, (None, 0))[0] is None or not both.expected.overflows.has("tag", key):
            yield Difference(Kind.TAG, key, Change.SURPLUS, target=both.overflow.tags[key], in_overflow=True)


def _tag_there(both: _Both, key: str, value: str | None) -> str | None:
    """What the workspace says of a tag, in our terms: ids of runs are other ones there, or go by other names."""
    there = both.copy.tags
    if key == nested.ROOT_TAG and not both.stand.is_born_there:
        return there.get(nested.OTHER_NAMES[key])
    if key == nested.PARENT_TAG:
        linked = there.get(key)
        is_our_parent = linked is not None and linked == both.expected.parent_remote_id
        return value if value is not None and is_our_parent else linked or there.get(nested.OTHER_NAMES[key])
    if key == RUN_NAME_TAG and both.expected.overflows.has("run_name", "") and there.get(key) == both.copy.state.name:
        return None  # the workspace says the cut name in this way too
    return there.get(key)


def _inputs(both: _Both) -> Iterator[Difference]:
    there = Counter(both.copy.inputs)
    for dataset_id, (dataset, from_seq) in sorted(both.expected.inputs.items()):
        name = " ".join(dataset)
        if both.expected.overflows.has("dataset", dataset_id):
            if dataset not in both.overflow.inputs:
                yield from _not_in_file(both, Kind.DATASET, name, None, None)
        elif not there[dataset]:
            yield Difference(Kind.DATASET, name, Change.MISSING, from_seq=from_seq)
    known = Counter(dataset for dataset, _ in both.expected.inputs.values())
    for dataset in sorted((there - known).keys()):
        yield Difference(Kind.DATASET, " ".join(dataset), Change.SURPLUS)


def _overflow_file(both: _Both) -> Iterator[Difference]:
    """That it is there if anything is to stand in it, is named by its tag, and tells the whole name."""
    if not both.expected.overflows:
        return
    if not both.has_overflow:
        yield Difference(Kind.FILE, PATH, Change.MISSING, in_overflow=True)
        return
    if both.copy.tags.get(OVERFLOW_TAG) != PATH:
        told = both.copy.tags.get(OVERFLOW_TAG)
        yield Difference(Kind.TAG, OVERFLOW_TAG, Change.DIFFERS, PATH, told, in_overflow=True)
    name = None if both.expected.state is None else both.expected.state.name
    if both.expected.overflows.has("run_name", "") and both.overflow.name != name:
        yield Difference(Kind.NAME, "", Change.DIFFERS, name, both.overflow.name, in_overflow=True)


def _not_in_file(both: _Both, kind: Kind, name: str, value: str | None, told: str | None) -> Iterator[Difference]:
    """Of a file that is not there at all, `_overflow_file` tells, once."""
    if both.has_overflow:
        change = Change.MISSING if told is None else Change.DIFFERS
        yield Difference(kind, name, change, value, told, in_overflow=True)


async def _place(sides: Sides, both: _Both) -> AsyncIterator[Difference]:
    """The right experiment, and no second copy in it."""
    stand, there = both.stand, both.copy.experiment_id
    if there != stand.remote_experiment_id:
        yield Difference(Kind.EXPERIMENT, "", Change.DIFFERS, stand.remote_experiment_id, there)
    names, name = sides.experiment_names, stand.remote_experiment_name
    if there not in names:
        names[there] = await both.reader.experiment_name(there)
    if name is not None and names[there] != name and there == stand.remote_experiment_id:
        yield Difference(Kind.EXPERIMENT, name, Change.DIFFERS, name, names[there])
    for other in await both.reader.copies(there, stand.run_id.hex):
        if other.run_id != both.remote.run_id:
            yield Difference(Kind.RUN, "", Change.SURPLUS, target=other.run_id)


async def _metrics(sides: Sides, both: _Both) -> AsyncIterator[Difference]:
    expected, filed = both.expected.metrics, both.overflow.metrics
    for key in sorted(expected.keys() | both.copy.metric_keys | filed.keys()):
        ours = expected.get(key) or Points(0)
        theirs = Series()
        async for metric in both.reader.points(both.remote, key):
            theirs.add(metric)
        in_file = filed.get(key) or Series()
        is_told = ours.overflow.is_made_of(in_file) or not both.has_overflow
        if ours.native.is_made_of(theirs) and is_told:
            continue
        source, target = ours.native.as_json(), theirs.as_json()
        if theirs.count == 0 and ours.native.count and is_told:
            yield Difference(Kind.METRIC, key, Change.MISSING, source, target, from_seq=ours.first_seq)
            continue
        async for difference in _points(sides, both, key):
            if difference.in_overflow:
                source, target = ours.overflow.as_json(), in_file.as_json()
            yield replace(difference, source=source | difference.source, target=target | difference.target)


async def _points(sides: Sides, both: _Both, key: str) -> AsyncIterator[Difference]:
    """Which points of a metric lack, and which are too many. Only here are all points of one metric in memory.

    A point of the overflow file may stand in the run as well: a request that was refused for it may have done so much.
    """
    there = Counter([point_of(metric) async for metric in both.reader.points(both.remote, key)])
    native, overflow, first_seq = Counter[Point](), Counter[Point](), dict[Point, int]()
    async for _, page in pages(sides.engine, both.stand.run_id, sides.settings.mirror_page_rows):
        for point in page.points:
            if point.metric.key == key:
                which = overflow if both.expected.overflows.has_point(point) else native
                which[point_of(point.metric)] += 1
                first_seq.setdefault(point_of(point.metric), point.seq)
    missing, surplus = native - there, there - native - overflow
    if missing:
        from_seq = min(first_seq[point] for point in missing)
        yield Difference(Kind.METRIC, key, Change.MISSING, {"points": shown(missing)}, {}, from_seq=from_seq)
    if surplus:
        yield Difference(Kind.METRIC, key, Change.SURPLUS, {}, {"points": shown(surplus)})
    if not both.has_overflow:
        return
    kept = await read_overflow(both.reader, both.remote, both.paths, keep=key)
    filed = Counter(map(point_of, kept.points)) if kept else Counter[Point]()
    if missing := overflow - filed:
        yield Difference(Kind.METRIC, key, Change.MISSING, {"points": shown(missing)}, {}, in_overflow=True)
    if surplus := filed - overflow:
        yield Difference(Kind.METRIC, key, Change.SURPLUS, {}, {"points": shown(surplus)}, in_overflow=True)


async def _files(sides: Sides, both: _Both) -> AsyncIterator[Difference]:
    overflow = both.overflow if both.has_overflow else None
    at_once = sides.settings.mirror_artifact_concurrency
    files = Files(both.reader, both.remote, both.expected, both.paths, overflow, sides.deep, at_once)
    async for difference in files.differences():
        yield difference

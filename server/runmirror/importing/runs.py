"""Runs: a batch of them is one transaction, in which also stands what was imported.

    new here ───────────────────────▶ created, filled, finished
    imported before, changed there ─▶ filled with what is more there; what was written here since stays
    here, and not from this source ─▶ refused: nobody can tell whose it is

Points are written by the same function of Postgres as those of clients, in writes of at most 1,000 rows: the mirror
reads a write as a whole. While a run with very many points is written, its transaction waits for the source: else half
of it would be seen.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy.engine import Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror import names
from runmirror.importing import queries, rules
from runmirror.importing.entities import OldRun, fingerprint
from runmirror.importing.rules import Refused
from runmirror.importing.source import PointsOf, Source
from runmirror.mirror import queue
from runmirror.mirror.own_tags import MIRROR_TAG
from runmirror.run_ids import is_foreign, stored_id
from runmirror.runs import batch_queries, hot_queries
from runmirror.runs.hot_columns import FEWEST, NO_CHUNKS, Pair, Point, Unusual, Write, columns
from runmirror.runs.service import RUN_NAME_TAG
from runmirror.wire import finite_or_nan

KIND = "run"
_T = TypeVar("_T")
_MOST_ROWS = 1000  # of one write, as of one log-batch
_OWN_TAGS = "runmirror."  # the mirror's at its source or in a workspace; here it writes its own
_PARAM_CHANGED = "RM001"


@dataclass(slots=True)
class Written:
    """What became of some runs."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    points: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)  # (run id, why)

    def add(self, more: "Written") -> None:
        self.new += more.new
        self.changed += more.changed
        self.unchanged += more.unchanged
        self.points += more.points
        self.refused += more.refused


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A run to be written, as it stands there and in our words."""

    run: OldRun
    run_id: UUID
    experiment_id: int
    name: str
    tags: Mapping[str, str]
    print: str


class Runs:
    """Writes runs of one source."""

    def __init__(
        self, engine: AsyncEngine, source: Source, source_id: int, *, mirror: bool, chunks: bool = True
    ) -> None:
        self._engine = engine
        self._source = source
        self._source_id = source_id
        self._mirror = mirror
        self._fewest = FEWEST if chunks else NO_CHUNKS

    async def write(self, runs: Sequence[OldRun], experiments: Mapping[str, int]) -> Written:
        """Bring what is new or has changed of these runs; `experiments` are our ids by those there."""
        told = Written()
        wanted = [one for run in runs if (one := self._wanted(run, experiments, told)) is not None]
        async with self._engine.connect() as connection:
            known = await queries.known(connection, self._source_id, KIND, [one.run.run_id for one in wanted])
        todo = [one for one in wanted if not _is_same(known.get(one.run.run_id), one)]
        told.unchanged += len(wanted) - len(todo)
        if not todo:
            return told
        try:
            told.add(await self._write(todo, known))
        except (DBAPIError, asyncpg.PostgresError, Refused, Unusual) as error:
            if len(todo) == 1:
                told.refused.append((todo[0].run.run_id, _why(error)))
                return told
            for one in todo:  # one of them is the cause: the others shall not suffer for it
                told.add(await self.write([one.run], experiments))
        return told

    def _wanted(self, run: OldRun, experiments: Mapping[str, int], told: Written) -> _Wanted | None:
        try:
            rules.check_run(run)
        except Refused as error:
            told.refused.append((run.run_id, str(error)))
            return None
        run_id = stored_id(run.run_id)
        if run_id is None or run.experiment_id not in experiments:
            told.refused.append((run.run_id, f"its experiment {run.experiment_id} was not imported"))
            return None
        name = run.name or run.tags.get(RUN_NAME_TAG) or names.random_run_name(run_id)
        tags = {key: value for key, value in run.tags.items() if not key.startswith(_OWN_TAGS)}
        tags[RUN_NAME_TAG] = name
        if not self._mirror:
            tags[MIRROR_TAG] = "off"
        return _Wanted(run, run_id, experiments[run.experiment_id], name, tags, fingerprint(run))

    async def _write(self, todo: Sequence[_Wanted], known: Mapping[str, Row[Any]]) -> Written:
        told = Written()
        reading = [one.run for one in todo if _may_have_points(one, known.get(one.run.run_id))]
        async with aclosing(self._source.points(reading) if reading else _nothing()) as pieces:  # type: ignore[type-var]
            first: Sequence[PointsOf] = await anext(pieces, [])  # before the transaction: most batches need no more
            async with self._engine.begin() as connection:
                batch = _Batch(connection, todo, known, self._fewest)
                told.refused += await batch.open()
                await batch.write_pairs()
                await batch.write_points(first)
                async for piece in pieces:
                    await batch.write_points(piece)
                await batch.write_inputs()
                await batch.finish(self._source_id)
        told.new, told.changed, told.points = len(batch.created), len(batch.rows) - len(batch.created), batch.points
        return told


class _Batch:
    """Some runs, being written in one transaction."""

    def __init__(
        self, connection: AsyncConnection, todo: Sequence[_Wanted], known: Mapping[str, Row[Any]], fewest: int
    ) -> None:
        self._connection = connection
        self._known = known
        self._fewest = fewest
        self._all = todo
        self.rows: dict[UUID, _Wanted] = {}
        self.created: set[UUID] = set()
        self._before: dict[UUID, Row[Any]] = {}
        self._counted: dict[UUID, int] = {}
        self.points = 0

    async def open(self) -> list[tuple[str, str]]:
        """Create the new ones, lock those that are here. Which are refused, and why."""
        new = [one for one in self._all if one.run.run_id not in self._known]
        if new:
            rows = [(one.run_id, _foreign_id(one.run.run_id), one.experiment_id) for one in new]
            self.created = await queries.create_runs(self._connection, rows)
        again = [one for one in self._all if one.run.run_id in self._known]
        if again:
            self._before = await queries.open_runs(self._connection, [one.run_id for one in again])
        self.rows = {
            one.run_id: one for one in self._all if one.run_id in self.created or one.run_id in self._before
        }  # fmt: skip
        # One that was imported and has been erased here since does not come back.
        why = "a run of this id is here already and did not come from this source"
        return [(one.run.run_id, why) for one in new if one.run_id not in self.created]

    async def write_pairs(self) -> None:
        """Params and tags; a tag that was written or deleted here since stays as it is."""
        tags = {run_id: dict(one.tags) for run_id, one in self.rows.items()}
        gone: list[tuple[UUID, str]] = []
        if self._before:
            for run_id, rows in (await queries.tags_of(self._connection, list(self._before))).items():
                ours = self._known[self.rows[run_id].run.run_id].seqs
                for row in rows:
                    if not wrote(ours, row.seq) or (row.value is not None and row.value == tags[run_id].get(row.key)):
                        tags[run_id].pop(row.key, None)
                    elif row.key not in tags[run_id] and row.seq > 0 and row.value is not None:
                        gone.append((run_id, row.key))
        for run_id in self._before:  # whether it is mirrored at all may be told anew
            changed = [*tags[run_id], *(key for of_run, key in gone if of_run == run_id)]
            await queue.mark_unrouted(self._connection, run_id, changed)
        pairs: list[Write] = []
        for run_id, one in self.rows.items():
            entries = [("param", Pair(key, value)) for key, value in one.run.params.items()]
            entries += [("tag", Pair(key, value)) for key, value in tags[run_id].items()]
            for some in _slices(entries):
                params = [pair for kind, pair in some if kind == "param"]
                pairs.append(Write(run_id, params=params, tags=[pair for kind, pair in some if kind == "tag"]))
        await self._log(pairs)
        for run_id, key in gone:
            await batch_queries.delete_tag(self._connection, run_id, self._before[run_id].seq + 1, key)

    async def write_points(self, piece: Sequence[PointsOf]) -> None:
        writes = []
        for run, points in piece:
            run_id = stored_id(run)
            if run_id not in self.rows:
                continue
            for point in points:
                point.value = finite_or_nan(point.value)
            self._counted[run_id] = self._counted.get(run_id, 0) + len(points)
            self.points += len(points)
            writes += [Write(run_id, metrics=some) for some in _slices(sorted(points, key=_place))]
        await self._log(writes)

    async def _log(self, writes: Sequence[Write]) -> None:
        """Together, but of each run no more at once than the mirror can take."""
        rounds: list[list[Write]] = []
        filled: dict[UUID, tuple[int, int]] = {}  # by run: in which round it is, and how many rows it has there
        for write in writes:
            number = len(write.metrics) + len(write.params) + len(write.tags)
            turn, rows = filled.get(write.run_id, (0, 0))
            if rows + number > _MOST_ROWS:
                turn, rows = turn + 1, 0
            filled[write.run_id] = turn, rows + number
            while len(rounds) <= turn:
                rounds.append([])
            rounds[turn].append(write)
        raw = await self._connection.get_raw_connection()
        for some in rounds:
            driver: asyncpg.Connection = raw.driver_connection
            if not await hot_queries.log(driver, columns(some, fewest=self._fewest)):
                raise Refused("a run of this batch is being erased")

    async def write_inputs(self) -> None:
        datasets: dict[tuple[int, str, str], tuple[Any, ...]] = {}
        read: dict[tuple[UUID, str, str], tuple[Any, ...]] = {}
        for run_id, one in self.rows.items():
            for given in one.run.datasets:
                d = given.dataset
                key = (one.experiment_id, d.name, d.digest)
                datasets.setdefault(key, (*key, d.source_type, d.source, d.schema, d.profile))
                tags = {tag.key: tag.value for tag in given.tags}
                read.setdefault((run_id, d.name, d.digest), (run_id, d.name, d.digest, tags))
        if datasets:
            await queries.add_datasets(self._connection, list(datasets.values()))
            await queries.add_dataset_inputs(self._connection, list(read.values()))
        inputs = [(run_id, model) for run_id, one in self.rows.items() for model in dict.fromkeys(one.run.model_inputs)]
        if inputs:
            await queries.add_model_inputs(self._connection, inputs)
        outputs = [
            (run_id, model, step)
            for run_id, one in self.rows.items()
            for model, step in dict(one.run.model_outputs).items()
        ]
        if outputs:
            await queries.add_model_outputs(self._connection, outputs)

    async def finish(self, source_id: int) -> None:
        if not self.rows:
            return
        seqs = await queries.finish_runs(self._connection, [self._row(one) for one in self.rows.values()])
        if self.created:
            await queries.queue_runs(self._connection, list(self.created))
        notes = [
            {
                "key": one.run.run_id, "target": run_id.hex, "fingerprint": one.print,
                "from_seq": self._from_seq(run_id), "to_seq": seqs[run_id],
                "points": self._points_of(one), "artifact_uri": one.run.artifact_uri,
            }
            for run_id, one in self.rows.items()
        ]  # fmt: skip
        await queries.note(self._connection, source_id, KIND, notes)

    def _row(self, one: _Wanted) -> dict[str, Any]:
        before, run = self._before.get(one.run_id), one.run
        if before is not None and not wrote(self._known[run.run_id].seqs, before.info_seq):  # told otherwise here since
            stage, deleted_ms = before.lifecycle_stage, before.deleted_time_ms
            nothing = dict.fromkeys(("name", "user_id", "status", "start_time_ms", "end_time_ms"))
            return {"run_id": one.run_id, **nothing, "stage": stage, "deleted_time_ms": deleted_ms}
        return {
            "run_id": one.run_id, "name": one.name, "user_id": run.user_id, "status": run.status,
            "start_time_ms": run.start_time_ms, "end_time_ms": run.end_time_ms, "stage": run.lifecycle_stage,
            "deleted_time_ms": run.deleted_time_ms,
        }  # fmt: skip

    def _from_seq(self, run_id: UUID) -> int:
        before = self._before.get(run_id)
        return 1 if before is None else int(before.seq) + 1

    def _points_of(self, one: _Wanted) -> int:
        if one.run.points is not None:
            return one.run.points
        return self._counted.get(one.run_id, 0)


def wrote(seqs: Sequence[int], seq: int) -> bool:
    """Whether an import made this write; `seqs` are those of `imported`."""
    return any(first <= seq <= last for first, last in zip(seqs[::2], seqs[1::2], strict=True))


def _is_same(known: Row[Any] | None, one: _Wanted) -> bool:
    return known is not None and known.fingerprint == one.print


def _may_have_points(one: _Wanted, known: Row[Any] | None) -> bool:
    """MLflow only adds points: as many as last time are the same ones."""
    if not one.run.latest:
        return False
    return known is None or one.run.points is None or known.points != one.run.points


def _foreign_id(run_id: str) -> str | None:
    return run_id if is_foreign(run_id) else None


def _slices(rows: Sequence[_T]) -> list[Sequence[_T]]:
    return [rows[start : start + _MOST_ROWS] for start in range(0, len(rows), _MOST_ROWS)]


def _place(point: Point) -> tuple[str, int, int]:
    return point.key, point.step, point.timestamp


def _why(error: Exception) -> str:
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, Unusual) or getattr(error, "sqlstate", None) == _PARAM_CHANGED:
        return "one of its params has another value here, and params do not change"
    return f"the database refuses it: {str(getattr(error, 'orig', error)).splitlines()[0]}"


async def _nothing() -> AsyncIterator[Sequence[PointsOf]]:
    for piece in list[Sequence[PointsOf]]():
        yield piece

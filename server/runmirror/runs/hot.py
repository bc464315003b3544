"""The writes of a training loop on the hot way: log-metric, log-parameter, set-tag, log-batch and runs/create.

What is accepted here is a part of what `wire` accepts, with the same meaning; everything else is None, and the ordinary
route answers it. See `runmirror.hot.middleware`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from runmirror import names
from runmirror.errors import Busy, InvalidParameter, Unavailable
from runmirror.hot.connections import NOT_DONE, Connections, NotConnected
from runmirror.hot.middleware import HotHandler
from runmirror.hot.together import Together
from runmirror.mirror.own_tags import ROUTING_TAGS
from runmirror.run_ids import stored_id
from runmirror.runs import hot_queries, idempotency
from runmirror.runs.hot_columns import FEWEST, NO_CHUNKS, Int64, Pair, Point, Unusual, Write, columns
from runmirror.runs.service import RUN_NAME_TAG, agreed_name, new_run_id
from runmirror.wire import EXPERIMENT_ID, INT64_MAX

_EMPTY = b"{}"
_LANES = 2
_WORTH_A_LANE = 100  # rows: a second commit beside the first costs half a millisecond of Postgres, one row 0.03
_MOST_ROWS = 1000  # of one commit, as of one log-batch: the mirror reads a write as a whole
_MOST_WAITING = 2000
_MOST_WAITING_ROWS = 250_000  # about a second of work; 70 MB with their bodies

# The name of a run, and where it is mirrored: what they change besides, the ordinary route knows.
_TELLING_TAGS = frozenset({RUN_NAME_TAG, *ROUTING_TAGS})

# Postgres said no, so the transaction is rolled back. What fails otherwise may have been committed.
_ROLLED_BACK = (asyncpg.PostgresError,)
_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class _LogMetric(Point, kw_only=True, gc=False):
    run_id: str


class _LogPair(Pair, kw_only=True, gc=False):
    run_id: str


class _LogBatch(msgspec.Struct, gc=False):
    run_id: str
    metrics: list[Point] = []
    params: list[Pair] = []
    tags: list[Pair] = []


class _CreateRun(msgspec.Struct, gc=False):
    experiment_id: str
    user_id: str = ""
    run_name: str = ""
    start_time: Int64 = 0
    tags: list[Pair] = []


_UNCLEAR = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Unusual)


@dataclass(frozen=True, slots=True)
class _NewRun:
    run_id: UUID
    experiment_id: int
    name: str
    user_id: str
    start_time_ms: int
    tags: Mapping[str, str]


class HotRuns:
    """The hot handlers of runs, over connections of their own."""

    def __init__(self, connections: Connections, *, chunks: bool) -> None:
        self.connections = connections
        self._fewest = FEWEST if chunks else NO_CHUNKS
        self._writes = Together[Write, bool](
            self._log, repeatable=(Unusual, *_ROLLED_BACK), lanes=_LANES, most=_MOST_ROWS,
            most_waiting=_MOST_WAITING, most_weight=_MOST_WAITING_ROWS, worth=_WORTH_A_LANE,
        )  # fmt: skip
        self._creations = Together[_NewRun, str | None](
            self._create, repeatable=_ROLLED_BACK, lanes=1, most=100, most_waiting=_MOST_WAITING
        )
        self._decode_metric = msgspec.json.Decoder(_LogMetric).decode
        self._decode_pair = msgspec.json.Decoder(_LogPair).decode
        self._decode_batch = msgspec.json.Decoder(_LogBatch).decode
        self._decode_run = msgspec.json.Decoder(_CreateRun).decode
        self._encode = msgspec.json.Encoder().encode

    def handlers(self) -> dict[str, HotHandler]:
        """By path, the twins of MLflow's UI among them."""
        by_name: dict[str, HotHandler] = {
            "log-metric": self.log_metric,
            "log-parameter": self.log_param,
            "set-tag": self.set_tag,
            "log-batch": self.log_batch,
            "create": self.create_run,
        }
        roots = ("/api/2.0/mlflow/runs/", "/ajax-api/2.0/mlflow/runs/")
        return {root + name: handler for root in roots for name, handler in by_name.items()}

    async def close(self) -> None:
        await self._writes.close()
        await self._creations.close()

    async def log_metric(self, body: bytes) -> bytes | None:
        with suppress(*_UNCLEAR):
            request = self._decode_metric(body)
            return await self._write(Write(_run_id(request.run_id), metrics=_checked_metrics([request])))
        return None

    async def log_param(self, body: bytes) -> bytes | None:
        with suppress(*_UNCLEAR):
            request = self._decode_pair(body)
            params = _checked_pairs([request], names.MAX_PARAM_VALUE_LENGTH)
            return await self._write(Write(_run_id(request.run_id), params=params))
        return None

    async def set_tag(self, body: bytes) -> bytes | None:
        with suppress(*_UNCLEAR):
            request = self._decode_pair(body)
            tags = _checked_pairs([request], names.MAX_TAG_VALUE_LENGTH)
            return await self._write(Write(_run_id(request.run_id), tags=tags))
        return None

    async def log_batch(self, body: bytes) -> bytes | None:
        with suppress(*_UNCLEAR):
            request = self._decode_batch(body)
            metrics, params, tags = request.metrics, request.params, request.tags
            if len(params) > names.MAX_PARAMS_PER_BATCH or len(tags) > names.MAX_TAGS_PER_BATCH:
                return None
            if len(metrics) + len(params) + len(tags) > names.MAX_ENTITIES_PER_BATCH:
                return None
            return await self._write(
                Write(
                    _run_id(request.run_id), _checked_metrics(metrics),
                    _checked_pairs(params, names.MAX_PARAM_VALUE_LENGTH),
                    _checked_pairs(tags, names.MAX_TAG_VALUE_LENGTH),
                )
            )  # fmt: skip
        return None

    async def create_run(self, body: bytes) -> bytes | None:
        with suppress(*_UNCLEAR, InvalidParameter):
            request = self._decode_run(body)
            if not EXPERIMENT_ID.match(request.experiment_id) or int(request.experiment_id) > INT64_MAX:
                return None
            if any(len(tag.key) > names.MAX_KEY_LENGTH for tag in request.tags):
                return None
            run_id = new_run_id()
            tags = {tag.key: tag.value for tag in request.tags}
            if idempotency.TAG in tags:
                return None
            name = agreed_name(request.run_name, tags.get(RUN_NAME_TAG, "")) or names.random_run_name(run_id)
            tags[RUN_NAME_TAG] = name
            run = _NewRun(run_id, int(request.experiment_id), name, request.user_id, request.start_time, tags)
            artifact_uri = await self._create_one(run)
            return None if artifact_uri is None else self._encode(_answer(run, artifact_uri))
        return None

    async def _write(self, write: Write) -> bytes | None:
        weight = len(write.metrics) + len(write.params) + len(write.tags)
        try:
            written = await self._writes.write(write, key=write.run_id, weight=weight)
        except TimeoutError as error:  # the ordinary way would only wait as long once more
            raise Busy("The database does not answer; send it again.") from error
        except (Unusual, *NOT_DONE):
            # All of these writes may be repeated: the ordinary route does so, or says what is wrong.
            return None
        return _EMPTY if written else None

    async def _log(self, writes: Sequence[Write]) -> Sequence[bool]:
        arguments = columns(writes, fewest=self._fewest)
        async with self.connections.connection() as connection:
            if not await hot_queries.log(connection, arguments):
                raise Unusual
        return [True] * len(writes)

    async def _create_one(self, run: _NewRun) -> str | None:
        try:
            return await self._creations.write(run, key=run.run_id)
        except (NotConnected, *_ROLLED_BACK):
            return None
        except _LOST as error:
            raise Unavailable("The database connection was lost; try again.") from error

    async def _create(self, runs: Sequence[_NewRun]) -> Sequence[str | None]:
        tags = [(run.run_id, key, value) for run in runs for key, value in run.tags.items()]
        columns = (
            [run.run_id for run in runs],
            [run.experiment_id for run in runs],
            [run.name for run in runs],
            [run.user_id for run in runs],
            [run.start_time_ms for run in runs],
            [run_id for run_id, _, _ in tags],
            [key for _, key, _ in tags],
            [value for _, _, value in tags],
        )
        async with self.connections.connection() as connection:
            created = await hot_queries.create(connection, columns)
        return [created.get(run.run_id) for run in runs]


def _run_id(run_id: str) -> UUID:
    """One of Azure ML's as well: a run that is not adopted yet is not there, and the ordinary route sees to that."""
    if (key := stored_id(run_id)) is None:
        raise Unusual
    return key


def _checked_metrics(metrics: Sequence[Point]) -> Sequence[Point]:
    """Points whose keys are good and that name no logged model."""
    for key in {metric.key for metric in metrics}:
        _check_name(key)
    for metric in metrics:
        if metric.model_id or metric.dataset_name or metric.dataset_digest:
            raise Unusual
    return metrics


def _checked_pairs(pairs: Sequence[Pair], longest: int) -> Sequence[Pair]:
    """Params or tags with good keys, none twice, of which none is cut or says more than itself."""
    for pair in pairs:
        _check_name(pair.key)
        if len(pair.value) > longest or pair.key in _TELLING_TAGS:
            raise Unusual
    if len({pair.key for pair in pairs}) < len(pairs):
        raise Unusual
    return pairs


def _check_name(name: str) -> None:
    try:
        names.check_name(name, "")
    except InvalidParameter as error:
        raise Unusual from error


def _answer(run: _NewRun, artifact_uri: str) -> dict[str, Any]:
    """What runs/create answers."""
    run_id = run.run_id.hex
    info = {
        "run_uuid": run_id,
        "experiment_id": str(run.experiment_id),
        "run_name": run.name,
        "user_id": run.user_id,
        "status": "RUNNING",
        "start_time": run.start_time_ms,
        "artifact_uri": artifact_uri,
        "lifecycle_stage": "active",
        "run_id": run_id,
    }
    tags = [{"key": key, "value": run.tags[key]} for key in sorted(run.tags)]
    return {"run": {"info": info, "data": {"tags": tags}, "inputs": {}}}

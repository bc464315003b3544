"""The file of what the target cannot hold: JSON Lines, made from the source's rows while they are read.

It is never held as a whole: it is read once to learn its size and hash, and once more to be copied. A tag that is
written between the two makes the second another file than the first, which is noticed, and the file is made again.
"""

import hashlib
import json
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, TextualSelect, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror.overflow import PATH
from runmirror.mirror.overflow_points_queries import POINTS
from runmirror.mirror.source_files import revision_path
from runmirror.mirror.target import RemoteFile, SourceChanged

_ROWS = 5000

_RUN = text("""
    SELECT name, EXISTS (SELECT FROM mirror_overflows WHERE run_id = :run_id AND kind = 'run_name') AS is_long
    FROM runs WHERE run_id = :run_id
""")
_PARAMS = text("""
    SELECT key, value, reason FROM mirror_overflows o JOIN params p USING (run_id, key)
    WHERE run_id = :run_id AND kind = 'param' AND seq <= :upto AND key > :after ORDER BY key LIMIT :most
""")
_TAGS = text("""
    SELECT key, value, reason FROM mirror_overflows o JOIN tags t USING (run_id, key)
    WHERE run_id = :run_id AND kind = 'tag' AND seq <= :upto AND value IS NOT NULL AND key > :after
    ORDER BY key LIMIT :most
""")
_DATASETS = text("""
    SELECT o.key, o.reason, d.name, d.digest, d.source_type, d.source, d.schema, d.profile, i.tags
    FROM mirror_overflows o
        JOIN dataset_inputs i ON i.run_id = o.run_id AND i.dataset_id = CAST(o.key AS uuid)
        JOIN datasets d USING (dataset_id)
    WHERE o.run_id = :run_id AND o.kind = 'dataset' AND i.seq <= :upto AND o.key > :after ORDER BY o.key LIMIT :most
""").columns(tags=JSONB)
_ARTIFACTS = text("""
    SELECT kind, key, reason, from_seq FROM mirror_overflows
    WHERE run_id = :run_id AND kind IN ('revision', 'deleted_artifact') AND from_seq <= :upto AND key > :after
    ORDER BY key LIMIT :most
""")
_METRICS = text("""
    SELECT key, metric_id, min(from_seq) FILTER (WHERE kind IN ('metric', 'points')) AS since,
        min(from_seq) FILTER (WHERE kind = 'nan') AS nan_since,
        jsonb_object_agg(from_seq, reason) FILTER (WHERE kind = 'points_since') AS places,
        jsonb_object_agg(from_seq, reason) FILTER (WHERE kind = 'nan_since') AS nan_places
    FROM mirror_overflows JOIN latest_metrics USING (run_id, key)
    WHERE run_id = :run_id AND kind IN ('metric', 'points', 'nan', 'points_since', 'nan_since')
    GROUP BY key, metric_id ORDER BY metric_id
""").columns(places=JSONB, nan_places=JSONB)
_NEVER = 2**31 - 1
_FIRST: Mapping[str, Any] = {"step": -(2**63), "timestamp_ms": -(2**63), "value": float("-inf")}


class OverflowFile:
    """The file as of the write `upto` of a run."""

    def __init__(self, engine: AsyncEngine, run_id: UUID, upto: int) -> None:
        self._engine = engine
        self._run_id = run_id
        self._upto = upto
        self._size = 0
        self._reading = self.parts()
        self._at = 0
        self._left_over = b""

    async def remote_file(self) -> RemoteFile:
        """The file, measured."""
        hashing = hashlib.md5(usedforsecurity=False)
        self._size = 0
        async for part in self.parts():
            hashing.update(part)
            self._size += len(part)
        return RemoteFile(PATH, revision_path(self._upto, PATH), self._size, hashing.hexdigest(), self.read)

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Whoever reads on where the last range ended costs nothing; any other range is made from the beginning."""
        if start != self._at:
            self._reading, self._at, self._left_over = self.parts(), 0, b""
            async for _ in self._up_to(start):
                pass
        return self._up_to(end)

    async def _up_to(self, end: int) -> AsyncIterator[bytes]:
        while self._at < end:
            part = self._left_over or await anext(self._reading, b"")
            if not part:
                raise SourceChanged(f"{PATH} has become shorter while it was copied")
            taken = part[: end - self._at]
            self._left_over = part[len(taken) :]
            self._at += len(taken)
            yield taken
        if end == self._size and (self._left_over or await anext(self._reading, b"")):
            raise SourceChanged(f"{PATH} has become longer while it was copied")

    async def parts(self) -> AsyncIterator[bytes]:
        """The content, some thousand lines at a time; no connection is held in between."""
        run = (await self._rows(_RUN, {}))[0]
        yield _line({"kind": "overflow", "run_id": self._run_id.hex, "upto": self._upto})
        if run["is_long"]:
            yield _line({"kind": "run_name", "value": run["name"]})
        for kind, query in (("param", _PARAMS), ("tag", _TAGS), ("dataset", _DATASETS)):
            async for rows in self._pages(query):
                yield b"".join(_line({"kind": kind, **row}) for row in rows)
        async for rows in self._pages(_ARTIFACTS):
            yield b"".join(_line(_artifact(row)) for row in rows)
        for metric in await self._rows(_METRICS, {}):
            async for part in self._points(metric):
                yield part

    async def _points(self, metric: Mapping[str, Any]) -> AsyncIterator[bytes]:
        after: Mapping[str, Any] = _FIRST
        since, nan_since = (_NEVER if metric[name] is None else metric[name] for name in ("since", "nan_since"))
        step, timestamp_ms, value = _place(metric["places"], since)
        nan_step, nan_ms, _ = _place(metric["nan_places"], nan_since)
        places = {
            "since": since, "in_step": step, "in_ms": timestamp_ms, "in_value": value,
            "nan_since": nan_since, "nan_step": nan_step, "nan_ms": nan_ms,
        }  # fmt: skip
        while rows := await self._rows(POINTS, {"metric_id": metric["metric_id"], **places, **after}):
            yield b"".join(_line({"kind": "metric", "key": metric["key"], **_wire(row)}) for row in rows)
            after = {name: rows[-1][name] for name in _FIRST}

    async def _pages(self, query: TextClause | TextualSelect) -> AsyncIterator[list[dict[str, Any]]]:
        after = ""
        while rows := await self._rows(query, {"after": after}):
            yield rows
            after = rows[-1]["key"]

    async def _rows(self, query: TextClause | TextualSelect, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        wanted = {"run_id": self._run_id, "upto": self._upto, "most": _ROWS, **values}
        named = {name: value for name, value in wanted.items() if name in query.compile().params}
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query, named)).mappings()]


def _place(places: Mapping[str, str] | None, seq: int) -> tuple[int, int, float]:
    """From which of its points on the write `seq` belongs in the file: from the first, unless it was divided."""
    told = (places or {}).get(str(seq))
    if told is None:
        return _FIRST["step"], _FIRST["timestamp_ms"], _FIRST["value"]
    step, timestamp_ms, value = json.loads(told)
    return step, timestamp_ms, float(value)


def _wire(row: Mapping[str, Any]) -> dict[str, Any]:
    """A point as MLflow writes it: JSON has no NaN and no infinities."""
    value: float | str = row["value"]
    if not math.isfinite(row["value"]):
        value = "NaN" if math.isnan(row["value"]) else "Infinity" if row["value"] > 0 else "-Infinity"
    return {"value": value, "timestamp": row["timestamp_ms"], "step": row["step"]}


def _artifact(row: Mapping[str, Any]) -> dict[str, Any]:
    line = {"kind": row["kind"], "key": row["key"], "reason": row["reason"]}
    return line if row["kind"] != "revision" else {**line, "path": revision_path(row["from_seq"], row["key"])}


def _line(entry: Mapping[str, Any]) -> bytes:
    shown = {name: value for name, value in entry.items() if value is not None}
    return json.dumps(shown, ensure_ascii=False, allow_nan=False).encode() + b"\n"

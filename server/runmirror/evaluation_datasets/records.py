"""Records of an evaluation dataset: what a client may send, which are the same, and what becomes of the two.

Pure functions, with MLflow's rules: records with equal inputs are one record. A later one replaces the outputs if it
names any, adds to expectations and tags key by key, and leaves the source and the times of creation alone.
Source: `mlflow.store.tracking` (`upsert_dataset_records`, `SqlEvaluationDatasetRecord.merge`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runmirror.errors import InvalidParameter
from runmirror.evaluation_datasets.json_text import parse

USER_TAG = "mlflow.user"
_SOURCE_TYPES = ("UNSPECIFIED", "TRACE", "HUMAN", "DOCUMENT", "CODE")


@dataclass(frozen=True, slots=True)
class Given:
    """One record as it was sent; `has_outputs` tells null from left out."""

    input_hash: str
    inputs: Mapping[str, Any]
    outputs: Any
    has_outputs: bool
    expectations: Mapping[str, Any] | None
    tags: Mapping[str, Any]
    source: Mapping[str, Any] | None

    @property
    def user(self) -> str | None:
        return user_in(self.tags)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it is stored."""

    record_id: str
    input_hash: str
    inputs: Mapping[str, Any]
    outputs: Any
    expectations: Mapping[str, Any] | None
    tags: Mapping[str, Any]
    source: Mapping[str, Any] | None
    created_time_ms: int
    last_update_time_ms: int
    created_by: str | None
    last_updated_by: str | None


def parse_records(text: str) -> list[Given]:
    """The records of a request. Raises `InvalidParameter`, saying which one is wrong."""
    found = parse(text, "records")
    if not isinstance(found, list):
        raise InvalidParameter("Invalid value for parameter 'records' supplied: expected a JSON list of records.")
    try:
        return [_given(record, f"records[{place}]") for place, record in enumerate(found)]
    except RecursionError:
        raise InvalidParameter("Invalid value for parameter 'records' supplied: it nests too deep.") from None


def new_record(record_id: str, given: Given, now_ms: int) -> Record:
    return Record(
        record_id=record_id,
        input_hash=given.input_hash,
        inputs=given.inputs,
        outputs=given.outputs if given.has_outputs else {},
        expectations=given.expectations,
        tags=given.tags,
        source=given.source,
        created_time_ms=now_ms,
        last_update_time_ms=now_ms,
        created_by=given.user,
        last_updated_by=given.user,
    )


def merged(record: Record, given: Given, now_ms: int) -> Record:
    return replace(
        record,
        outputs=given.outputs if given.has_outputs else record.outputs,
        expectations={**(record.expectations or {}), **given.expectations}
        if given.expectations
        else record.expectations,
        tags={**record.tags, **given.tags},
        last_update_time_ms=now_ms,
        last_updated_by=given.user if given.user is not None else record.last_updated_by,
    )


def updated_schema(schema: str | None, records: Iterable[Given]) -> str | None:
    """The kinds of every field ever seen, as MLflow writes them; the first kind of a field stays."""
    records = list(records)
    if not records:
        return schema
    known: dict[str, Any] = {"inputs": {}, "outputs": {}, "expectations": {}, "version": "1.0"}
    known |= json.loads(schema or "{}")
    for record in records:
        _add_fields(known["inputs"], record.inputs)
        _add_fields(known["expectations"], record.expectations or {})
        outputs = known["outputs"]  # of one kind, or fields of their own
        if isinstance(record.outputs, dict):
            if isinstance(outputs, dict):
                _add_fields(outputs, record.outputs)
        elif record.outputs is not None and not outputs:
            known["outputs"] = _kind(record.outputs)
    return json.dumps(known)


def digest(name: str, last_update_time_ms: int) -> str:
    return hashlib.sha256(f"{name}:{last_update_time_ms}".encode()).hexdigest()[:8]


def user_in(tags: Mapping[str, Any]) -> str | None:
    """Who writes, as MLflow's clients say it."""
    user = tags.get(USER_TAG)
    return None if user is None else str(user)


def source_id(source: Mapping[str, Any]) -> str | None:
    """What the record was made of: a trace, or whatever its maker calls `source_id`."""
    found = source["source_data"].get("trace_id" if source["source_type"] == "TRACE" else "source_id")
    return None if found is None else str(found)


def _given(record: Any, place: str) -> Given:
    record = _object(record, place)
    inputs = _object(record.get("inputs", {}), f"{place}.inputs")
    expectations = record.get("expectations")
    return Given(
        input_hash=hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
        inputs=inputs,
        outputs=record.get("outputs"),
        has_outputs="outputs" in record,
        expectations=None if expectations is None else _object(expectations, f"{place}.expectations"),
        tags=_object(record.get("tags") or {}, f"{place}.tags"),
        source=_source(record["source"], f"{place}.source") if record.get("source") else None,
    )


def _source(given: Any, place: str) -> Mapping[str, Any]:
    source = _object(given, place)
    kind = str(source.get("source_type", "")).upper()
    if kind not in _SOURCE_TYPES:
        raise InvalidParameter(
            f"Invalid dataset record source type: {kind[:80]}. Valid source types: {list(_SOURCE_TYPES)}"
        )
    if unknown := sorted(set(source) - {"source_type", "source_data"}):
        raise _wrong(place, f"unknown field {unknown[0][:80]!r}")
    return {"source_type": kind, "source_data": _object(source.get("source_data") or {}, f"{place}.source_data")}


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(place, "expected a JSON object")
    return value


def _wrong(place: str, why: str) -> InvalidParameter:
    return InvalidParameter(f"Invalid value for parameter '{place}' supplied: {why}.")


def _add_fields(known: dict[str, str], fields: Mapping[str, Any]) -> None:
    for key, value in fields.items():
        known.setdefault(key, _kind(value))


def _kind(value: Any) -> str:
    return "null" if value is None else _KINDS[type(value)]


_KINDS: Mapping[type, str] = {
    bool: "boolean", int: "integer", float: "float", str: "string", list: "array", dict: "object",
}  # fmt: skip


def apply(
    stored: Mapping[str, Record], given: Sequence[Given], record_ids: Iterable[str], now_ms: int
) -> tuple[list[Record], int]:
    """What has to be written, by inputs, and how many of the records given are new."""
    ids = iter(record_ids)
    written: dict[str, Record] = {}
    inserted = 0
    for one in given:
        known = written.get(one.input_hash) or stored.get(one.input_hash)
        inserted += known is None
        written[one.input_hash] = new_record(next(ids), one, now_ms) if known is None else merged(known, one, now_ms)
    return list(written.values()), inserted

"""SQL of the records of evaluation datasets; their JSON is text here and nowhere else."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Text, bindparam, select, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.evaluation_datasets.records import Record
from runmirror.search import paging
from runmirror.search.clauses import is_one_of
from runmirror.search.paging import SortTerm
from runmirror.tables import evaluation_dataset_records

_JSON = ("inputs", "outputs", "expectations", "tags", "source")
_TEXTS = ("record_id", "input_hash", *_JSON, "created_by", "last_updated_by")
_TIMES = ("created_time_ms", "last_update_time_ms")
_COLUMNS = (*_TEXTS, *_TIMES)
_ORDER = [SortTerm(evaluation_dataset_records.c.record_id, str)]

_WRITE = text(f"""
    INSERT INTO evaluation_dataset_records (dataset_id, {", ".join(_COLUMNS)})
    SELECT CAST(:dataset_id AS text), * FROM unnest({", ".join(f":{name}" for name in _COLUMNS)})
    ON CONFLICT (dataset_id, input_hash) DO UPDATE SET
        outputs = excluded.outputs, expectations = excluded.expectations, tags = excluded.tags,
        last_update_time_ms = excluded.last_update_time_ms, last_updated_by = excluded.last_updated_by
""").bindparams(  # the names are ours
    *(bindparam(name, type_=ARRAY(Text)) for name in _TEXTS),
    *(bindparam(name, type_=ARRAY(BigInteger)) for name in _TIMES),
)

_WRITTEN = text("""
    UPDATE evaluation_datasets SET
        last_update_time_ms = :now_ms, last_updated_by = :user, digest = :digest, schema = :schema,
        num_records = CASE WHEN :inserted > 0 THEN coalesce(num_records, 0) + :inserted ELSE num_records END
    WHERE dataset_id = :dataset_id
""").bindparams(bindparam("user", type_=Text), bindparam("schema", type_=Text), bindparam("inserted", type_=BigInteger))

_DELETE = text("""
    WITH deleted AS (
        DELETE FROM evaluation_dataset_records WHERE dataset_id = :dataset_id AND record_id = ANY(:record_ids)
        RETURNING 1),
    counted AS (SELECT count(*) AS n FROM deleted),
    fewer AS (
        UPDATE evaluation_datasets SET num_records = num_records - n FROM counted
        WHERE dataset_id = :dataset_id AND n > 0)
    SELECT n FROM counted
""").bindparams(bindparam("record_ids", type_=ARRAY(Text)))


async def with_inputs(connection: AsyncConnection, dataset_id: str, hashes: Sequence[str]) -> dict[str, Record]:
    """The stored records with these inputs, by their hash."""
    rows = evaluation_dataset_records.c
    query = select(evaluation_dataset_records).where(
        rows.dataset_id == dataset_id, is_one_of(rows.input_hash, hashes, Text())
    )
    return {row.input_hash: _record(row) for row in await connection.execute(query)}


async def write(connection: AsyncConnection, dataset_id: str, records: Sequence[Record]) -> None:
    """Insert, or replace what may change of the records with the same inputs; by hash, as every writer does it."""
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in _COLUMNS}
    for name in _JSON:
        columns[name] = [None if value is None else json.dumps(value) for value in columns[name]]
    await connection.execute(_WRITE, {"dataset_id": dataset_id, **columns})


async def note_written(
    connection: AsyncConnection,
    dataset_id: str,
    *,
    inserted: int,
    user: str | None,
    digest: str,
    schema: str | None,
    now_ms: int,
) -> None:
    values = {
        "dataset_id": dataset_id, "inserted": inserted, "user": user, "digest": digest, "schema": schema,
        "now_ms": now_ms,
    }  # fmt: skip
    await connection.execute(_WRITTEN, values)


async def delete(connection: AsyncConnection, dataset_id: str, record_ids: Sequence[str]) -> int:
    """How many there were; the caller holds the dataset's lock."""
    values = {"dataset_id": dataset_id, "record_ids": list(record_ids)}
    return int(await connection.scalar(_DELETE, values) or 0)


async def page(
    connection: AsyncConnection, dataset_id: str, max_results: int, page_token: str
) -> tuple[list[Record], str | None]:
    """Records in the order of their insertion, and a token if more follow."""
    query = select(evaluation_dataset_records).where(evaluation_dataset_records.c.dataset_id == dataset_id)
    name = paging.fingerprint("dataset records", dataset_id)
    rows, more = await paging.fetch_page(
        connection, query, _ORDER, name=name, max_results=max_results, page_token=page_token
    )
    return [_record(row) for row in rows], more


def _record(row: Row[Any]) -> Record:
    values = {name: getattr(row, name) for name in _COLUMNS}
    for name in _JSON:
        values[name] = None if values[name] is None else json.loads(values[name])
    return Record(**values)

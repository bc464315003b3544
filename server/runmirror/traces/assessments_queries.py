"""SQL of assessments. Whoever writes one holds its trace, so that the trace is not deleted meanwhile."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

_COLUMNS = (
    "trace_id", "assessment_id", "kind", "name", "value", "error", "source_type", "source_id", "created_ms",
    "updated_ms", "span_id", "rationale", "overrides", "valid", "assessment_metadata", "number", "is_number",
)  # fmt: skip

_HOLD = text("SELECT 1 FROM traces WHERE trace_id = :trace_id FOR KEY SHARE")

_WRITE = text(f"""
    INSERT INTO assessments ({", ".join(_COLUMNS)})
    SELECT {", ".join(_COLUMNS)} FROM json_populate_recordset(NULL::assessments, CAST(:rows AS json))
    ORDER BY assessment_id
    ON CONFLICT (trace_id, assessment_id) DO UPDATE SET {", ".join(f"{c} = excluded.{c}" for c in _COLUMNS[2:])}
""").bindparams(bindparam("rows", type_=Text))

_CREATE = text(f"""
    INSERT INTO assessments ({", ".join(_COLUMNS)})
    SELECT {", ".join(_COLUMNS)} FROM json_populate_recordset(NULL::assessments, CAST(:rows AS json))
    ON CONFLICT (trace_id, assessment_id) DO NOTHING
    RETURNING assessment_id
""").bindparams(bindparam("rows", type_=Text))

_SET_VALID = text("""
    UPDATE assessments SET valid = :valid WHERE trace_id = :trace_id AND assessment_id = :assessment_id
    RETURNING assessment_id
""")

_ONE = "SELECT * FROM assessments WHERE trace_id = :trace_id AND assessment_id = :assessment_id"
_GET = text(_ONE).columns(error=JSONB, assessment_metadata=JSONB)
_LOCK = text(f"{_ONE} FOR UPDATE").columns(error=JSONB, assessment_metadata=JSONB)

_UPDATE = text("""
    UPDATE assessments SET name = :name, value = :value, error = :error, updated_ms = :updated_ms,
        rationale = :rationale, assessment_metadata = :assessment_metadata, number = :number, is_number = :is_number
    WHERE trace_id = :trace_id AND assessment_id = :assessment_id
""").bindparams(
    bindparam("error", type_=JSONB(none_as_null=True)),
    bindparam("assessment_metadata", type_=JSONB(none_as_null=True)),
    bindparam("updated_ms", type_=BigInteger),
)

_DELETE = text("""
    DELETE FROM assessments WHERE trace_id = :trace_id AND assessment_id = :assessment_id RETURNING overrides
""")


async def hold_trace(connection: AsyncConnection, trace_id: str) -> bool:
    """Whether there is such a trace; it stays until the transaction ends."""
    return await connection.scalar(_HOLD, {"trace_id": trace_id}) is not None


async def write(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add or replace, by id; no two rows of one id."""
    if rows:
        await connection.execute(_WRITE, {"rows": json.dumps(rows)})


async def create(connection: AsyncConnection, row: Mapping[str, Any]) -> bool:
    """False when the trace has an assessment of this id."""
    return await connection.scalar(_CREATE, {"rows": json.dumps([row])}) is not None


async def set_valid(connection: AsyncConnection, trace_id: str, assessment_id: str, *, valid: bool) -> bool:
    """Whether there is such an assessment."""
    values = {"trace_id": trace_id, "assessment_id": assessment_id, "valid": valid}
    return await connection.scalar(_SET_VALID, values) is not None


async def get(connection: AsyncConnection, trace_id: str, assessment_id: str, *, lock: bool = False) -> Row[Any] | None:
    values = {"trace_id": trace_id, "assessment_id": assessment_id}
    return (await connection.execute(_LOCK if lock else _GET, values)).one_or_none()


async def update(connection: AsyncConnection, values: Mapping[str, Any]) -> None:
    await connection.execute(_UPDATE, values)


async def delete(connection: AsyncConnection, trace_id: str, assessment_id: str) -> str | None:
    """The id of the assessment that it replaced; None when it replaced none, or was not there."""
    values = {"trace_id": trace_id, "assessment_id": assessment_id}
    overrides: str | None = await connection.scalar(_DELETE, values)
    return overrides

"""SQL of the audit log."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Text, bindparam, text
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.audit.caller import the_caller
from runmirror.logs import request_id

_LONGEST = 1000

_RECORD = text("""
    INSERT INTO audit_log (caller, request_id, action, subject) VALUES (:caller, :request_id, :action, :subject)
""")
_READ = text("""
    SELECT entry_id, at, caller, request_id, action, subject FROM audit_log
    WHERE (:since IS NULL OR at >= :since) AND (:action IS NULL OR starts_with(action, :action)) AND entry_id > :after
    ORDER BY entry_id LIMIT :most
""").bindparams(bindparam("since", type_=DateTime(timezone=True)), bindparam("action", type_=Text))


async def record(connection: AsyncConnection, action: str, subject: str) -> None:
    """`action` is resource.verb, e.g. run.delete; `subject` its id or name."""
    values = {"caller": the_caller(), "request_id": request_id.get(), "action": action, "subject": subject[:_LONGEST]}
    await connection.execute(_RECORD, values)


async def read(
    connection: AsyncConnection, *, since: datetime | None, action: str | None, after: int, most: int
) -> Sequence[Row[Any]]:
    """A page of entries in their order."""
    values = {"since": since, "action": action, "after": after, "most": most}
    return (await connection.execute(_READ, values)).all()

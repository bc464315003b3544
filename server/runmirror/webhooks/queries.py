"""All SQL of webhooks, except their deliveries' (`queue`)."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.search import paging
from runmirror.search.paging import SortTerm
from runmirror.tables import webhook_deliveries, webhooks

_NEWEST_FIRST = (
    SortTerm(webhooks.c.creation_time_ms, int, descending=True),
    SortTerm(webhooks.c.webhook_id, UUID, descending=True),
)


async def create(connection: AsyncConnection, values: Mapping[str, Any]) -> Row[Any]:
    row: Row[Any] = (await connection.execute(insert(webhooks).values(**values).returning(webhooks))).one()
    return row


async def get(connection: AsyncConnection, webhook_id: UUID) -> Row[Any] | None:
    return (await connection.execute(select(webhooks).where(webhooks.c.webhook_id == webhook_id))).one_or_none()


async def list_page(
    connection: AsyncConnection, max_results: int, page_token: str
) -> tuple[Sequence[Row[Any]], str | None]:
    """One page, newest first, and the token of the next."""
    name = paging.fingerprint("webhooks")
    query = select(webhooks).order_by(*(clause for term in _NEWEST_FIRST for clause in term.clauses()))
    if page_token:
        last = paging.decode_token(page_token, name, _NEWEST_FIRST)
        query = query.where(paging.follows(_NEWEST_FIRST, last))
    rows = (await connection.execute(query.limit(max_results + 1))).all()
    page = rows[:max_results]
    more = len(rows) > max_results
    return page, paging.encode_token(name, [page[-1].creation_time_ms, page[-1].webhook_id]) if more else None


async def change(connection: AsyncConnection, webhook_id: UUID, values: Mapping[str, Any]) -> Row[Any] | None:
    """The webhook with these values; None: there is no such webhook."""
    changed = update(webhooks).where(webhooks.c.webhook_id == webhook_id).values(**values).returning(webhooks)
    row: Row[Any] | None = (await connection.execute(changed)).one_or_none()
    return row


async def cancel_deliveries(connection: AsyncConnection, webhook_id: UUID) -> None:
    due = delete(webhook_deliveries).where(webhook_deliveries.c.webhook_id == webhook_id)
    await connection.execute(due.where(webhook_deliveries.c.state == "due"))


async def erase(connection: AsyncConnection, webhook_id: UUID) -> bool:
    """Erase a webhook with its deliveries; whether there was one."""
    erased = delete(webhooks).where(webhooks.c.webhook_id == webhook_id).returning(webhooks.c.webhook_id)
    return await connection.scalar(erased) is not None

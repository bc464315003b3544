"""HTTP of webhooks: parse, call one function, answer."""

from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.engine import Row

from runmirror.db import ReadConnection, read_connection, write_connection
from runmirror.errors import InvalidParameter
from runmirror.routing import Permission, mlflow_route
from runmirror.webhooks import queries, wire
from runmirror.webhooks.sender import Answered
from runmirror.webhooks.service import Webhooks
from runmirror.wire import Empty

router = APIRouter(tags=["webhooks"])

_MOST_PER_PAGE = 1000


def webhooks_of(request: Request) -> Webhooks:
    return Webhooks(
        request.app.state.webhook_sender,
        reading=partial(asynccontextmanager(read_connection), request),
        writing=partial(asynccontextmanager(write_connection), request),
    )


Service = Annotated[Webhooks, Depends(webhooks_of)]


@mlflow_route(router, "POST", "/webhooks", permission=Permission.MANAGE)
async def create_webhook(request: wire.CreateWebhook, service: Service) -> wire.WebhookAnswer:
    """Have a URL told of events of the registry."""
    return _answer(await service.create(request))


@mlflow_route(router, "GET", "/webhooks", permission=Permission.MANAGE)
async def list_webhooks(
    request: Annotated[wire.ListWebhooks, Query()], connection: ReadConnection
) -> wire.WebhooksPage:
    """All webhooks, newest first."""
    max_results = request.max_results or 100
    if not 1 <= max_results <= _MOST_PER_PAGE:
        raise InvalidParameter(f"max_results must be between 1 and {_MOST_PER_PAGE}.")
    rows, token = await queries.list_page(connection, max_results, request.page_token)
    return wire.WebhooksPage(webhooks=[_to_wire(row) for row in rows] or None, next_page_token=token)


@mlflow_route(router, "GET", "/webhooks/{webhook_id}", permission=Permission.MANAGE)
async def get_webhook(webhook_id: str, service: Service) -> wire.WebhookAnswer:
    return _answer(await service.get(webhook_id))


@mlflow_route(router, "PATCH", "/webhooks/{webhook_id}", permission=Permission.MANAGE)
async def update_webhook(webhook_id: str, request: wire.UpdateWebhook, service: Service) -> wire.WebhookAnswer:
    """Change what is given; DISABLED also drops what it was still to be told."""
    return _answer(await service.update(webhook_id, request))


@mlflow_route(router, "DELETE", "/webhooks/{webhook_id}", permission=Permission.MANAGE)
async def delete_webhook(webhook_id: str, service: Service) -> Empty:
    await service.delete(webhook_id)
    return Empty()


@mlflow_route(router, "POST", "/webhooks/{webhook_id}/test", permission=Permission.MANAGE)
async def try_webhook(webhook_id: str, service: Service, request: wire.TryWebhook | None = None) -> wire.TryAnswer:
    """Send an example and tell what came of it; nothing is tried twice."""
    result = await service.test(webhook_id, request.event if request else None)
    if isinstance(result, Answered):
        told = wire.ResultWire(
            success=result.success, response_status=result.status, response_body=result.body
        )  # fmt: skip
    else:
        told = wire.ResultWire(success=False, error_message=f"Failed to test webhook: {result.reason}")
    return wire.TryAnswer(result=told)


def _answer(row: Row[Any]) -> wire.WebhookAnswer:
    return wire.WebhookAnswer(webhook=_to_wire(row))


def _to_wire(row: Row[Any]) -> wire.WebhookWire:
    events = [dict(zip(("entity", "action"), event.upper().split("."), strict=True)) for event in row.events]
    return wire.WebhookWire(
        webhook_id=str(row.webhook_id),
        name=row.name,
        description=row.description or None,
        url=row.url,
        events=[wire.EventOut(**event) for event in events],
        status=row.status,
        creation_timestamp=row.creation_time_ms,
        last_updated_timestamp=row.last_updated_time_ms,
    )

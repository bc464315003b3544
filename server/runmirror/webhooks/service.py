"""One function per operation on webhooks: the rules and their order.

No connection is held while a host's name is looked up or a webhook is tested.
"""

import re
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.errors import Busy, DoesNotExist, InvalidParameter
from runmirror.webhooks import queries
from runmirror.webhooks.events import EXAMPLES, body_of
from runmirror.webhooks.sender import Answered, NotAnswered, Sender
from runmirror.webhooks.wire import CreateWebhook, EventIn, UpdateWebhook

MAX_DESCRIPTION_LENGTH = 1000  # the width of MLflow's column

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", re.IGNORECASE | re.ASCII)

Connecting = Callable[[], AbstractAsyncContextManager[AsyncConnection]]


class WebhookNotFound(DoesNotExist):
    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"Webhook with ID {webhook_id[:80]} not found.")


@dataclass(frozen=True, slots=True)
class Webhooks:
    """`reading` and `writing` open a connection each time: a write commits at the end of its block."""

    sender: Sender
    reading: Connecting
    writing: Connecting

    async def create(self, request: CreateWebhook) -> Row[Any]:
        events = _events(request.events)
        _check_name(request.name)
        _check_description(request.description)
        if not events:
            raise InvalidParameter("Webhook events must be a non-empty list of events: [].")
        secret = self.sender.secrets.encrypt(request.secret)
        await self.sender.guard.check(request.url)
        now_ms = _now_ms()
        async with self.writing() as connection:
            made = await queries.create(
                connection,
                {
                    "name": request.name, "url": request.url, "events": events, "description": request.description,
                    "secret": secret, "status": request.status, "creation_time_ms": now_ms,
                    "last_updated_time_ms": now_ms,
                },
            )  # fmt: skip
            await audit.record(connection, "webhook.create", f"{made.webhook_id} to {_host(request.url)}")
            return made

    async def get(self, webhook_id: str) -> Row[Any]:
        async with self.reading() as connection:
            row = await queries.get(connection, _parse_id(webhook_id))
        if row is None:
            raise WebhookNotFound(webhook_id)
        return row

    async def update(self, webhook_id: str, request: UpdateWebhook) -> Row[Any]:
        events = _events(request.events)
        await self.get(webhook_id)
        changes: dict[str, Any] = {"last_updated_time_ms": _now_ms()}
        if request.name:
            _check_name(request.name)
            changes["name"] = request.name
        if request.url:
            await self.sender.guard.check(request.url)
            changes["url"] = request.url
        if events:
            changes["events"] = events
        if request.description is not None:
            _check_description(request.description)
            changes["description"] = request.description
        if request.secret is not None:
            changes["secret"] = self.sender.secrets.encrypt(request.secret)
        if request.status is not None:
            changes["status"] = request.status
        async with self.writing() as connection:
            row = await queries.change(connection, _parse_id(webhook_id), changes)
            if row is None:  # deleted since we looked
                raise WebhookNotFound(webhook_id)
            if request.status == "DISABLED":
                await queries.cancel_deliveries(connection, row.webhook_id)
            await audit.record(connection, "webhook.update", f"{row.webhook_id} to {_host(row.url)}")
            return row

    async def delete(self, webhook_id: str) -> None:
        """Erase it, and what it was still to be told."""
        async with self.writing() as connection:
            if not await queries.erase(connection, _parse_id(webhook_id)):
                raise WebhookNotFound(webhook_id)
            await audit.record(connection, "webhook.delete", webhook_id)

    async def test(self, webhook_id: str, event: EventIn | None) -> Answered | NotAnswered:
        """Send an example of `event`, or of the first that the webhook asks for, once."""
        asked = None if event is None else event.to_event()
        webhook = await self.get(webhook_id)
        asked = asked or webhook.events[0]
        if self.sender.tests.locked():
            raise Busy("Too many webhooks are being tested; try again.")
        async with self.sender.tests:
            return await self.sender.send(webhook.url, webhook.secret, uuid.uuid4(), body_of(asked, EXAMPLES[asked]))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f"Webhook name {name[:80]!r} is invalid. It must start and end with a letter or digit, be less than 63 "
            "characters long, and contain only letters, digits, dots (.), underscores (_), and hyphens (-)."
        )


def _check_description(description: str) -> None:
    if len(description) > MAX_DESCRIPTION_LENGTH:
        raise InvalidParameter(f"'description' exceeds the maximum length of {MAX_DESCRIPTION_LENGTH} characters")


def _events(given: Sequence[EventIn]) -> list[str]:
    """As they are stored and shown: each once, by name, whatever their order was."""
    return sorted({one.to_event() for one in given}, key=lambda event: event.split("."))


def _parse_id(webhook_id: str) -> UUID:
    try:
        parsed = UUID(webhook_id)
    except ValueError:
        raise WebhookNotFound(webhook_id) from None
    if str(parsed) != webhook_id:
        raise WebhookNotFound(webhook_id)
    return parsed


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _host(url: str) -> str:
    """As much of a URL as may be told: its path often holds a secret."""
    return urlsplit(url).hostname or ""

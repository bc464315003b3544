"""The outbox: one row for each event and each active webhook that asked for it, written by the event's own transaction.

    due ──claim──▶ leased ──finish──▶ delivered, or failed for good
     ▲                └──postpone, or the lease expires──▶ due
     └ record

A leased row is a due one whose `due_at`, moved into the future by the claim, is the end of the lease. A process killed
between sending and `finish` leaves it there, so the same delivery id is sent again: receivers tell repeats by it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.webhooks.events import Payload, body_of

CHANNEL = "runmirror_webhooks"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One claimed delivery; `attempts` counts this one."""

    delivery_id: UUID
    webhook_id: UUID
    token: UUID
    attempts: int
    body: str
    url: str
    secret: str | None


_RECORD = text(f"""
    WITH made AS (
        INSERT INTO webhook_deliveries (webhook_id, body)
        SELECT webhook_id, :body FROM webhooks WHERE status = 'ACTIVE' AND :event = ANY (events)
        RETURNING delivery_id)
    SELECT pg_notify('{CHANNEL}', '') FROM made LIMIT 1
""").bindparams(bindparam("body", type_=Text), bindparam("event", type_=Text))  # noqa: S608 - a constant of ours

_BUSY = bindparam("busy", type_=ARRAY(Uuid))

# One of each webhook, so that a receiver that hangs holds up nobody but itself.
_CLAIM = text("""
    WITH picked AS (
        SELECT w.webhook_id, w.url, w.secret, d.delivery_id
        FROM webhooks w, LATERAL (
            SELECT delivery_id, due_at FROM webhook_deliveries
            WHERE webhook_id = w.webhook_id AND state = 'due' AND due_at <= now()
            ORDER BY due_at LIMIT 1
            FOR UPDATE SKIP LOCKED) d
        WHERE w.status = 'ACTIVE' AND w.webhook_id <> ALL (:busy)
        ORDER BY d.due_at LIMIT :most)
    UPDATE webhook_deliveries d
    SET lease_token = gen_random_uuid(), due_at = now() + CAST(:ttl AS interval), attempts = attempts + 1
    FROM picked WHERE d.delivery_id = picked.delivery_id
    RETURNING d.delivery_id, d.webhook_id, d.lease_token, d.attempts, d.body, picked.url, picked.secret
""").bindparams(_BUSY)

_NEXT = text("""
    SELECT extract(epoch FROM min(d.due_at) - now())
    FROM webhooks w JOIN webhook_deliveries d USING (webhook_id)
    WHERE d.state = 'due' AND w.status = 'ACTIVE' AND w.webhook_id <> ALL (:busy)
""").bindparams(_BUSY)

# Fenced: who lost the lease changes nothing.
_HELD = "delivery_id = :delivery_id AND lease_token = :token AND state = 'due'"
_FINISH = text(f"""
    UPDATE webhook_deliveries SET state = :state, outcome = :outcome, finished_at = now(), lease_token = NULL
    WHERE {_HELD}
""")  # noqa: S608
_POSTPONE = text(f"""
    UPDATE webhook_deliveries
    SET due_at = now() + CAST(:wait AS interval), outcome = :outcome, lease_token = NULL WHERE {_HELD}
""")  # noqa: S608
_GIVE_BACK = text(f"""
    UPDATE webhook_deliveries SET due_at = now(), attempts = attempts - 1, lease_token = NULL WHERE {_HELD}
""")  # noqa: S608

_FORGET = text("""
    DELETE FROM webhook_deliveries WHERE delivery_id IN (
        SELECT delivery_id FROM webhook_deliveries
        WHERE finished_at < now() - CAST(:age AS interval) ORDER BY finished_at LIMIT 10000)
""")


async def record(connection: AsyncConnection, event: str, data: Payload) -> None:
    """Ask for an event to be told, in the transaction that makes it happen."""
    await connection.execute(_RECORD, {"event": event, "body": body_of(event, data)})


async def claim(
    connection: AsyncConnection, *, most: int, busy: Collection[UUID], ttl: timedelta
) -> list[Delivery]:  # fmt: skip
    """Lease the delivery that waits longest of each webhook that is not `busy`, up to `most`."""
    rows = await connection.execute(_CLAIM, {"most": most, "busy": list(busy), "ttl": ttl})
    return [Delivery(*row) for row in rows]


async def seconds_to_next(connection: AsyncConnection, *, busy: Collection[UUID]) -> float | None:
    """How long until `claim` can find something; None when nothing waits."""
    seconds = await connection.scalar(_NEXT, {"busy": list(busy)})
    return None if seconds is None else float(seconds)


async def finish(connection: AsyncConnection, delivery: Delivery, *, delivered: bool, outcome: str) -> None:
    state = "delivered" if delivered else "failed"
    await connection.execute(_FINISH, {**_lease(delivery), "state": state, "outcome": outcome})


async def postpone(connection: AsyncConnection, delivery: Delivery, *, wait: timedelta, outcome: str) -> None:
    await connection.execute(_POSTPONE, {**_lease(delivery), "wait": wait, "outcome": outcome})


async def give_back(connection: AsyncConnection, delivery: Delivery) -> None:
    """As if it had not been claimed: it may have been sent, so it may arrive twice."""
    await connection.execute(_GIVE_BACK, _lease(delivery))


async def forget_finished(connection: AsyncConnection, *, age: timedelta) -> None:
    await connection.execute(_FORGET, {"age": age})


def _lease(delivery: Delivery) -> dict[str, UUID]:
    return {"delivery_id": delivery.delivery_id, "token": delivery.token}

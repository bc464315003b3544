"""Webhooks and what they are still to be told. The states of a delivery are drawn in `runmirror.webhooks.queue`."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from runmirror.tables.base import metadata

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", UUID, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("name", Text, nullable=False),  # need not be unique
    Column("description", Text, nullable=False, server_default=""),
    Column("url", Text, nullable=False),
    Column("events", ARRAY(Text), nullable=False),  # as `registered_model.created`, sorted
    Column("status", Text, nullable=False),
    Column("secret", Text),  # encrypted
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_updated_time_ms", BigInteger, nullable=False),
    CheckConstraint("status IN ('ACTIVE', 'DISABLED')", name="status"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("delivery_id", UUID, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("webhook_id", UUID, ForeignKey("webhooks.webhook_id", ondelete="CASCADE"), nullable=False),
    Column("body", Text, nullable=False),  # what is sent, byte by byte: the signature covers it
    Column("state", Text, nullable=False, server_default="due"),
    Column("due_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),  # or the lease's end
    Column("lease_token", UUID),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("outcome", Text),  # of the last attempt, for people
    Column("finished_at", DateTime(timezone=True)),
    CheckConstraint("state IN ('due', 'delivered', 'failed')", name="state"),
    Index("ix_webhook_deliveries_due_at", "webhook_id", "due_at", postgresql_where=text("state = 'due'")),
    Index("ix_webhook_deliveries_finished_at", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
)

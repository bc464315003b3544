"""Webhooks, and the outbox of what they are still to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = """
    CREATE TABLE webhooks (
        webhook_id UUID DEFAULT gen_random_uuid() NOT NULL,
        name TEXT NOT NULL,
        description TEXT DEFAULT '' NOT NULL,
        url TEXT NOT NULL,
        events TEXT[] NOT NULL,
        status TEXT NOT NULL,
        secret TEXT,
        creation_time_ms BIGINT NOT NULL,
        last_updated_time_ms BIGINT NOT NULL,
        CONSTRAINT pk_webhooks PRIMARY KEY (webhook_id),
        CONSTRAINT ck_webhooks_status CHECK (status IN ('ACTIVE', 'DISABLED'))
    );

    CREATE TABLE webhook_deliveries (
        delivery_id UUID DEFAULT gen_random_uuid() NOT NULL,
        webhook_id UUID NOT NULL,
        body TEXT NOT NULL,
        state TEXT DEFAULT 'due' NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        lease_token UUID,
        attempts INTEGER DEFAULT '0' NOT NULL,
        outcome TEXT,
        finished_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT pk_webhook_deliveries PRIMARY KEY (delivery_id),
        CONSTRAINT ck_webhook_deliveries_state CHECK (state IN ('due', 'delivered', 'failed')),
        CONSTRAINT fk_webhook_deliveries_webhook_id FOREIGN KEY (webhook_id)
            REFERENCES webhooks (webhook_id) ON DELETE CASCADE
    );

    CREATE INDEX ix_webhook_deliveries_due_at ON webhook_deliveries (webhook_id, due_at) WHERE state = 'due';

    CREATE INDEX ix_webhook_deliveries_finished_at ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL;
"""


def upgrade() -> None:
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(sa.text(statement))


def downgrade() -> None:
    for table in ("webhook_deliveries", "webhooks"):
        op.execute(sa.text(f"DROP TABLE {table}"))

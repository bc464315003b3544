"""Registered models in the workspace; where a logged model's files lie in the mirrored run."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TABLES = """
    CREATE TABLE mirrored_models (
        registered_model_id BIGINT NOT NULL,
        link_id INTEGER,
        state TEXT DEFAULT 'due' NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        behind_since TIMESTAMP WITH TIME ZONE DEFAULT now(),
        watermark BIGINT DEFAULT '0' NOT NULL,
        deleted BOOLEAN DEFAULT 'false' NOT NULL,
        waits_run_id UUID,
        waits_seq INTEGER,
        waits_aside BOOLEAN DEFAULT 'false' NOT NULL,
        attempt INTEGER DEFAULT '0' NOT NULL,
        lease_token UUID,
        lease_expires_at TIMESTAMP WITH TIME ZONE,
        remote_name TEXT,
        told JSONB DEFAULT '{}' NOT NULL,
        problems JSONB DEFAULT '[]' NOT NULL,
        last_error TEXT,
        last_error_at TIMESTAMP WITH TIME ZONE,
        mirrored_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT pk_mirrored_models PRIMARY KEY (registered_model_id),
        CONSTRAINT ck_mirrored_models_state CHECK (state IN ('current', 'due', 'leased', 'quarantined', 'off'))
    );

    CREATE INDEX ix_mirrored_models_due_at ON mirrored_models (due_at) WHERE state = 'due';

    CREATE UNIQUE INDEX ix_mirrored_models_remote_name ON mirrored_models (link_id, remote_name) WHERE NOT deleted;

    CREATE TABLE mirrored_versions (
        registered_model_id BIGINT NOT NULL,
        version INTEGER NOT NULL,
        remote_version TEXT,
        problem TEXT,
        CONSTRAINT pk_mirrored_versions PRIMARY KEY (registered_model_id, version)
    );
"""


def upgrade() -> None:
    op.add_column("logged_models", sa.Column("mirror_folder", sa.Text))
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(sa.text(statement))


def downgrade() -> None:
    op.drop_table("mirrored_versions")
    op.drop_table("mirrored_models")
    op.drop_column("logged_models", "mirror_folder")

"""Model versions that are deployed in a workspace."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("now()")
    op.create_table(
        "deployments",
        sa.Column("deployment_id", sa.UUID, primary_key=True, server_default=sa.text("gen_random_uuid()")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("created_by", sa.Text, nullable=False, server_default=""),
        sa.Column("workspace_id", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("registered_model_id", sa.BigInteger, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("spec", JSONB, nullable=False, server_default="{}"),
        sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
        sa.Column("message", sa.Text, nullable=False, server_default=""),
        sa.Column("history", JSONB, nullable=False, server_default="[]"),
        sa.Column("reason", sa.Text),
        sa.Column("last_error", sa.Text),
        sa.Column("remote_name", sa.Text),
        sa.Column("remote_version", sa.Text),
        sa.Column("remote_operation", sa.Text),
        sa.Column("scoring_uri", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_token", sa.UUID),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("target IN ('aci', 'aks', 'online-endpoint')", name="target"),
        sa.CheckConstraint(
            "state IN ('waiting', 'creating', 'deploying', 'succeeded', 'failed', 'deleting', 'deleted', 'replaced')",
            name="state",
        ),
    )
    op.create_index(
        "ix_deployments_name", "deployments", [sa.text("lower(workspace_id)"), "name"], unique=True,
        postgresql_where=sa.text("state NOT IN ('deleted', 'replaced')"),
    )  # fmt: skip
    op.create_index(
        "ix_deployments_due_at", "deployments", ["due_at"],
        postgresql_where=sa.text("state IN ('waiting', 'creating', 'deploying', 'deleting')"),
    )  # fmt: skip


def downgrade() -> None:
    op.drop_table("deployments")

"""Files for which a client was given a URL to upload to."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "pending_uploads",
        sa.Column("run_id", sa.UUID, nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("issued_at", moment, nullable=False),
        sa.Column("check_at", moment, nullable=False),
        sa.Column("last_check_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "model_id", "path", name="pk_pending_uploads"),
    )
    op.create_index("ix_pending_uploads_check_at", "pending_uploads", ["check_at"])


def downgrade() -> None:
    op.drop_table("pending_uploads")

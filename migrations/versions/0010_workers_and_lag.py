"""Which workers run, how far behind the mirror was in each minute, and what held it up."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mirror_workers",
        sa.Column("worker_id", sa.UUID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
    )
    op.create_table(
        "mirror_lag",
        sa.Column("minute", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("lag_s", sa.Double, nullable=False),
    )
    for name in ("overflowed", "throttles", "outages"):  # small constant defaults: no row is rewritten
        op.add_column("mirror_throughput", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    for name in ("outages", "throttles", "overflowed"):
        op.drop_column("mirror_throughput", name)
    op.drop_table("mirror_lag")
    op.drop_table("mirror_workers")

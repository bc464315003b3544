"""The points of a metric lie in the order in which a history is read: by time, then step, then value.

So a page of a history costs what it holds, and not a sort of all that is left. Whoever writes points names the columns
of the key and not the key, so the version before this one goes on writing meanwhile and after.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def _order(*columns: str) -> None:
    with op.get_context().autocommit_block():
        # What an attempt that failed has left is not valid, and would be taken for the index.
        op.execute(sa.text("DROP INDEX CONCURRENTLY IF EXISTS pk_metrics_reordered"))
        op.execute(sa.text(f"CREATE UNIQUE INDEX CONCURRENTLY pk_metrics_reordered ON metrics ({', '.join(columns)})"))
    op.execute(
        sa.text(
            "ALTER TABLE metrics DROP CONSTRAINT pk_metrics,"
            " ADD CONSTRAINT pk_metrics PRIMARY KEY USING INDEX pk_metrics_reordered"
        )
    )


def upgrade() -> None:
    _order("run_id", "metric_id", "timestamp_ms", "step", "value")


def downgrade() -> None:
    _order("run_id", "metric_id", "step", "timestamp_ms", "value")

"""Runs that were born in an Azure ML workspace, and the ids by which its jobs name experiments."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("azure_run_id", sa.Text))
    op.create_table(
        "adopted_experiments",
        sa.Column("azure_experiment_id", sa.Text, nullable=False),
        sa.Column("experiment_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("azure_experiment_id", name="pk_adopted_experiments"),
    )


def downgrade() -> None:
    op.drop_table("adopted_experiments")
    op.drop_column("runs", "azure_run_id")

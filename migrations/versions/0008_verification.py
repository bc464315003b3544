"""What verification finds, and an index by which quarantined runs are listed."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# The index is small and not built concurrently: that would wait for the replicas that wait for this migration.
_CHANGES = """
    CREATE TABLE mirror_verifications (
        run_id UUID NOT NULL,
        verified_at TIMESTAMP WITH TIME ZONE NOT NULL,
        verdict TEXT NOT NULL,
        differences JSONB DEFAULT '[]' NOT NULL,
        CONSTRAINT pk_mirror_verifications PRIMARY KEY (run_id),
        CONSTRAINT ck_mirror_verifications_verdict CHECK (verdict IN ('equal', 'different', 'repairing'))
    );

    CREATE INDEX ix_mirror_verifications_verified_at ON mirror_verifications (verified_at);

    CREATE INDEX ix_mirror_verifications_different ON mirror_verifications (run_id) WHERE verdict = 'different';

    ALTER TABLE mirror_links ADD COLUMN sampled_at TIMESTAMP WITH TIME ZONE;

    CREATE INDEX ix_mirrors_quarantined ON mirrors (run_id) WHERE state = 'quarantined';
"""


def upgrade() -> None:
    for statement in _CHANGES.split(";\n"):
        if statement.strip():
            op.execute(sa.text(statement))


def downgrade() -> None:
    op.drop_index("ix_mirrors_quarantined", "mirrors")
    op.execute(sa.text("ALTER TABLE mirror_links DROP COLUMN sampled_at"))
    op.execute(sa.text("DROP TABLE mirror_verifications"))

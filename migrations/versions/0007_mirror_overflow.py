"""What Azure cannot hold of a run: where it goes instead, and the limits Azure was heard to have."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Small constant defaults: no table is rewritten.
_UPGRADE = """
    ALTER TABLE mirrors
        ADD COLUMN partial BOOLEAN DEFAULT 'false' NOT NULL,
        ADD COLUMN waiting BOOLEAN DEFAULT 'false' NOT NULL,
        ADD COLUMN overflow_seq INTEGER DEFAULT '0' NOT NULL,
        ADD COLUMN overflow_told INTEGER DEFAULT '0' NOT NULL,
        ADD COLUMN overflow_at TIMESTAMP WITH TIME ZONE,
        ADD COLUMN points JSONB DEFAULT '{}' NOT NULL,
        ADD COLUMN points_upto INTEGER DEFAULT '0' NOT NULL;

    CREATE INDEX ix_mirrors_partial ON mirrors (run_id) WHERE partial;

    CREATE TABLE mirror_overflows (
        run_id UUID NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        from_seq INTEGER NOT NULL,
        reason TEXT NOT NULL,
        CONSTRAINT pk_mirror_overflows PRIMARY KEY (run_id, kind, key)
    );

    CREATE TABLE mirror_limits (
        name TEXT NOT NULL,
        value BIGINT NOT NULL,
        learned_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT pk_mirror_limits PRIMARY KEY (name)
    );
"""

_DOWNGRADE = """
    DROP TABLE mirror_limits;

    DROP TABLE mirror_overflows;

    DROP INDEX ix_mirrors_partial;

    ALTER TABLE mirrors
        DROP COLUMN partial, DROP COLUMN waiting, DROP COLUMN overflow_seq, DROP COLUMN overflow_told,
        DROP COLUMN overflow_at, DROP COLUMN points, DROP COLUMN points_upto;
"""


def upgrade() -> None:
    _run(_UPGRADE)


def downgrade() -> None:
    _run(_DOWNGRADE)


def _run(statements: str) -> None:
    for statement in statements.split(";\n"):
        if statement.strip():
            op.execute(sa.text(statement))

"""Metrics and params that a search finds by value: each row knows its experiment, and an index has them in order.

Old rows are given theirs a thousand runs at a time, each time in a transaction of its own that holds their runs' locks
as a write does: a server of the version before goes on reading and writing meanwhile. Only building the two indexes
makes writers wait, some two seconds for a million rows. A migration that was interrupted goes on where it was.
"""

from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_NOT_BEFORE = UUID(int=0)
_AT_ONCE = 1000

# For every writer, one of the version before too. Runs never change their experiment.
_FILL = """
CREATE OR REPLACE FUNCTION runmirror_fill_experiment_1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.experiment_id := (SELECT experiment_id FROM runs WHERE run_id = NEW.run_id);
    RETURN NEW;
END $$
"""

# Not built concurrently: that would wait for the replicas that wait for this migration. Longer params than an index
# page can hold three of are compared one by one. The tag is the one by which the runs of a sweep are asked for.
_INDEXES = (
    """CREATE INDEX IF NOT EXISTS ix_latest_metrics_experiment_id_key_value
       ON latest_metrics (experiment_id, key, value, run_id)""",
    """CREATE INDEX IF NOT EXISTS ix_params_experiment_id_key_value
       ON params (experiment_id, key, value, run_id) WHERE length(value) <= 250""",
    """CREATE INDEX IF NOT EXISTS ix_tags_parent_run_id
       ON tags (value, run_id) WHERE key = 'mlflow.parentRunId' AND length(value) <= 250""",
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(_FILL.replace(":", r"\:"))
        for table in ("latest_metrics", "params"):
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS experiment_id bigint")
            op.execute(f"""
                CREATE OR REPLACE TRIGGER fill_experiment_id BEFORE INSERT ON {table}
                FOR EACH ROW WHEN (NEW.experiment_id IS NULL) EXECUTE FUNCTION runmirror_fill_experiment_1()
            """)
        last = _NOT_BEFORE
        while runs := _next_runs(last):
            last = _fill(runs)
        for index in _INDEXES:
            op.execute(index)
        # No ANALYZE: a table known to be empty is planned to be read whole, and connections keep their plans.


def _next_runs(after: UUID) -> Sequence[UUID]:
    found = sa.text("SELECT run_id FROM runs WHERE run_id > :after ORDER BY run_id LIMIT :most")
    return op.get_bind().scalars(found, {"after": after, "most": _AT_ONCE}).all()


def _fill(runs: Sequence[UUID]) -> UUID:
    """Whoever locks several runs does so in one order. The updates begin only when all of them are locked."""
    op.get_bind().execute(
        sa.text("""
            WITH locked AS MATERIALIZED (
                SELECT run_id, experiment_id FROM runs WHERE run_id = ANY (:runs) ORDER BY run_id FOR NO KEY UPDATE),
            all_of_them AS MATERIALIZED (SELECT count(*) FROM locked),
            filled AS (
                UPDATE params p SET experiment_id = locked.experiment_id FROM locked
                WHERE (SELECT count FROM all_of_them) > 0
                  AND p.run_id = locked.run_id AND p.experiment_id IS NULL)
            UPDATE latest_metrics l SET experiment_id = locked.experiment_id FROM locked
            WHERE (SELECT count FROM all_of_them) > 0
              AND l.run_id = locked.run_id AND l.experiment_id IS NULL
        """).bindparams(sa.bindparam("runs", list(runs), sa.ARRAY(sa.Uuid)))
    )
    return runs[-1]


def downgrade() -> None:
    op.execute("DROP INDEX ix_tags_parent_run_id")
    for table in ("params", "latest_metrics"):
        op.execute(f"DROP TRIGGER fill_experiment_id ON {table}")
        op.execute(f"ALTER TABLE {table} DROP COLUMN experiment_id")  # and the index with it
    op.execute("DROP FUNCTION runmirror_fill_experiment_1")

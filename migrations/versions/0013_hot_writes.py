"""Small writes in one call, each statement of which sees what was committed before it began."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# The rules are those of runs/batch_queries.py and runs/writes.py; tests/runs/test_hot.py holds the two to each other.
# Functions, because one statement would not do: what it reads after it waited for a run's lock would be as of before
# the wait, and a run that the mirror finished meanwhile would not be marked behind. A new version of one gets a new
# name, so that a server of the version before can go on with this one.

# Called by ordinary writes too, see mirror/queue.py. A run of the past that is written is a live one again. A pause
# after a failure is not cut short.
_MARK_BEHIND = """
CREATE FUNCTION runmirror_mark_behind_1(run_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    WITH woken AS (
        UPDATE mirrors SET
            state = CASE WHEN state = 'current' THEN 'due' ELSE state END, backfill = false, waiting = false,
            due_at = CASE WHEN waiting THEN now() ELSE GREATEST(due_at, now()) END,
            behind_since = CASE WHEN state = 'current' THEN now() ELSE behind_since END
        WHERE run_id = ANY (run_ids) AND (state = 'current' OR (state = 'due' AND waiting) OR backfill)
        RETURNING run_id, state),
    shown AS (
        UPDATE tags SET value = 'pending' FROM woken
        WHERE tags.run_id = woken.run_id AND woken.state = 'due' AND tags.key = 'runmirror.status' AND tags.seq = 0)
    SELECT count(*) INTO changed FROM woken;
    IF changed > 0 THEN
        PERFORM pg_notify('runmirror_due', '');
    END IF;
END $$
"""

# False: the run is not there, or somebody else recorded the file since its seq was `expected` (0: no row).
_RECORD = """
CREATE FUNCTION runmirror_record_1(
    of_run uuid, of_model text, file_path text, file_bytes bigint, file_md5 text, expected integer
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    run_seq integer;
BEGIN
    SELECT seq + 1 INTO run_seq FROM runs WHERE run_id = of_run FOR NO KEY UPDATE;
    IF NOT FOUND OR expected <> coalesce(
        (SELECT seq FROM artifacts WHERE run_id = of_run AND model_id = of_model AND path = file_path), 0)
    THEN
        RETURN false;
    END IF;
    UPDATE runs SET seq = run_seq WHERE run_id = of_run;
    PERFORM runmirror_mark_behind_1(ARRAY[of_run]);
    INSERT INTO artifacts (run_id, model_id, path, size_bytes, md5, deleted, seq)
    VALUES (of_run, of_model, file_path, file_bytes, file_md5, false, run_seq)
    ON CONFLICT (run_id, model_id, path) DO UPDATE
    SET size_bytes = excluded.size_bytes, md5 = excluded.md5, deleted = false, seq = excluded.seq;
    RETURN true;
END $$
"""


def upgrade() -> None:
    for function in (_MARK_BEHIND, _RECORD):
        op.execute(sa.text(function.replace(":", r"\:")))
    # Room for in-page updates; pages that are full already stay as they are.
    op.execute(sa.text("ALTER TABLE latest_metrics SET (fillfactor = 80)"))


def downgrade() -> None:
    op.execute(sa.text("DROP FUNCTION runmirror_record_1, runmirror_mark_behind_1"))
    op.execute(sa.text("ALTER TABLE latest_metrics RESET (fillfactor)"))

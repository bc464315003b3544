"""Records of many small files in one call, each statement of which sees what was committed before it began."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# As runmirror_record_1 of migration 0013 for each file; those of one run share a step of its seq. No place may be given
# twice. Answers, in their order, which were recorded: not one whose run is not there, nor one that somebody else
# recorded since its seq was `expected` (0: no row). OFFSET 0 as in migration 0015.
_RECORD_MANY = """
CREATE FUNCTION runmirror_record_many_1(
    of_runs uuid[], of_models text[], file_paths text[], file_bytes bigint[], file_md5s text[], expected integer[]
) RETURNS boolean[] LANGUAGE plpgsql AS $$
DECLARE
    fits boolean[];
    changed uuid[];
BEGIN
    -- Whoever locks several runs does so in one order.
    PERFORM FROM runs WHERE run_id = ANY (of_runs) ORDER BY run_id FOR NO KEY UPDATE;

    SELECT array_agg(r.run_id IS NOT NULL AND g.expected = coalesce(a.seq, 0) ORDER BY g.place) INTO fits
    FROM unnest(of_runs, of_models, file_paths, expected)
        WITH ORDINALITY AS g (run_id, model_id, path, expected, place)
    LEFT JOIN LATERAL (SELECT f.run_id FROM runs f WHERE f.run_id = g.run_id OFFSET 0) r ON true
    LEFT JOIN LATERAL (
        SELECT f.seq FROM artifacts f
        WHERE f.run_id = g.run_id AND f.model_id = g.model_id AND f.path = g.path OFFSET 0) a ON true;

    SELECT array_agg(DISTINCT g.run_id ORDER BY g.run_id) INTO changed
    FROM unnest(of_runs, fits) AS g (run_id, fits) WHERE g.fits;
    IF changed IS NULL THEN
        RETURN fits;
    END IF;

    UPDATE runs SET seq = seq + 1 WHERE run_id = ANY (changed);
    PERFORM runmirror_mark_behind_1(changed);
    INSERT INTO artifacts (run_id, model_id, path, size_bytes, md5, deleted, seq)
    SELECT g.run_id, g.model_id, g.path, g.size_bytes, g.md5, false, r.seq
    FROM unnest(of_runs, of_models, file_paths, file_bytes, file_md5s, fits)
        AS g (run_id, model_id, path, size_bytes, md5, fits)
    CROSS JOIN LATERAL (SELECT f.seq FROM runs f WHERE f.run_id = g.run_id OFFSET 0) r
    WHERE g.fits
    ON CONFLICT (run_id, model_id, path) DO UPDATE
    SET size_bytes = excluded.size_bytes, md5 = excluded.md5, deleted = false, seq = excluded.seq;
    RETURN fits;
END $$
"""


def upgrade() -> None:
    op.execute(sa.text(_RECORD_MANY.replace(":", r"\:")))


def downgrade() -> None:
    op.execute(sa.text("DROP FUNCTION runmirror_record_many_1"))

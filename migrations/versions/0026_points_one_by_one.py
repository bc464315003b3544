"""Points of metrics that come one by one, as training loops log them, take fewer statements."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# What runmirror_log_2 does with metrics of which there is one point each: no run has a key twice. Nearly always the
# point is later than any before it, so that no repeat of it can be anywhere: latest_metrics has the greatest
# (step, timestamp) of its metric. Then come new metrics, and then what has to be looked for among the others.
# The look-ups are those of migration 0025.
_LOG_POINTS = """
CREATE FUNCTION runmirror_log_points_1(
    run_ids uuid[], point_runs integer[], keys text[],
    steps bigint[], timestamps_ms bigint[], point_values double precision[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    seqs integer[];
    written bigint[];
    changed bigint;
BEGIN
    IF cardinality(run_ids) = 1 THEN
        UPDATE runs SET seq = seq + 1 WHERE run_id = run_ids[1] AND lifecycle_stage = 'active'
        RETURNING ARRAY[seq] INTO seqs;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    ELSE
        -- Whoever locks several runs does so in one order.
        PERFORM FROM runs WHERE run_id = ANY (run_ids) AND lifecycle_stage = 'active'
        ORDER BY run_id FOR NO KEY UPDATE;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> cardinality(run_ids) THEN
            RETURN false;
        END IF;
        WITH bumped AS (UPDATE runs SET seq = seq + 1 WHERE run_id = ANY (run_ids) RETURNING run_id, seq)
        SELECT array_agg(b.seq ORDER BY g.place) INTO seqs
        FROM unnest(run_ids) WITH ORDINALITY AS g (run_id, place) JOIN bumped b USING (run_id);
    END IF;

    PERFORM runmirror_mark_behind_1(run_ids);

    WITH newest AS (
        UPDATE latest_metrics l
        SET step = n.step, timestamp_ms = n.timestamp_ms, value = n.value, seq = seqs[n.run]
        FROM unnest(point_runs, keys, steps, timestamps_ms, point_values) WITH ORDINALITY
                AS n (run, key, step, timestamp_ms, value, place),
             LATERAL (
                SELECT f.ctid AS place, f.* FROM latest_metrics f WHERE f.run_id = run_ids[n.run] AND f.key >= n.key
                ORDER BY f.key LIMIT 1) AS older
        WHERE l.ctid = older.place AND older.key = n.key
          AND (n.step, n.timestamp_ms) > (older.step, older.timestamp_ms)
        RETURNING n.place, l.run_id, l.metric_id, l.seq, l.step, l.timestamp_ms, l.value),
    points AS (
        INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
        SELECT run_id, metric_id, seq, step, timestamp_ms, value FROM newest)
    SELECT coalesce(array_agg(place), '{}') INTO written FROM newest;
    IF cardinality(written) = cardinality(keys) THEN
        RETURN true;
    END IF;

    WITH unknown AS (
        SELECT n.* FROM unnest(point_runs, keys, steps, timestamps_ms, point_values) WITH ORDINALITY
            AS n (run, key, step, timestamp_ms, value, place)
        LEFT JOIN LATERAL (
            SELECT f.key FROM latest_metrics f WHERE f.run_id = run_ids[n.run] AND f.key >= n.key
            ORDER BY f.key LIMIT 1) l ON l.key = n.key
        WHERE l.key IS NULL),
    added AS (
        INSERT INTO latest_metrics (run_id, key, metric_id, seq, step, timestamp_ms, value)
        SELECT run_ids[run], key,
               coalesce((SELECT f.metric_id FROM latest_metrics f WHERE f.run_id = run_ids[run]
                         ORDER BY f.metric_id DESC LIMIT 1), 0)
               + row_number() OVER (PARTITION BY run ORDER BY place), seqs[run], step, timestamp_ms, value
        FROM unknown
        RETURNING run_id, metric_id, seq, step, timestamp_ms, value),
    points AS (
        INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
        SELECT run_id, metric_id, seq, step, timestamp_ms, value FROM added)
    SELECT count(*) INTO changed FROM added;
    IF cardinality(written) + changed = cardinality(keys) THEN
        RETURN true;
    END IF;

    -- What was written above is not greater than itself here, and is a repeat of itself.
    UPDATE latest_metrics l
    SET value = n.value, seq = seqs[n.run]
    FROM unnest(point_runs, keys, steps, timestamps_ms, point_values) AS n (run, key, step, timestamp_ms, value),
         LATERAL (
            SELECT f.ctid AS place, f.* FROM latest_metrics f WHERE f.run_id = run_ids[n.run] AND f.key >= n.key
            ORDER BY f.key LIMIT 1) AS older
    WHERE l.ctid = older.place AND older.key = n.key
      AND (n.step, n.timestamp_ms) = (older.step, older.timestamp_ms)
      AND coalesce(nullif(n.value, 'NaN'), 0) > coalesce(nullif(older.value, 'NaN'), 0);
    INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
    SELECT l.run_id, l.metric_id, seqs[n.run], n.step, n.timestamp_ms, n.value
    FROM unnest(point_runs, keys, steps, timestamps_ms, point_values) WITH ORDINALITY
            AS n (run, key, step, timestamp_ms, value, place),
         LATERAL (
            SELECT f.* FROM latest_metrics f WHERE f.run_id = run_ids[n.run] AND f.key >= n.key
            ORDER BY f.key LIMIT 1) AS l
    WHERE l.key = n.key AND n.place <> ALL (written) AND (
        SELECT true FROM metric_chunks c
        WHERE c.run_id = l.run_id AND c.metric_id = l.metric_id AND c.newest_ms >= n.timestamp_ms
          AND c.oldest_ms <= n.timestamp_ms AND c.last_step >= n.step AND c.first_step <= n.step
          AND c.timestamp_ms_array[array_position(c.step_array, n.step)] = n.timestamp_ms
          AND c.value_array[array_position(c.step_array, n.step)] = n.value
        ORDER BY c.newest_ms LIMIT 1) IS NULL
    ON CONFLICT (run_id, metric_id, step, timestamp_ms, value) DO NOTHING;
    RETURN true;
END $$
"""

# As in migration 0013, but for the first look: nearly always there is nothing to do, and to find that out by updates
# costs several times as much. What it does is the same, so it keeps its name, and stays when this is undone.
_MARK_BEHIND = """
CREATE OR REPLACE FUNCTION runmirror_mark_behind_1(run_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM mirrors WHERE run_id = ANY (run_ids)
                   AND (state = 'current' OR (state = 'due' AND waiting) OR backfill)) THEN
        RETURN;
    END IF;
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


def upgrade() -> None:
    for function in (_LOG_POINTS, _MARK_BEHIND):
        op.execute(sa.text(function))


def downgrade() -> None:
    op.execute(sa.text("DROP FUNCTION runmirror_log_points_1"))

"""Small writes of many runs in one call, each statement of which sees what was committed before it began."""

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

# Runs, metrics (a key of a run) and points refer to each other by place, from 1; the points of a metric stand from
# `firsts` to `lasts`. False: some run is not there or not active, and nothing was written. SQLSTATE RM001: some param
# has another value; whoever calls rolls back.
_LOG = """
CREATE FUNCTION runmirror_log_1(
    run_ids uuid[],
    metric_runs integer[], metric_keys text[],
    newest_steps bigint[], newest_timestamps_ms bigint[], newest_values double precision[],
    firsts integer[], lasts integer[], steps bigint[], timestamps_ms bigint[], point_values double precision[],
    param_runs integer[], param_keys text[], param_values text[],
    tag_runs integer[], tag_keys text[], tag_values text[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    seqs integer[];
    metric_ids integer[];
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
        SELECT count(*) INTO changed FROM (
            SELECT FROM runs WHERE run_id = ANY (run_ids) AND lifecycle_stage = 'active'
            ORDER BY run_id FOR NO KEY UPDATE) locked;
        IF changed <> cardinality(run_ids) THEN
            RETURN false;
        END IF;
        WITH bumped AS (UPDATE runs SET seq = seq + 1 WHERE run_id = ANY (run_ids) RETURNING run_id, seq)
        SELECT array_agg(b.seq ORDER BY g.place) INTO seqs
        FROM unnest(run_ids) WITH ORDINALITY AS g (run_id, place) JOIN bumped b USING (run_id);
    END IF;

    PERFORM runmirror_mark_behind_1(run_ids);

    IF cardinality(param_keys) > 0 THEN
        INSERT INTO params (run_id, key, value, seq)
        SELECT run_ids[run], key, value, seqs[run]
        FROM unnest(param_runs, param_keys, param_values) AS g (run, key, value)
        ON CONFLICT (run_id, key) DO NOTHING;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed < cardinality(param_keys) AND EXISTS (
            SELECT FROM unnest(param_runs, param_keys, param_values) AS g (run, key, value)
            JOIN params p ON p.run_id = run_ids[g.run] AND p.key = g.key WHERE p.value <> g.value
        ) THEN
            RAISE EXCEPTION 'a param has another value' USING ERRCODE = 'RM001';
        END IF;
    END IF;

    IF cardinality(metric_keys) > 0 THEN
        SELECT array_agg(l.metric_id ORDER BY g.place) INTO metric_ids
        FROM unnest(metric_runs, metric_keys) WITH ORDINALITY AS g (run, key, place)
        LEFT JOIN latest_metrics l ON l.run_id = run_ids[g.run] AND l.key = g.key;
        UPDATE latest_metrics l
        SET step = n.step, timestamp_ms = n.timestamp_ms, value = n.value, seq = seqs[n.run]
        FROM unnest(metric_runs, metric_keys, newest_steps, newest_timestamps_ms, newest_values)
            AS n (run, key, step, timestamp_ms, value)
        WHERE l.run_id = run_ids[n.run] AND l.key = n.key
          AND (n.step, n.timestamp_ms, coalesce(nullif(n.value, 'NaN'), 0))
              > (l.step, l.timestamp_ms, coalesce(nullif(l.value, 'NaN'), 0));
        IF array_position(metric_ids, NULL) IS NOT NULL THEN
            INSERT INTO latest_metrics (run_id, key, metric_id, seq, step, timestamp_ms, value)
            SELECT run_ids[run], key,
                   (SELECT coalesce(max(metric_id), 0) FROM latest_metrics WHERE run_id = run_ids[run])
                   + row_number() OVER (PARTITION BY run ORDER BY place), seqs[run], step, timestamp_ms, value
            FROM unnest(metric_runs, metric_keys, newest_steps, newest_timestamps_ms, newest_values)
                WITH ORDINALITY AS n (run, key, step, timestamp_ms, value, place)
            WHERE metric_ids[place] IS NULL;
            SELECT array_agg(l.metric_id ORDER BY g.place) INTO metric_ids
            FROM unnest(metric_runs, metric_keys) WITH ORDINALITY AS g (run, key, place)
            JOIN latest_metrics l ON l.run_id = run_ids[g.run] AND l.key = g.key;
        END IF;
        IF cardinality(steps) < 100 THEN
            INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
            SELECT run_ids[m.run], m.metric_id, seqs[m.run], p.step, p.timestamp_ms, p.value
            FROM unnest(metric_runs, metric_ids, firsts, lasts) AS m (run, metric_id, first, last),
                 unnest(steps[m.first:m.last], timestamps_ms[m.first:m.last], point_values[m.first:m.last])
                     AS p (step, timestamp_ms, value)
            ON CONFLICT (run_id, metric_id, step, timestamp_ms, value) DO NOTHING;
        ELSE
            BEGIN  -- a third faster where nothing is repeated, which is nearly always
                INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
                SELECT run_ids[m.run], m.metric_id, seqs[m.run], p.step, p.timestamp_ms, p.value
                FROM unnest(metric_runs, metric_ids, firsts, lasts) AS m (run, metric_id, first, last),
                     unnest(steps[m.first:m.last], timestamps_ms[m.first:m.last], point_values[m.first:m.last])
                         AS p (step, timestamp_ms, value);
            EXCEPTION WHEN unique_violation THEN
                INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
                SELECT run_ids[m.run], m.metric_id, seqs[m.run], p.step, p.timestamp_ms, p.value
                FROM unnest(metric_runs, metric_ids, firsts, lasts) AS m (run, metric_id, first, last),
                     unnest(steps[m.first:m.last], timestamps_ms[m.first:m.last], point_values[m.first:m.last])
                         AS p (step, timestamp_ms, value)
                ON CONFLICT (run_id, metric_id, step, timestamp_ms, value) DO NOTHING;
            END;
        END IF;
    END IF;

    IF cardinality(tag_keys) > 0 THEN
        INSERT INTO tags (run_id, key, value, seq)
        SELECT run_ids[run], key, value, seqs[run] FROM unnest(tag_runs, tag_keys, tag_values) AS g (run, key, value)
        ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value, seq = excluded.seq;
    END IF;
    RETURN true;
END $$
"""


def upgrade() -> None:
    for function in (_MARK_BEHIND, _RECORD, _LOG):
        op.execute(sa.text(function.replace(":", r"\:")))
    # Room for in-page updates; pages that are full already stay as they are.
    op.execute(sa.text("ALTER TABLE latest_metrics SET (fillfactor = 80)"))


def downgrade() -> None:
    op.execute(sa.text("DROP FUNCTION runmirror_log_1, runmirror_record_1, runmirror_mark_behind_1"))
    op.execute(sa.text("ALTER TABLE latest_metrics RESET (fillfactor)"))

"""Points that are written many at a time stand in one row for each metric, not in a row each."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# A row for each point costs 360 bytes of write-ahead log and an entry in two indexes; a chunk of a hundred points costs
# 2.9 kB in all. Arrays stay as they are, up to a page in the row itself: compressing costs more than it saves.
# A process of the version before does not see what stands in chunks: RUNMIRROR_METRIC_CHUNKS=false until it is gone.
_CHUNKS = """
CREATE TABLE metric_chunks (
    run_id uuid NOT NULL,
    metric_id integer NOT NULL,
    newest_ms bigint NOT NULL,
    last_step bigint NOT NULL,
    oldest_ms bigint NOT NULL,
    first_step bigint NOT NULL,
    points integer NOT NULL,
    seq integer NOT NULL,
    step_array bigint[] NOT NULL,
    timestamp_ms_array bigint[] NOT NULL,
    value_array double precision[] NOT NULL,
    CONSTRAINT pk_metric_chunks PRIMARY KEY (run_id, metric_id, newest_ms, last_step, oldest_ms, first_step)
) WITH (toast_tuple_target = 8160);
ALTER TABLE metric_chunks ALTER COLUMN step_array SET STORAGE EXTERNAL,
    ALTER COLUMN timestamp_ms_array SET STORAGE EXTERNAL, ALTER COLUMN value_array SET STORAGE EXTERNAL;
CREATE INDEX ix_metric_chunks_run_id_seq ON metric_chunks (run_id, seq);
CREATE VIEW metric_points AS
    SELECT run_id, metric_id, seq, step, timestamp_ms, value FROM metrics
    UNION ALL
    SELECT c.run_id, c.metric_id, c.seq, p.step, p.timestamp_ms, p.value
    FROM metric_chunks c, unnest(c.step_array, c.timestamp_ms_array, c.value_array) AS p (step, timestamp_ms, value)
"""

# Runs, metrics (a key of a run) and points refer to each other by place, from 1; the points of a metric stand from
# `firsts` to `lasts`. False: some run is not there or not active, and nothing was written. SQLSTATE RM001: some param
# has another value; whoever calls rolls back.
#
# `rising` says of a metric that each of its points has a higher step than the one before. None of them can be a repeat
# (they are `apart`) if the first is above every step of the metric so far, or if nothing of the metric lies within
# their steps and their times, `oldests` to `newests`; then `fewest` or more become a chunk. So no two chunks of a
# metric have steps and times in common, and a point can be in one of them at most, once. All other points are rows,
# after a look whether that chunk holds them.
# OFFSET 0: no look-up by key is planned as a join. A plan lives as long as its connection, and one that was made when
# `latest_metrics` had a row or two would read all of it for good. Nobody moves the rows: their run is locked.
_LOG = """
CREATE FUNCTION runmirror_log_1(
    run_ids uuid[],
    metric_runs integer[], metric_keys text[],
    newest_steps bigint[], newest_timestamps_ms bigint[], newest_values double precision[],
    rising boolean[], firsts integer[], lasts integer[], oldests bigint[], newests bigint[],
    steps bigint[], timestamps_ms bigint[], point_values double precision[],
    param_runs integer[], param_keys text[], param_values text[],
    tag_runs integer[], tag_keys text[], tag_values text[],
    fewest integer
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    seqs integer[];
    metric_ids integer[];
    apart boolean[];
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
        SELECT array_agg(l.metric_id ORDER BY g.place),
               array_agg(g.rising AND CASE
                   WHEN l.step IS NULL OR steps[g.first] > l.step THEN true
                   WHEN g.last - g.first + 1 < fewest THEN false
                   ELSE NOT EXISTS (
                       SELECT FROM metrics m
                       WHERE m.run_id = l.run_id AND m.metric_id = l.metric_id
                         AND m.step BETWEEN steps[g.first] AND steps[g.last]
                         AND m.timestamp_ms BETWEEN g.oldest AND g.newest
                   ) AND NOT EXISTS (
                       SELECT FROM metric_chunks c
                       WHERE c.run_id = l.run_id AND c.metric_id = l.metric_id AND c.newest_ms >= g.oldest
                         AND c.oldest_ms <= g.newest AND c.last_step >= steps[g.first]
                         AND c.first_step <= steps[g.last])
                   END ORDER BY g.place)
        INTO metric_ids, apart
        FROM unnest(metric_runs, metric_keys, rising, firsts, lasts, oldests, newests)
            WITH ORDINALITY AS g (run, key, rising, first, last, oldest, newest, place)
        LEFT JOIN LATERAL (
            SELECT * FROM latest_metrics f WHERE f.run_id = run_ids[g.run] AND f.key = g.key OFFSET 0) l ON true;
        UPDATE latest_metrics l
        SET step = n.step, timestamp_ms = n.timestamp_ms, value = n.value, seq = seqs[n.run]
        FROM unnest(metric_runs, metric_keys, newest_steps, newest_timestamps_ms, newest_values)
                AS n (run, key, step, timestamp_ms, value),
             LATERAL (
                SELECT f.ctid AS place FROM latest_metrics f
                WHERE f.run_id = run_ids[n.run] AND f.key = n.key
                  AND (n.step, n.timestamp_ms, coalesce(nullif(n.value, 'NaN'), 0))
                      > (f.step, f.timestamp_ms, coalesce(nullif(f.value, 'NaN'), 0))
                OFFSET 0) AS older
        WHERE l.ctid = older.place;
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
            CROSS JOIN LATERAL (
                SELECT f.metric_id FROM latest_metrics f WHERE f.run_id = run_ids[g.run] AND f.key = g.key OFFSET 0) l;
        END IF;
        IF cardinality(steps) >= fewest THEN
            INSERT INTO metric_chunks (
                run_id, metric_id, newest_ms, last_step, oldest_ms, first_step, points, seq,
                step_array, timestamp_ms_array, value_array)
            SELECT run_ids[m.run], m.metric_id, m.newest, steps[m.last], m.oldest, steps[m.first],
                   m.last - m.first + 1, seqs[m.run],
                   steps[m.first:m.last], timestamps_ms[m.first:m.last], point_values[m.first:m.last]
            FROM unnest(metric_runs, metric_ids, firsts, lasts, oldests, newests, apart)
                AS m (run, metric_id, first, last, oldest, newest, apart)
            WHERE m.apart AND m.last - m.first + 1 >= fewest;
        END IF;
        INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
        SELECT run_ids[m.run], m.metric_id, seqs[m.run], p.step, p.timestamp_ms, p.value
        FROM unnest(metric_runs, metric_ids, firsts, lasts, apart) AS m (run, metric_id, first, last, apart),
             unnest(steps[m.first:m.last], timestamps_ms[m.first:m.last], point_values[m.first:m.last])
                 AS p (step, timestamp_ms, value)
        WHERE m.apart AND m.last - m.first + 1 < fewest;
        IF NOT true = ALL (apart) THEN
            INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
            SELECT run_ids[m.run], m.metric_id, seqs[m.run], p.step, p.timestamp_ms, p.value
            FROM unnest(metric_runs, metric_ids, firsts, lasts, apart) AS m (run, metric_id, first, last, apart),
                 unnest(steps[m.first:m.last], timestamps_ms[m.first:m.last], point_values[m.first:m.last])
                     AS p (step, timestamp_ms, value)
            WHERE NOT m.apart AND NOT EXISTS (
                SELECT FROM metric_chunks c
                WHERE c.run_id = run_ids[m.run] AND c.metric_id = m.metric_id AND c.newest_ms >= p.timestamp_ms
                  AND c.oldest_ms <= p.timestamp_ms AND c.last_step >= p.step AND c.first_step <= p.step
                  AND c.timestamp_ms_array[array_position(c.step_array, p.step)] = p.timestamp_ms
                  AND c.value_array[array_position(c.step_array, p.step)] = p.value)
            ON CONFLICT (run_id, metric_id, step, timestamp_ms, value) DO NOTHING;
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
    for statement in (*_CHUNKS.split(";\n"), _LOG):
        op.execute(sa.text(statement.replace(":", r"\:")))


def downgrade() -> None:
    op.execute(sa.text("DROP FUNCTION runmirror_log_1"))
    op.execute(
        sa.text("""
        INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
        SELECT c.run_id, c.metric_id, c.seq, p.step, p.timestamp_ms, p.value
        FROM metric_chunks c, unnest(c.step_array, c.timestamp_ms_array, c.value_array) AS p (step, timestamp_ms, value)
        ON CONFLICT DO NOTHING
        """)
    )
    op.execute(sa.text("DROP VIEW metric_points"))
    op.execute(sa.text("DROP TABLE metric_chunks"))

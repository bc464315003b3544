"""Hot writes find a row by its key through the index of that key, whatever the planner believes of the tables.

Where two indexes begin with the run, and the table is thought to be empty or of one page, they cost the same: Postgres
took the one of the run's seq, read all rows of the run, and went on so until the next ANALYZE. A chunk of a metric was
looked for among all chunks of its run.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

# As the functions of migrations 0015, 0013 and 0017, but for the look-ups. The first row at or after the key, in the
# order of the key: only one index has that order, and the connections that call these take no other way to it
# (`enable_sort`, see server/runmirror/hot/connections.py). Whether it is the row is asked outside of the look-up.
# EXISTS would not do: Postgres leaves out its ORDER BY.

_LOG = """
CREATE FUNCTION runmirror_log_2(
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
                   ELSE (
                       SELECT true FROM metrics m
                       WHERE m.run_id = l.run_id AND m.metric_id = l.metric_id
                         AND m.step BETWEEN steps[g.first] AND steps[g.last]
                         AND m.timestamp_ms BETWEEN g.oldest AND g.newest
                       ORDER BY m.timestamp_ms LIMIT 1
                   ) IS NULL AND (
                       SELECT true FROM metric_chunks c
                       WHERE c.run_id = l.run_id AND c.metric_id = l.metric_id AND c.newest_ms >= g.oldest
                         AND c.oldest_ms <= g.newest AND c.last_step >= steps[g.first]
                         AND c.first_step <= steps[g.last]
                       ORDER BY c.newest_ms LIMIT 1
                   ) IS NULL
                   END ORDER BY g.place)
        INTO metric_ids, apart
        FROM unnest(metric_runs, metric_keys, rising, firsts, lasts, oldests, newests)
            WITH ORDINALITY AS g (run, key, rising, first, last, oldest, newest, place)
        LEFT JOIN LATERAL (
            SELECT * FROM latest_metrics f WHERE f.run_id = run_ids[g.run] AND f.key >= g.key
            ORDER BY f.key LIMIT 1) l ON l.key = g.key;
        UPDATE latest_metrics l
        SET step = n.step, timestamp_ms = n.timestamp_ms, value = n.value, seq = seqs[n.run]
        FROM unnest(metric_runs, metric_keys, newest_steps, newest_timestamps_ms, newest_values)
                AS n (run, key, step, timestamp_ms, value),
             LATERAL (
                SELECT f.ctid AS place, f.* FROM latest_metrics f WHERE f.run_id = run_ids[n.run] AND f.key >= n.key
                ORDER BY f.key LIMIT 1) AS older
        WHERE l.ctid = older.place AND older.key = n.key
          AND (n.step, n.timestamp_ms, coalesce(nullif(n.value, 'NaN'), 0))
              > (older.step, older.timestamp_ms, coalesce(nullif(older.value, 'NaN'), 0));
        IF array_position(metric_ids, NULL) IS NOT NULL THEN
            INSERT INTO latest_metrics (run_id, key, metric_id, seq, step, timestamp_ms, value)
            SELECT run_ids[run], key,
                   coalesce((SELECT f.metric_id FROM latest_metrics f WHERE f.run_id = run_ids[run]
                             ORDER BY f.metric_id DESC LIMIT 1), 0)
                   + row_number() OVER (PARTITION BY run ORDER BY place), seqs[run], step, timestamp_ms, value
            FROM unnest(metric_runs, metric_keys, newest_steps, newest_timestamps_ms, newest_values)
                WITH ORDINALITY AS n (run, key, step, timestamp_ms, value, place)
            WHERE metric_ids[place] IS NULL;
            SELECT array_agg(l.metric_id ORDER BY g.place) INTO metric_ids
            FROM unnest(metric_runs, metric_keys) WITH ORDINALITY AS g (run, key, place)
            CROSS JOIN LATERAL (
                SELECT f.metric_id, f.key FROM latest_metrics f WHERE f.run_id = run_ids[g.run] AND f.key >= g.key
                ORDER BY f.key LIMIT 1) l
            WHERE l.key = g.key;
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
            WHERE NOT m.apart AND (
                SELECT true FROM metric_chunks c
                WHERE c.run_id = run_ids[m.run] AND c.metric_id = m.metric_id AND c.newest_ms >= p.timestamp_ms
                  AND c.oldest_ms <= p.timestamp_ms AND c.last_step >= p.step AND c.first_step <= p.step
                  AND c.timestamp_ms_array[array_position(c.step_array, p.step)] = p.timestamp_ms
                  AND c.value_array[array_position(c.step_array, p.step)] = p.value
                ORDER BY c.newest_ms LIMIT 1) IS NULL
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

_RECORD = """
CREATE FUNCTION runmirror_record_2(
    of_run uuid, of_model text, file_path text, file_bytes bigint, file_md5 text, expected integer
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    run_seq integer;
BEGIN
    SELECT seq + 1 INTO run_seq FROM runs WHERE run_id = of_run FOR NO KEY UPDATE;
    IF NOT FOUND OR expected <> coalesce(
        (SELECT a.seq FROM (
            SELECT f.path, f.seq FROM artifacts f
            WHERE f.run_id = of_run AND f.model_id = of_model AND f.path >= file_path ORDER BY f.path LIMIT 1) a
         WHERE a.path = file_path), 0)
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

_RECORD_MANY = """
CREATE FUNCTION runmirror_record_many_2(
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
        SELECT f.path, f.seq FROM artifacts f
        WHERE f.run_id = g.run_id AND f.model_id = g.model_id AND f.path >= g.path
        ORDER BY f.path LIMIT 1) a ON a.path = g.path;

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
    for function in (_LOG, _RECORD, _RECORD_MANY):
        op.execute(sa.text(function.replace(":", r"\:")))


def downgrade() -> None:
    op.execute(sa.text("DROP FUNCTION runmirror_log_2, runmirror_record_2, runmirror_record_many_2"))

-- What the rows read: 2,000 full runs in experiment :experiment, and :points points of one metric of run :run.
CREATE TEMP TABLE made AS
SELECT '0190' || lpad(to_hex(n), 28, '0') AS run_uuid, n FROM generate_series(0, :runs - 1) n;
INSERT INTO contexts (json) VALUES ('{}') ON CONFLICT DO NOTHING;
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,
                  source_version, lifecycle_stage, artifact_uri, experiment_id, row_num)
SELECT run_uuid, 'run-' || n, 'UNKNOWN', '', '', 'bench', 'RUNNING', 1700000000000 + n, '', 'active',
       'file:///nowhere/' || run_uuid, :experiment, n + (SELECT coalesce(max(row_num), -1) + 1 FROM runs) FROM made;
INSERT INTO params (key, value_str, run_uuid)
SELECT 'param_' || k, 'value-' || (n + k) % 4, run_uuid FROM made, generate_series(0, 9) k;
INSERT INTO tags (key, value, run_uuid)
SELECT 'tag_' || k, 'value-' || n % (k + 2), run_uuid FROM made, generate_series(0, 3) k;
INSERT INTO tags (key, value, run_uuid) SELECT 'mlflow.user', 'bench', run_uuid FROM made;
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan, iter, context_id)
SELECT 'metric_' || k, (n * (k + 7) % 1000) / 1000.0, 1700000000000 + k, run_uuid, k, false, 1, c.id
FROM made, generate_series(0, 9) k, contexts c WHERE c.json = '{}';
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan, iter, context_id)
SELECT 'loss', 1 / (step + 1.0), 1700000000000 + step, :'run', step, false, step + 1, c.id
FROM generate_series(0, :points - 1) step, contexts c WHERE c.json = '{}';
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid, last_iter, context_id)
SELECT DISTINCT ON (run_uuid, key) key, value, timestamp, step, is_nan, run_uuid, iter, context_id FROM metrics
ORDER BY run_uuid, key, step DESC
ON CONFLICT DO NOTHING;

-- What the rows read: 2,000 full runs in experiment :experiment, and :points points of one metric of run :run.
CREATE TEMP TABLE made AS
SELECT '0190' || lpad(to_hex(n), 28, '0') AS run_uuid, n FROM generate_series(0, :runs - 1) n;
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,
                  source_version, lifecycle_stage, artifact_uri, experiment_id)
SELECT run_uuid, 'run-' || n, 'UNKNOWN', '', '', '', 'RUNNING', 1700000000000 + n, '', 'active',
       'mlflow-artifacts:/' || :experiment || '/' || run_uuid || '/artifacts', :experiment FROM made;
INSERT INTO params (key, value, run_uuid)
SELECT 'param_' || k, 'value-' || (n + k) % 4, run_uuid FROM made, generate_series(0, 9) k;
INSERT INTO tags (key, value, run_uuid)
SELECT 'tag_' || k, 'value-' || n % (k + 2), run_uuid FROM made, generate_series(0, 3) k;
INSERT INTO tags (key, value, run_uuid) SELECT 'mlflow.user', 'bench', run_uuid FROM made;
INSERT INTO tags (key, value, run_uuid) SELECT 'mlflow.runName', 'run-' || n, run_uuid FROM made;
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
SELECT 'metric_' || k, (n * (k + 7) % 1000) / 1000.0, 1700000000000 + k, run_uuid, k, false
FROM made, generate_series(0, 9) k;
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
SELECT 'loss', 1 / (step + 1.0), 1700000000000 + step, :'run', step, false FROM generate_series(0, :points - 1) step;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
SELECT DISTINCT ON (run_uuid, key) key, value, timestamp, step, is_nan, run_uuid FROM metrics ORDER BY run_uuid, key, step DESC
ON CONFLICT DO NOTHING;

-- 100,000 runs of one experiment, as full as those of rows.py, and as many in ten others.
INSERT INTO experiments (experiment_id, name, artifact_location, creation_time_ms, last_update_time_ms)
SELECT 100000 + n, 'many-' || n, 'mlflow-artifacts:/' || 100000 + n, 0, 0 FROM generate_series(0, 10) n
ON CONFLICT DO NOTHING;
CREATE TEMP TABLE made AS
SELECT ('0190' || lpad(to_hex(n), 8, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid AS run_id, n,
       CASE WHEN n < 100000 THEN 100000 ELSE 100001 + n % 10 END AS experiment_id
FROM generate_series(0, 199999) n;
INSERT INTO runs (run_id, experiment_id, name, status, start_time_ms, artifact_uri)
SELECT run_id, experiment_id, 'run-' || n, 'FINISHED', 1700000000000 + n, 'mlflow-artifacts:/' || experiment_id FROM made;
INSERT INTO mirrors (run_id, state, behind_since) SELECT run_id, 'current', NULL FROM made;
INSERT INTO params (run_id, key, value, seq, experiment_id)
SELECT run_id, 'param_' || k, 'value-' || (n + k) % 4, 1, experiment_id FROM made, generate_series(0, 9) k;
INSERT INTO tags (run_id, key, value, seq)
SELECT run_id, 'tag_' || k, 'value-' || n % (k + 2), 1 FROM made, generate_series(0, 3) k;
INSERT INTO latest_metrics (run_id, key, metric_id, seq, step, timestamp_ms, value, experiment_id)
SELECT run_id, 'metric_' || k, k + 1, 1, k, 1700000000000, (n::bigint * (k + 7) % 1000) / 1000.0, experiment_id FROM made, generate_series(0, 9) k;
INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
SELECT run_id, k + 1, 1, k, 1700000000000, (n::bigint * (k + 7) % 1000) / 1000.0 FROM made, generate_series(0, 9) k;
ANALYZE runs, mirrors, params, tags, latest_metrics, metrics;

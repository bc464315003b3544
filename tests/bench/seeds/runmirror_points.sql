-- Long runs :first to :last - 1: ten metrics of 10,000 steps each, a hundred steps of all ten to a write.
INSERT INTO experiments (experiment_id, name, artifact_location, creation_time_ms, last_update_time_ms)
VALUES (100011, 'long', 'mlflow-artifacts:/100011', 0, 0) ON CONFLICT DO NOTHING;
CREATE TEMP TABLE made AS
SELECT ('0191' || lpad(to_hex(n), 8, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid AS run_id, n
FROM generate_series(:first, :last - 1) n;
INSERT INTO runs (run_id, experiment_id, name, status, start_time_ms, artifact_uri, seq)
SELECT run_id, 100011, 'long-' || n, 'FINISHED', 1700000000000 + n, 'mlflow-artifacts:/100011', 100 FROM made;
INSERT INTO mirrors (run_id, state, behind_since) SELECT run_id, 'current', NULL FROM made;
INSERT INTO latest_metrics (run_id, key, metric_id, seq, step, timestamp_ms, value)
SELECT run_id, 'metric-' || k, k + 1, 100, 9999, 1700000009999, k / 10000.0 FROM made, generate_series(0, 9) k;
INSERT INTO metrics (run_id, metric_id, seq, step, timestamp_ms, value)
SELECT run_id, k + 1, step / 100 + 1, step, 1700000000000 + step, k / (step + 1.0)
FROM made, generate_series(0, 9999) step, generate_series(0, 9) k;

"""SQL that reads the points of one metric of an overflow file, a page at a time, by time."""

from sqlalchemy import text

# What belongs in the file, and lies after the last page.
_WANTED = """
    AND (seq > :since
        OR (seq = :since AND (step, timestamp_ms, value) >= (:in_step, :in_ms, CAST(:in_value AS double precision)))
        OR (value = 'NaN' AND (seq > :nan_since
            OR (seq = :nan_since AND (step, timestamp_ms) >= (:nan_step, :nan_ms)))))
    AND (timestamp_ms, step, value) > (:timestamp_ms, :step, CAST(:value AS double precision))
"""

_OF_METRIC = "run_id = :run_id AND metric_id = :metric_id AND seq <= :upto"

# The rows come in the order of their primary key. Of the chunks, which may overlap, only those are opened that begin
# before `far`: up to that time, the chunks of which every point is wanted fill the page by themselves. No chunk holds
# a NaN.
POINTS = text(f"""
    WITH far AS MATERIALIZED (
        SELECT min(newest_ms) AS last FROM (
            SELECT newest_ms, sum(points) OVER (ORDER BY newest_ms) AS so_far FROM metric_chunks
            WHERE {_OF_METRIC} AND oldest_ms > :timestamp_ms AND seq > :since) AS whole
        WHERE so_far >= :most),
    ahead AS (
        (SELECT step, timestamp_ms, value FROM metrics WHERE {_OF_METRIC} {_WANTED}
         ORDER BY timestamp_ms, step, value LIMIT :most)
        UNION ALL
        SELECT p.step, p.timestamp_ms, p.value
        FROM metric_chunks, unnest(step_array, timestamp_ms_array, value_array) AS p (step, timestamp_ms, value)
        WHERE {_OF_METRIC} AND newest_ms >= :timestamp_ms AND seq >= :since
          AND oldest_ms <= coalesce((SELECT last FROM far), {2**63 - 1}) {_WANTED})
    SELECT step, timestamp_ms, value FROM ahead ORDER BY timestamp_ms, step, value LIMIT :most
""")

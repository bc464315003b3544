"""Many runs of ours from a few: every row of theirs, in whichever table, once more under a new id.

So what is measured is what the server itself wrote, whatever the schema is by now, and a million runs take minutes.
"""

from tests.bench.postgres import Postgres
from tests.bench.servers import OURS

_AT_ONCE = 40_000  # runs in one INSERT
_GOLDEN = "0.61803398874989::double precision"  # multiples of it lie apart

# Instead of what the template has. Nobody waits for the copies: they are mirrored already.
_OTHERWISE = {
    "run_id": "made.new_id",
    "experiment_id": "made.experiment_id",
    "mirrors.state": "'current'",
    "mirrors.behind_since": "NULL",
    "runs.start_time_ms": "t.start_time_ms + made.copy * 10000",
    # From 0 to 1, and few have the same: a search by a metric looks at all runs with the last value of its page.
    "latest_metrics.value": f"(t.value + made.copy * {_GOLDEN}) - floor(t.value + made.copy * {_GOLDEN})",
}

_TABLES = """
SELECT c.relname || ' ' || string_agg(a.attname, ',' ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attgenerated = '' AND EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'run_id' AND atttypid = 'uuid'::regtype)
GROUP BY c.relname ORDER BY c.relname <> 'runs', c.relname;
"""


def multiply(postgres: Postgres, templates: str, first: int, last: int, experiment: str) -> None:
    """Runs `first` to `last - 1` of those that copies of all runs of the experiment `templates` would be.

    `experiment` is SQL over their number n.
    """
    number = int(_rows(postgres, f"SELECT count(*) FROM runs WHERE experiment_id = {templates};")[0])
    tables = [line.split(" ", 1) for line in _rows(postgres, _TABLES)]
    for start in range(first, last, _AT_ONCE):
        end = min(start + _AT_ONCE, last)
        new_id = f"'019{templates[-1]}' || lpad(to_hex(n), 8, '0') || '70008000' || lpad(to_hex({templates}), 12, '0')"
        statements = [
            f"""
            \\set ON_ERROR_STOP on
            SET synchronous_commit = off; SET work_mem = '128MB';
            CREATE TEMP TABLE templates AS
            SELECT run_id, row_number() OVER (ORDER BY run_id) - 1 AS place FROM runs WHERE experiment_id = {templates};
            CREATE TEMP TABLE made AS
            SELECT run_id AS old_id, ({new_id})::uuid AS new_id, n / {number} AS copy, {experiment} AS experiment_id
            FROM generate_series({start}, {end - 1}) n JOIN templates ON place = n % {number};
            ANALYZE made;"""
        ]
        for table, columns in tables:
            names = columns.split(",")
            values = [_OTHERWISE.get(f"{table}.{name}", _OTHERWISE.get(name, f't."{name}"')) for name in names]
            quoted = ", ".join(f'"{name}"' for name in names)
            statements.append(
                f"INSERT INTO {table} ({quoted}) SELECT {', '.join(values)} FROM made "
                f"JOIN {table} t ON t.run_id = made.old_id ORDER BY made.new_id, t.ctid;"
            )
        postgres.sql(OURS, "\n".join(statements))


def _rows(postgres: Postgres, query: str) -> list[str]:
    found = postgres.sql(OURS, f"\\pset tuples_only on\n\\pset format unaligned\n{query}")
    return [line for line in found.splitlines() if line and not line.startswith(("You are", "Output", "Tuples"))]

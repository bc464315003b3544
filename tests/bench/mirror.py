"""`make bench-mirror`: how fast the mirror is, and what it costs its clients. Prints a table and writes JSON.

The workspace is the stand-in of `tests.bench.mirror_stand_in`: the emulator, which checks and keeps everything, takes
more time than the worker that is measured.
"""

import argparse
import asyncio
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import mirror_clients, mirror_speed
from tests.bench.mirror_stage import stage

_ROW = "{:>22} {:>8} {:>9} {:>8} {:>10} {:>12} {:>12} {:>34}"
_CLIENTS_ROW = "{:>28} {:>8} {:>8} {:>22}"
_CORES = "cores: worker, Postgres, stand-in"


def _table(found: dict[str, Any]) -> str:
    lines = [
        _ROW.format("backlog", "runs/s", "points/s", "ms/run", "CPU ms/run", "CPU µs/point", "requests/run", _CORES)
    ]
    for row in [*found["speed"]["small_runs"], found["speed"]["long_runs"]]:
        cores = f"{row['worker_cores']}, {row['postgres_cores']}, {row['stand_in_cores']}"
        backlog = f"{row['runs']} × {row['points'] // row['runs']} points"
        lines.append(
            _ROW.format(
                backlog, row["runs_per_s"], row["points_per_s"], row["ms_per_run"], row["worker_cpu_ms_per_run"],
                row["worker_cpu_us_per_point"], row["requests_per_run"], cores,
            )
        )  # fmt: skip
    if "clients" in found:
        lines += ["", _CLIENTS_ROW.format("log-batch of a client", "p50 ms", "p95 ms", "p95, none linked = 1")]
        lines += [
            _CLIENTS_ROW.format(row["name"], row["p50_ms"], row["p95_ms"], row["to_unlinked"])
            for row in found["clients"]["set_ups"]
        ]
    return "\n".join(lines)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    with stage() as built:
        found: dict[str, Any] = {}
        if options.rounds:
            found["clients"] = mirror_clients.measure(built, options.rounds, options.calls)
        speed = mirror_speed.measure(built, options.sizes, options.points, options.long_runs)
        return found | {"speed": asyncio.run(speed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 3000, 10_000], help="backlogs of small runs")
    parser.add_argument("--points", type=int, default=25_000, help="points of a long run")
    parser.add_argument("--long-runs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7, help="of the clients' three set-ups; 0 leaves them out")
    parser.add_argument("--calls", type=int, default=1000, help="log-batches a round and set-up")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    options = parser.parse_args()
    found = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "python": platform.python_version(), **_measure(options),
    }  # fmt: skip
    print(_table(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

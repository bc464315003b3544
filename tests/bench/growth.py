"""`make bench-growth`: what becomes of each row as data grows. Ours alone, in two databases that grow step by step.

In one, runs of one experiment become more (each as full as those of `make bench`: ten metrics, ten params, four tags);
in the other, metric points do, ten metrics of 10,000 steps in each of ever more runs. The rows of large files are not
here: no byte of them is in the database.
"""

import contextlib
import json
import math
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx

from tests.bench.drawing import Panel, into_page, number, panels, write
from tests.bench.machine import commit, machine
from tests.bench.multiply import multiply
from tests.bench.places import home
from tests.bench.postgres import postgres
from tests.bench.rows import ROWS, Row, page_of_runs, search
from tests.bench.seed import new_experiment, prepare, write_long_run
from tests.bench.servers import OURS, serving
from tests.bench.subject import Subject

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "bench"
POINTS_OF_A_RUN = 100_000  # that write_long_run writes
_RUN_BYTES, _POINT_BYTES = 10_400, 30  # on the disk with indexes, measured; see docs/performance.md
_LONGEST = 40  # title of a small plot
_NOISE = 1.5  # two rounds on a shared machine differ as much
RUNS, POINTS = "runs of one experiment", "metric points"

# Reads first: what writes leave behind counts as data of the next step.
_NAMES = ("start", "memory", "search", "page", "history", "log-metric", "log-batch", "create", "upload-small")


@dataclass(frozen=True)
class Step:
    """How much there is when the rows are measured."""

    axis: str
    size: int

    def seed(self, subject: Subject, before: int, long: str) -> None:
        if self.axis == RUNS:
            multiply(subject.postgres, subject.experiment, before, self.size, subject.many)
        else:
            multiply(subject.postgres, long, before // POINTS_OF_A_RUN, self.size // POINTS_OF_A_RUN, long + " + 1")


def _sizes(_: click.Context, __: click.Parameter, told: str) -> list[int]:
    try:
        return sorted({int(float(one)) for one in told.split(",") if one.strip()})
    except ValueError as error:
        raise click.BadParameter("numbers with commas, as 1000,1e4") from error


@click.command()
@click.option("--runs", default="1e3,1e4,1e5,1e6", callback=_sizes, show_default=True, help="runs of one experiment")
@click.option("--points", default="1e6,1e7,1e8", callback=_sizes, show_default=True, help="points of metrics")
@click.option("--row", "chosen", multiple=True, type=click.Choice(_NAMES), help="only this row")
@click.option("--rounds", default=2, show_default=True, help="rounds of each row; the median counts")
@click.option("--seconds", type=click.IntRange(1), default=2, show_default=True, help="length of a round of a rate")
@click.option("--keep", is_flag=True, help="keep the result: docs/bench/, and the table in docs/benchmarks.md")
def main(*, runs: list[int], points: list[int], chosen: tuple[str, ...], rounds: int, seconds: int, keep: bool) -> None:
    """Measure; exit code 1 when something grows faster than the logarithm of the stored data."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that everything started is ended
    if any(size % POINTS_OF_A_RUN for size in points):
        raise click.BadParameter(f"points come in runs of {POINTS_OF_A_RUN:,}")
    _check_room(max(runs, default=0) * _RUN_BYTES + max(points, default=0) * _POINT_BYTES)
    rows = [_row(name) for name in _NAMES if not chosen or name in chosen]
    began = time.monotonic()
    found: dict[str, list[dict[str, Any]]] = {}
    for axis, sizes in ((RUNS, runs), (POINTS, points)):
        if sizes:
            found[axis] = list(_axis([Step(axis, size) for size in sizes], rows, rounds, seconds, began))
    run = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "commit": commit(),
        "rounds": rounds, "seconds": seconds, "took_s": round(time.monotonic() - began),
        "rows": [{"name": row.name, "title": row.title, "unit": row.unit, "higher_is_better": row.higher_is_better}
                 for row in rows],
        "steps": found,
    }  # fmt: skip
    if keep:
        run = _with_other_axis(run)
    click.echo(table(run))
    if keep:
        write(RESULTS, "growth", run, plot(run))
        into_page(RESULTS.parent / "benchmarks.md", "growth", table(run))
    grown = [f"{row['title']} ({axis})" for axis in found for row in run["rows"] if verdict(run, axis, row) is False]
    click.echo(f"grows too fast: {'; '.join(grown)}" if grown else "nothing grows too fast", err=True)
    sys.exit(bool(grown))


def _with_other_axis(run: dict[str, Any]) -> dict[str, Any]:
    """The axis that this run left out, as it was kept for the same rows at the same commit."""
    kept = RESULTS / "growth.json"
    if not kept.exists():
        return run
    before = json.loads(kept.read_text(encoding="utf-8"))
    same = all(before[what] == run[what] for what in ("commit", "rows", "rounds", "seconds"))
    steps = (before["steps"] if same else {}) | run["steps"]
    return run | {"steps": {axis: steps[axis] for axis in (RUNS, POINTS) if axis in steps}}


def _row(name: str) -> Row:
    row = next(row for row in ROWS if row.name == name)
    if name == "page":
        return replace(row, measure=page_of_runs(many=True))
    if name == "search":
        return replace(row, title="runs/search by metric and param, order by metric", measure=search(100, many=True))
    return row


def _axis(steps: list[Step], rows: list[Row], rounds: int, seconds: float, began: float) -> Iterator[dict[str, Any]]:
    with postgres() as (database, folder), contextlib.ExitStack() as stack:
        database.create(OURS)
        server = stack.enter_context(serving(OURS, database, folder, mirror=False))
        http = stack.enter_context(httpx.Client(base_url=server.url, trust_env=False, timeout=120))
        subject = Subject(server, database, home(folder, OURS), http)
        prepare(subject, names={"search", "history"})
        subject.many, long, _ = (new_experiment(subject) for _ in range(3))
        if steps[0].axis == POINTS:
            multiply(database, subject.experiment, 0, 1000, subject.many)
            write_long_run(subject, long)
        before = 0
        for step in steps:
            _say(began, f"{step.size:,} {step.axis}: writing them")
            database.sql(OURS, "VACUUM ANALYZE; CHECKPOINT;")
            without = database.size(OURS)
            step.seed(subject, before, long)
            database.sql(OURS, "VACUUM ANALYZE; CHECKPOINT;")
            bytes_each = (database.size(OURS) - without) / (step.size - before)
            before = step.size
            medians = {}
            for row in rows:
                medians[row.name] = statistics.median(row.measure(subject, seconds) for _ in range(rounds))
                _say(began, f"  {row.name}: {number(medians[row.name])} {row.unit}")
            yield {"size": step.size, "medians": medians, "bytes_each": bytes_each}


def verdict(run: dict[str, Any], axis: str, row: dict[str, Any]) -> bool | None:
    """Whether a row grows no faster than the logarithm of the data; None without a second size."""
    steps = run["steps"].get(axis, [])
    if len(steps) < 2:
        return None
    return _growth(steps, row) <= _NOISE * math.log(steps[-1]["size"]) / math.log(steps[0]["size"])


def _growth(steps: list[dict[str, Any]], row: dict[str, Any]) -> float:
    """How many times slower the last is than the first."""
    first, last = (steps[place]["medians"][row["name"]] for place in (0, -1))
    return float(first / last if row["higher_is_better"] else last / first)


def table(run: dict[str, Any]) -> str:
    steps = [(axis, step) for axis, all_of_it in run["steps"].items() for step in all_of_it]
    heads = [f"{_short(step['size'])} {'runs' if axis == RUNS else 'points'}" for axis, step in steps]
    lines = [
        f"Measured {run['when'][:10]} at {run['commit']} on {run['machine']}, shared by load generator, server and",
        f"Postgres; medians of {run['rounds']} rounds, no mirror.",
        "",
        f"| work | {' | '.join(heads)} | no faster than the logarithm |",
        f"|---|{'---|' * len(heads)}---|",
    ]
    for row in run["rows"]:
        cells = [f"{number(step['medians'][row['name']])} {row['unit']}" for _, step in steps]
        judged = [verdict(run, axis, row) for axis in run["steps"]]
        said = "not yet" if False in judged else "yes" if True in judged else ""
        lines.append(f"| {row['title']} | {' | '.join(cells)} | {said} |")
    sizes = [f"{step['bytes_each']:,.0f} bytes" for _, step in steps]
    lines.append(f"| disk for each more, with indexes | {' | '.join(sizes)} | |")
    return "\n".join(lines)


def plot(run: dict[str, Any]) -> str:
    drawn = [
        Panel(row["title"] if len(row["title"]) <= _LONGEST else row["title"].split(", ")[0], row["unit"], {
            axis: [(step["size"], step["medians"][row["name"]]) for step in steps]
            for axis, steps in run["steps"].items()
        })
        for row in run["rows"]
    ]  # fmt: skip
    return panels(f"runmirror as data grows, each from 0. {run['when'][:10]}, {run['machine']}", drawn)


def _short(size: int) -> str:
    exponent = math.log10(size)
    return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in f"{exponent:.0f}") if exponent % 1 == 0 else f"{size:,}"


def _check_room(needed: int) -> None:
    free = shutil.disk_usage("/tmp").free
    click.echo(f"about {needed / 1e9:.1f} GB will be written; {free / 1e9:.1f} GB are free", err=True)
    if needed * 1.5 > free:
        raise click.ClickException("there is too little room: ask for less with --runs and --points")


def _say(began: float, what: str) -> None:
    click.echo(f"[{time.monotonic() - began:4.0f} s] {what}", err=True)


if __name__ == "__main__":
    main()

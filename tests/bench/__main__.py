"""`make bench`: runmirror, `mlflow server` and FastTrackML, in turn, over one Postgres. Every row of rows.py."""

import contextlib
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import httpx
import psutil

from tests.bench import report
from tests.bench.postgres import postgres
from tests.bench.rows import ROWS, Row, Subject, prepare, used_s
from tests.bench.servers import FASTTRACKML, FASTTRACKML_VENV, MLFLOW, MLFLOW_VENV, OURS, serving

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "bench"


@click.command()
@click.option("--row", "chosen", multiple=True, type=click.Choice([row.name for row in ROWS]), help="only this row")
@click.option("--rounds", default=5, show_default=True, help="rounds of each row; the median counts")
@click.option("--seconds", default=5.0, show_default=True, help="length of a round of a rate")
@click.option("--without", multiple=True, type=click.Choice([MLFLOW, FASTTRACKML]), help="leave this server out")
@click.option("--workers", type=int, help="API processes of runmirror (default: what it chooses)")
@click.option("--mirror/--no-mirror", default=False, help="run runmirror's mirror worker too")
@click.option("--keep", is_flag=True, help="keep the result: docs/bench/, and the table in the README")
def main(
    *, chosen: tuple[str, ...], rounds: int, seconds: float, without: tuple[str, ...], workers: int | None,
    mirror: bool, keep: bool,
) -> None:  # fmt: skip
    """Measure; exit code 1 when something wanted was not reached."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that everything started is ended
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk is not installed: apt-get install wrk (make bench does so as root on Debian)")
    rows = [row for row in ROWS if not chosen or row.name in chosen]
    names = [name for name in (OURS, MLFLOW, FASTTRACKML) if name not in without]
    installed = {MLFLOW: MLFLOW_VENV, FASTTRACKML: FASTTRACKML_VENV}
    for name in names:
        if name in installed and not installed[name].is_dir():
            raise click.ClickException(f"{installed[name].name} is missing: make bench makes it")
    with postgres() as (database, folder), contextlib.ExitStack() as stack:
        subjects = []
        for name in names:
            database.create(name)
            with serving(name, database, folder, mirror=False):
                pass  # the start that is timed finds an existing database
            server = stack.enter_context(
                serving(name, database, folder, mirror=mirror, workers=workers if name == OURS else None)
            )
            http = stack.enter_context(httpx.Client(base_url=server.url, trust_env=False, timeout=120))
            subject = Subject(server, database, folder / name, http)
            click.echo(f"{name}: up after {server.start_s:.2f} s; preparing", err=True)
            prepare(subject, names={row.name for row in rows})
            subjects.append(subject)
        database.sql("postgres", "CHECKPOINT")
        results = [_measure(row, subjects, rounds, seconds) for row in rows]
    run = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine(), "commit": _commit(),
        "rounds": rounds, "seconds": seconds, "mirror": mirror, "workers": workers, "rows": results,
    }  # fmt: skip
    click.echo(report.table(run))
    if keep:
        report.keep(run, RESULTS)
    missed = [row["name"] for row in results if row["holds"] is False]
    if missed:
        click.echo(f"not reached: {', '.join(missed)}", err=True)
    sys.exit(bool(missed))


def _measure(row: Row, subjects: list[Subject], rounds: int, seconds: float) -> dict[str, object]:
    """Servers in turn within each round, so that a slow minute of the machine is everybody's."""
    figures: dict[str, list[float]] = {}
    cpu: dict[str, list[list[float]]] = {}  # seconds of the server and of Postgres in each round
    for _ in range(rounds):
        for subject in subjects:
            name = subject.server.name
            if name not in row.servers:
                continue
            before = used_s(subject)
            figures.setdefault(name, []).append(row.measure(subject, seconds))
            after = used_s(subject)
            cpu.setdefault(name, []).append([now - then for now, then in zip(after, before, strict=True)])
    medians = {name: statistics.median(values) for name, values in figures.items()}
    said = ", ".join(f"{name} {value:,.1f}{_cpu(row, value, seconds, cpu[name])}" for name, value in medians.items())
    click.echo(f"{row.name}: {said} {row.unit}", err=True)
    wanted = ([f"≤ {row.at_most:g} {row.unit}"] if row.at_most is not None else []) + [
        f"≥ {factor:g} x {name}" for name, factor in row.wanted.items()
    ]
    return {
        "name": row.name, "title": row.title, "unit": row.unit, "higher_is_better": row.higher_is_better,
        "figures": figures, "cpu_s": cpu, "medians": medians, "wanted": ", ".join(wanted),
        "holds": row.holds(medians) if OURS in medians else None,
        "factors": {name: row.factor(medians[OURS], value) for name, value in medians.items() if name != OURS},
    }  # fmt: skip


def _cpu(row: Row, median: float, seconds: float, used: list[list[float]]) -> str:
    """What one unit of a rate costs, which a busy machine changes less than the rate."""
    if not row.higher_is_better:
        return ""
    server, database = (statistics.median(column) / (median * seconds) * 1e6 for column in zip(*used, strict=True))
    return f" ({server:.0f} + {database:.0f} µs of server and Postgres each)"


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    load, _, _ = os.getloadavg()
    return f"{os.cpu_count()} {platform.machine()} cores, {memory:.0f} GiB, load at the end {load:.1f}"


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


if __name__ == "__main__":
    main()

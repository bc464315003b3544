"""`make bench`: runmirror, `mlflow server` and FastTrackML, in turn, over one Postgres. Every row of rows.py.

Ours is there twice: alone, and with a worker that mirrors into the stand-in workspace of `make bench-mirror` meanwhile.
"""

import contextlib
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import httpx

from tests.azureml_emulator.process import start_emulator
from tests.bench import report
from tests.bench.machine import commit, machine
from tests.bench.mirror_stage import linked, stand_in_for
from tests.bench.places import home
from tests.bench.postgres import Postgres, postgres
from tests.bench.rows import ROWS, WITH_MIRROR, Row
from tests.bench.seed import prepare
from tests.bench.servers import FASTTRACKML, FASTTRACKML_VENV, MIRRORED, MLFLOW, MLFLOW_VENV, OURS, serving
from tests.bench.subject import Subject

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "bench"


@click.command()
@click.option("--row", "chosen", multiple=True, type=click.Choice([row.name for row in ROWS]), help="only this row")
@click.option("--rounds", default=3, show_default=True, help="rounds of each row, of rates thrice as many")
@click.option("--seconds", type=click.IntRange(1), default=2, show_default=True, help="length of a round of a rate")
@click.option("--without", multiple=True, type=click.Choice([MIRRORED, MLFLOW, FASTTRACKML]), help="leave this out")
@click.option("--workers", type=int, help="API processes of runmirror (default: what it chooses)")
@click.option("--keep", is_flag=True, help="keep the result: docs/bench/, and the table in docs/benchmarks.md")
def main(
    *, chosen: tuple[str, ...], rounds: int, seconds: int, without: tuple[str, ...], workers: int | None, keep: bool
) -> None:
    """Measure; exit code 1 when something wanted was not reached."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that everything started is ended
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk is not installed: apt-get install wrk (make bench does so as root on Debian)")
    rows = [row for row in ROWS if not chosen or row.name in chosen]
    used = {name for row in rows for name in row.servers}
    names = [name for name in WITH_MIRROR if name not in without and name in used]
    installed = {MLFLOW: MLFLOW_VENV, FASTTRACKML: FASTTRACKML_VENV}
    for name in names:
        if name in installed and not installed[name].is_dir():
            raise click.ClickException(f"{installed[name].name} is missing: make bench makes it")
    began = time.monotonic()
    with postgres() as (database, folder), contextlib.ExitStack() as stack:
        subjects = []
        for name in names:
            _say(began, f"{name}: starting, and writing what it is asked for")
            subject = stack.enter_context(_subject(name, database, folder, workers))
            prepare(subject, names={row.name for row in rows})
            if name == MIRRORED:
                subject.suspend()
            subjects.append(subject)
        database.sql("postgres", "CHECKPOINT")
        results = [_measure(row, subjects, rounds, seconds, began) for row in rows]
    run = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "commit": commit(),
        "rounds": rounds, "seconds": seconds, "workers": workers, "took_s": round(time.monotonic() - began),
        "rows": results,
    }  # fmt: skip
    click.echo(report.table(run))
    if keep:
        report.keep(run, RESULTS)
    missed = [row["name"] for row in results if row["holds"] is False]
    _say(began, f"not reached: {', '.join(missed)}" if missed else "everything wanted is reached")
    sys.exit(bool(missed))


@contextlib.contextmanager
def _subject(name: str, database: Postgres, folder: Path, workers: int | None) -> Iterator[Subject]:
    database.create(name)
    with contextlib.ExitStack() as stack:
        more: dict[str, str] = {}
        if name == MIRRORED:
            emulator = stack.enter_context(start_emulator(folder))
            stand_in = stack.enter_context(stand_in_for(emulator))
            more = linked(emulator, stand_in)
        else:
            with serving(name, database, folder, mirror=False):
                pass  # the start that is timed finds an existing database
        ours = workers if name in {OURS, MIRRORED} else None
        server = stack.enter_context(serving(name, database, folder, mirror=name == MIRRORED, workers=ours, more=more))
        http = stack.enter_context(httpx.Client(base_url=server.url, trust_env=False, timeout=120))
        subject = Subject(server, database, home(folder, name), http)
        if name == MIRRORED:
            stand_in.wait_for_requests()
        try:
            yield subject
        finally:
            subject.end_programs()
            if name == MIRRORED:
                subject.kill()  # it would first mirror what it has begun


def _measure(row: Row, subjects: list[Subject], rounds: int, seconds: float, began: float) -> dict[str, object]:
    """Servers in turn within each round, so that a slow minute of the machine is everybody's."""
    figures: dict[str, list[float]] = {}
    cpu: dict[str, list[list[float]]] = {}  # seconds of the server and of Postgres in each round
    for _ in range(row.rounds(rounds)):
        for subject in subjects:
            name = subject.server.name
            if name not in row.servers:
                continue
            if name == MIRRORED:
                subject.resume()
            before = subject.used_s()
            figures.setdefault(name, []).append(row.measure(subject, seconds))
            after = subject.used_s()
            cpu.setdefault(name, []).append([now - then for now, then in zip(after, before, strict=True)])
            if name == MIRRORED:
                subject.suspend()
    for subject in subjects:
        subject.end_programs()
    medians = {name: statistics.median(values) for name, values in figures.items()}
    said = ", ".join(f"{name} {value:,.1f}{_cpu(row, value, seconds, cpu[name])}" for name, value in medians.items())
    _say(began, f"{row.name}: {said} {row.unit}")
    wanted = [f"≥ {factor:g} x {name}" for name, factor in row.wanted.items()]
    if row.at_most is not None:
        or_factor = "" if row.or_factor is None else f" (or {row.or_factor:.3g} x {MLFLOW})"
        wanted.insert(0, f"≤ {row.at_most:g} {row.unit}{or_factor}")
    return {
        "name": row.name, "title": row.title, "unit": row.unit, "higher_is_better": row.higher_is_better,
        "figures": figures, "cpu_s": cpu, "medians": medians, "wanted": ", ".join(wanted),
        "holds": row.holds(medians) if OURS in medians else None,
        "factors": {name: row.factor(medians[OURS], medians[name]) for name in medians if name not in {OURS, MIRRORED}},
    }  # fmt: skip


def _cpu(row: Row, median: float, seconds: float, used: list[list[float]]) -> str:
    """What one unit of a rate costs, which a busy machine changes less than the rate."""
    if not row.higher_is_better:
        return ""
    server, database = (statistics.median(column) / (median * seconds) * 1e6 for column in zip(*used, strict=True))
    return f" ({server:.0f} + {database:.0f} µs of server and Postgres each)"


def _say(began: float, what: str) -> None:
    click.echo(f"[{time.monotonic() - began:4.0f} s] {what}", err=True)


if __name__ == "__main__":
    main()

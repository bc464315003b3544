"""`python -m tests.bench.overload`: 500 clients at once, who ask for twice of what can be done.

First what can be done is measured (16 connections, as fast as they can), then 500 connections are paced to ask for
twice that; who is answered 429 waits as long as `Retry-After` says. Somebody reads and writes beside them all the time,
and in the end everything acknowledged must be stored.
"""

import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx

from tests.bench.drawing import into_page, number, write_json
from tests.bench.load import SCRIPTS, environment, wrk
from tests.bench.machine import commit, machine
from tests.bench.places import home
from tests.bench.postgres import postgres
from tests.bench.seed import new_run, prepare
from tests.bench.servers import OURS, serving
from tests.bench.subject import API, Subject

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "bench"
_FLOODS = {
    "log_metric": "log-metric",
    "log_batch": "log-batch of 1,000 metrics",
    "set_tag": "set-tag, the ordinary way",
    "search": "runs/search by metric and param, 2,000 runs",
}
_MOST_SPREAD = 20  # p99 over p50
_BESIDE_EVERY_S = 0.05


@dataclass
class Beside:
    """Somebody who does something small all the time: how long each took, and what was not answered 200."""

    taken_ms: dict[str, list[float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


@click.command()
@click.option("--flood", "chosen", multiple=True, type=click.Choice(list(_FLOODS)), help="only this one")
@click.option("--connections", default=500, show_default=True)
@click.option("--times", default=2.0, show_default=True, help="how much more is asked for than can be done")
@click.option("--seconds", type=click.IntRange(1), default=8, show_default=True, help="length of a flood")
@click.option("--keep", is_flag=True, help="keep the result: docs/bench/, and the table in docs/benchmarks.md")
def main(*, chosen: tuple[str, ...], connections: int, times: float, seconds: int, keep: bool) -> None:
    """Measure; exit code 1 when something broke, was lost or was starved."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that everything started is ended
    found = []
    with postgres() as (database, folder):
        database.create(OURS)
        with (
            serving(OURS, database, folder, mirror=False) as server,
            httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http,
        ):
            subject = Subject(server, database, home(folder, OURS), http)
            prepare(subject, names={"search"})
            for script in chosen or _FLOODS:
                found.append(_flood(subject, script, connections, times, seconds))
                click.echo(f"{script}: {found[-1]}", err=True)
    run = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "commit": commit(),
        "connections": connections, "times": times, "seconds": seconds, "floods": found,
    }  # fmt: skip
    click.echo(table(run))
    if keep:
        write_json(RESULTS, "overload", run)
        into_page(RESULTS.parent / "benchmarks.md", "overload", table(run))
    wrong = [f"{flood['title']}: {what}" for flood in found for what in flood["wrong"]]
    click.echo("; ".join(wrong) or "nothing broke, was lost or was starved", err=True)
    sys.exit(bool(wrong))


def _flood(subject: Subject, script: str, connections: int, times: float, seconds: float) -> dict[str, Any]:
    runs = subject.folder / "some-runs.txt"
    runs.write_text("".join(f"{run}\n" for run in subject.runs))
    where = {"runs": runs, "experiment": subject.experiment if script == "search" else subject.playground}
    sustained = wrk(subject.server.url, script, connections=16, seconds=3, **where).per_second
    subject.runs = [new_run(subject, subject.playground, number) for number in range(16)]
    runs.write_text("".join(f"{run}\n" for run in subject.runs))
    pause_ms = connections / (times * sustained) * 1000
    more = {"BENCH_SENDS": script, "BENCH_PAUSE_MS": f"{pause_ms:.1f}"}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s",
               "-s", str(SCRIPTS / "flood.lua"), subject.server.url]  # fmt: skip
    with _beside(subject) as beside:
        said = subprocess.run(
            command, env=environment(**where) | more, capture_output=True, text=True, check=True
        ).stdout
    counts = re.search(r"flood: (.*)", said)
    if counts is None:
        raise RuntimeError(f"wrk said something else than expected:\n{said}")
    told = {name: float(value) for name, value in (pair.split("=") for pair in counts[1].split())}
    per_request = {"log_metric": 1, "log_batch": 1000}.get(script, 0)
    result = {
        "name": script, "title": _FLOODS[script], "sustained": sustained, "asked": times * sustained,
        "answered": told["ok"] / seconds, **told, "spread": told["p99"] / told["p50"],
        "beside_ms": {what: _percentiles(taken) for what, taken in beside.taken_ms.items()},
        "beside_failed": beside.failed, "points_acknowledged": int(told["ok"]) * per_request,
        "points_stored": _stored(subject) if per_request else 0,
    }  # fmt: skip
    return result | {"wrong": _wrong(result)}


def _wrong(flood: dict[str, Any]) -> list[str]:
    wrong = []
    if flood["failed"] or flood["broken"]:
        wrong.append(f"{flood['failed']:.0f} answers neither 200 nor 429, {flood['broken']:.0f} broken connections")
    if flood["spread"] > _MOST_SPREAD:
        wrong.append(f"p99 is {flood['spread']:.0f} x p50")
    if flood["beside_failed"]:
        wrong.append(f"beside it: {', '.join(flood['beside_failed'][:3])}")
    if flood["points_stored"] < flood["points_acknowledged"]:
        wrong.append(f"{flood['points_acknowledged'] - flood['points_stored']} acknowledged points are not stored")
    return wrong


def _stored(subject: Subject) -> int:
    """Points of the sixteen runs, as clients read them."""
    stored = 0
    for run in subject.runs:
        answer = subject.http.get(f"{API}/runs/get", params={"run_id": run}).json()
        for metric in answer["run"]["data"].get("metrics", []):
            asked, token = {"run_id": run, "metric_key": metric["key"], "max_results": "25000"}, ""
            while True:
                page = subject.http.get(
                    f"{API}/metrics/get-history", params=asked | ({"page_token": token} if token else {})
                ).json()
                stored += len(page["metrics"])
                if not (token := page.get("next_page_token", "")):
                    break
    return stored


@contextmanager
def _beside(subject: Subject) -> Iterator[Beside]:
    beside, ended = Beside(), threading.Event()
    step = 0

    def once(http: httpx.Client) -> Iterator[tuple[str, httpx.Response]]:
        nonlocal step
        step += 1
        run = subject.history_run
        point = {"run_id": run, "key": "beside", "value": 1.0, "timestamp": time.time_ns() // 10**6, "step": step}
        yield "runs/get", http.get(f"{API}/runs/get", params={"run_id": run})
        yield "log-metric", http.post(f"{API}/runs/log-metric", json=point)
        yield "/readyz", http.get("/readyz")

    def go_on() -> None:
        with httpx.Client(base_url=subject.server.url, trust_env=False, timeout=30) as http:
            while not ended.wait(_BESIDE_EVERY_S):
                began = time.perf_counter()
                for what, answer in once(http):
                    beside.taken_ms.setdefault(what, []).append((time.perf_counter() - began) * 1000)
                    if answer.status_code != 200:
                        beside.failed.append(f"{what} answered {answer.status_code}")
                    began = time.perf_counter()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield beside
    finally:
        ended.set()
        thread.join()


def _percentiles(taken: list[float]) -> dict[str, float]:
    return {"p50": statistics.median(taken), "max": max(taken)}


def table(run: dict[str, Any]) -> str:
    lines = [
        f"Measured {run['when'][:10]} at {run['commit']} on {run['machine']}, shared by load generator, server and",
        f"Postgres: {run['connections']} connections that ask for {run['times']:g} times what 16 are answered.",
        "",
        "| flood of | by 16 | asked for | done | 429 | errors | p50, p99 | a reader beside | a writer | `/readyz` |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for flood in run["floods"]:
        beside = [f"{number(times['p50'])}, at most {number(times['max'])} ms" for times in flood["beside_ms"].values()]
        lines.append(
            f"| {flood['title']} | {number(flood['sustained'])}/s | {number(flood['asked'])}/s "
            f"| {number(flood['answered'])}/s | {number(flood['refused'] / run['seconds'])}/s "
            f"| {number(flood['failed'] + flood['broken'])} "
            f"| {number(flood['p50'])}, {number(flood['p99'])} ms | {' | '.join(beside)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

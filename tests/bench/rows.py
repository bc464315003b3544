"""The rows of the table: what is done, and what is wanted of it."""

import mmap
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import client, load
from tests.bench.seed import HISTORY
from tests.bench.servers import FASTTRACKML, MIRRORED, MLFLOW, OURS, keeping_nothing, serving
from tests.bench.subject import API, Subject

PAGE = 25_000
LARGE_BYTES = 512 * 1024**2
# A round of mlflow server goes at one speed or at about twice that: by chance, as it seems, in which of its two workers
# takes the connections. A median of three would toss a coin.
RATE_ROUNDS = 3  # times as many as of other rows
ALL = (OURS, MLFLOW, FASTTRACKML)
WITH_MIRROR = (OURS, MIRRORED, MLFLOW, FASTTRACKML)


@dataclass(frozen=True)
class Row:
    """`measure` returns one figure per round; `wanted` are the factors over each competitor.

    A time that holds on the machine it was set on only (`at_most`) is also a ratio: `or_factor` is what mlflow server
    took on that machine, through that time. On another machine either will do.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[Subject, float], float]
    higher_is_better: bool
    servers: tuple[str, ...] = ALL
    wanted: dict[str, float] = field(default_factory=dict)
    at_most: float | None = None
    or_factor: float | None = None
    once: bool = False  # what does not vary enough to be worth the time of more rounds
    often: int = 1  # times as many rounds as other rows

    def rounds(self, asked: int) -> int:
        return 1 if self.once else asked * self.often

    def holds(self, medians: dict[str, float]) -> bool | None:
        """Whether everything wanted is there; None when nothing it needs was measured."""
        ours = medians[OURS]
        as_fast = (
            self.or_factor is not None and MLFLOW in medians and self.factor(ours, medians[MLFLOW]) >= self.or_factor
        )
        checks = [] if self.at_most is None else [ours <= self.at_most or as_fast]
        for name, factor in self.wanted.items():
            if name in medians:
                checks.append(self.factor(ours, medians[name]) >= factor)
        return all(checks) if checks else None

    def factor(self, ours: float, theirs: float) -> float:
        return ours / theirs if self.higher_is_better else theirs / ours


def _rate(script: str, connections: int, *, runs: int, per_request: int = 1) -> Callable[[Subject, float], float]:
    def measure(subject: Subject, seconds: float) -> float:
        some = subject.folder / "some-runs.txt"
        some.write_text("".join(f"{run}\n" for run in subject.runs[:runs]))
        rate = load.wrk(
            subject.server.url,
            script,
            connections=connections,
            seconds=seconds,
            runs=some,
            experiment=subject.playground,
        )
        return rate.per_second * per_request

    return measure


def _timed(call: Callable[[Subject], None], most: int = 10) -> Callable[[Subject, float], float]:
    """The median time of a call in milliseconds, after one to warm up unless that one takes longer than a round."""

    def measure(subject: Subject, seconds: float) -> float:
        times = [_ms(call, subject)]
        if times[0] > seconds * 1000:
            return times[0]
        until = time.perf_counter() + seconds
        while len(times) < 2 or (time.perf_counter() < until and len(times) <= most):
            times.append(_ms(call, subject))
        return statistics.median(times[1:])

    return measure


def _ms(call: Callable[[Subject], None], subject: Subject) -> float:
    began = time.perf_counter()
    call(subject)
    return (time.perf_counter() - began) * 1000


def search(count: int, *, many: bool = False) -> Callable[[Subject, float], float]:
    def once(subject: Subject) -> None:
        found = subject.post("/runs/search", {
            "experiment_ids": [subject.many if many else subject.experiment], "max_results": 100,
            "filter": "metrics.metric_1 > 0.5 and params.param_1 = 'value-1'", "order_by": ["metrics.metric_0 DESC"],
        })["runs"]  # fmt: skip
        if len(found) != count:
            raise RuntimeError(f"{subject.server.name} found {len(found)} runs instead of {count}")

    return _timed(once)


def page_of_runs(*, many: bool = False) -> Callable[[Subject, float], float]:
    def once(subject: Subject) -> None:
        asked = {"experiment_ids": [subject.many if many else subject.experiment], "max_results": 1000}
        found = subject.post("/runs/search", asked)["runs"]
        if len(found) != 1000 or len(found[0]["data"]["metrics"]) != 10:
            raise RuntimeError(f"{subject.server.name} gave something else than 1,000 full runs")

    return _timed(once)


def _history(subject: Subject) -> None:
    seen, token = 0, ""
    while True:
        asked = {"run_id": subject.history_run, "metric_key": "loss", "max_results": str(PAGE)}
        answer = subject.http.get(
            f"{API}/metrics/get-history", params={**asked, "page_token": token} if token else asked
        )
        answer.raise_for_status()
        body = answer.json()
        seen += len(body["metrics"])
        token = body.get("next_page_token") or ""
        if not token:
            break
    if seen != HISTORY:
        raise RuntimeError(f"{subject.server.name} gave {seen} points instead of {HISTORY}")


def _large_file(folder: Path) -> Path:
    path = folder.parent / "large.bin"
    if not path.exists():
        block = os.urandom(1024**2)
        with path.open("wb") as file:
            for number in range(LARGE_BYTES // len(block)):
                file.write(number.to_bytes(8, "big") + block[8:])
            os.fsync(file.fileno())
    return path


def _artifact(subject: Subject, name: str) -> str:
    run = subject.runs[0]
    return f"/api/2.0/mlflow-artifacts/artifacts/{subject.playground}/{run}/artifacts/{name}"


def copy_s(folder: Path) -> float:
    """How long a copy of the large file takes to be on the disk: what an upload cannot beat by much."""
    source = _large_file(folder)
    target = folder.parent / "copy.bin"
    began = time.perf_counter()
    with source.open("rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(1024**2):
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    took = time.perf_counter() - began
    target.unlink()
    return took


def _upload(subject: Subject, seconds: float) -> float:
    """Relative to a copy of the file made right before."""
    copied = copy_s(subject.folder)
    return _upload_ms(subject, seconds) / 1000 / copied


def _upload_ms(subject: Subject, _: float) -> float:
    """By itself: a fast disk copies in less time than an upload costs the two cores."""
    with _large_file(subject.folder).open("rb") as file:
        began = time.perf_counter()
        subject.http.put(_artifact(subject, "large.bin"), content=file, timeout=120).raise_for_status()
        return (time.perf_counter() - began) * 1000


def _to_nothing_ms(subject: Subject, _: float) -> float:
    """What uvicorn, the client and the two cores need for it before anybody hashes or keeps a byte."""
    with keeping_nothing(subject.folder) as url, _large_file(subject.folder).open("rb") as file:
        began = time.perf_counter()
        subject.http.put(f"{url}/large.bin", content=file, timeout=120).raise_for_status()
        return (time.perf_counter() - began) * 1000


def _download(subject: Subject, _: float) -> float:
    copied = copy_s(subject.folder)
    seen = 0
    began = time.perf_counter()
    with subject.http.stream("GET", _artifact(subject, "large.bin"), timeout=120) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_raw(1024**2):
            seen += len(chunk)
    took = time.perf_counter() - began
    if seen != LARGE_BYTES:
        raise RuntimeError(f"{subject.server.name} gave {seen} bytes")
    return took / copied


def _growth(subject: Subject, _: float) -> float:
    """Peak growth of the memory of all processes while the large file goes up and comes down, in MiB."""
    before = {process.pid: process.memory_info().rss for process in subject.server.processes()}
    peak = 0

    def look() -> None:
        nonlocal peak
        now = sum(p.memory_info().rss for p in subject.server.processes() if p.pid in before)
        peak = max(peak, now - sum(before.values()))

    def chunks() -> Any:
        with _large_file(subject.folder).open("rb") as file:
            while chunk := file.read(4 * 1024**2):
                yield chunk
                look()

    subject.http.put(
        _artifact(subject, "large.bin"), content=chunks(), headers={"Content-Length": str(LARGE_BYTES)}, timeout=120
    ).raise_for_status()
    with subject.http.stream("GET", _artifact(subject, "large.bin"), timeout=120) as answer:
        for _ in answer.iter_raw(4 * 1024**2):
            look()
    return max(peak, mmap.PAGESIZE) / 1024**2  # what is not seen to grow is not nothing: there are factors over it


def _memory(subject: Subject, _: float) -> float:
    return subject.server.memory_mb()[0]


def _processes(subject: Subject, _: float) -> float:
    return len(subject.server.processes())


def _start(subject: Subject, _: float) -> float:
    """Ours is started again beside itself in each round; the others take long enough to have done so once."""
    if subject.server.name != OURS:
        return subject.server.start_s * 1000
    with serving(OURS, subject.postgres, subject.folder.parent, mirror=False) as server:
        return server.start_s * 1000


ROWS = (
    Row("start", "start to first answer, existing database", "ms", _start, False, at_most=1500, or_factor=9000 / 1500),
    Row("memory", "memory at rest, largest process", "MB", _memory, False, at_most=150, once=True),
    Row("processes", "processes at rest, without the mirror", "", _processes, False, at_most=1, once=True),
    Row("log-metric", "log-metric, 16 connections", "req/s", _rate("log_metric", 16, runs=16), True,
        WITH_MIRROR, wanted={FASTTRACKML: 5, MLFLOW: 45}, often=RATE_ROUNDS),
    Row("log-batch", "log-batch of 1,000 metrics, 8 connections", "metrics/s",
        _rate("log_batch", 8, runs=8, per_request=1000), True,
        WITH_MIRROR, wanted={FASTTRACKML: 5, MLFLOW: 40}, often=RATE_ROUNDS),
    Row("create", "runs/create with 2 tags, 16 connections", "req/s", _rate("create_run", 16, runs=1), True,
        WITH_MIRROR, wanted={FASTTRACKML: 3, MLFLOW: 30}, often=RATE_ROUNDS),
    Row("search", "runs/search by metric and param, order by metric, 2,000 runs", "ms",
        search(100), False, at_most=8, or_factor=87 / 8),
    Row("search-100k", "the same, 100,000 runs", "ms", search(100, many=True), False,
        servers=(OURS,), at_most=25),
    Row("page", "runs/search, 1,000 full runs a page", "ms", page_of_runs(), False, at_most=30,
        or_factor=560 / 30),
    Row("history", "get-history of 100,000 points, pages of 25,000", "ms", _timed(_history, 5), False, at_most=250,
        or_factor=4860 / 250),
    Row("upload-small", "proxied upload of 10 KiB files, 8 connections", "req/s", _rate("upload", 8, runs=16), True,
        servers=(OURS, MLFLOW), wanted={MLFLOW: 5}, often=RATE_ROUNDS),
    Row("upload", "proxied upload of 512 MiB", "x copy", _upload, False, servers=(OURS, MLFLOW), at_most=2),
    Row("upload-ms", "the same, by itself", "ms", _upload_ms, False, servers=(OURS, MLFLOW)),
    Row("upload-nothing", "the same to an empty ASGI route, which keeps nothing", "ms", _to_nothing_ms, False,
        servers=(OURS,)),
    Row("download", "proxied download of 512 MiB", "x copy", _download, False, servers=(OURS, MLFLOW), at_most=2),
    Row("growth", "growth of memory by both", "MiB", _growth, False, servers=(OURS, MLFLOW), at_most=64,
        once=True),
    Row("client-metric", "mlflow.log_metric x 1,000", "ms", client.log_metric, False, WITH_MIRROR,
        once=True),
    Row("client-batch", "MlflowClient.log_batch x 20 of 1,000 points", "ms", client.log_batch, False, WITH_MIRROR,
        once=True),
    Row("client-autolog", "autologging of a scikit-learn fit", "ms", client.autolog, False, (OURS, MIRRORED, MLFLOW),
        once=True),
)  # fmt: skip
"""In the order of the table; `servers` that have the thing at all."""

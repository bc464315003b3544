"""What the mirror costs its clients: p95 of log-batch with no workspace linked, with one that is down, with a slow one.

The three set-ups take turns, in another order each round, every one with a server, a worker and a database of its own
that run only while it is measured. What counts is the median of the rounds.
"""

import http.client
import json
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.bench.mirror_stage import Stage
from tests.server import serving

SET_UPS = ("no workspace linked", "workspace down", "workspace answers in 10 s")
_SLOW_S = 10
_METRICS = 10
_RUNS = 20


@contextmanager
def _set_up(stage: Stage, name: str) -> Iterator[str]:
    """A server with its worker, as `runmirror serve` starts them; its address."""
    linked = {
        key: value for key, value in stage.environment().items() if key.startswith(("AZURE_", "RUNMIRROR_AZUREML")) or
        key.upper().endswith(("_PROXY", "_BUNDLE")) or key == "SSL_CERT_FILE"
    }  # fmt: skip
    _workspace_is(stage, SET_UPS[0])
    stage.stand_in.ask("POST", "/reset")
    folder = stage.folder / f"clients-{SET_UPS.index(name)}"
    is_linked = name != SET_UPS[0]
    with serving(folder, **(linked if is_linked else {})) as server:
        if is_linked:
            # The workspace is known and in use when it goes away, or slows down.
            stage.stand_in.wait_for_requests()
        _workspace_is(stage, name)
        yield server.url
        _workspace_is(stage, SET_UPS[0])  # or the worker's last requests would hold up its end


def _workspace_is(stage: Stage, name: str) -> None:
    stage.stand_in.ask("POST", f"/down/{int(name == SET_UPS[1])}")
    stage.stand_in.ask("POST", f"/delay/{_SLOW_S if name == SET_UPS[2] else 0.001}")


def _latencies_ms(url: str, calls: int) -> list[float]:
    """One client, one connection: runs are created and written to in turns, so that there is always one to mirror."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        read = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {read[:200]!r}")
        found: dict[str, Any] = json.loads(read)
        return found

    created = [post("/api/2.0/mlflow/runs/create", {"experiment_id": "0", "start_time": 1}) for _ in range(_RUNS)]
    ids = [run["run"]["info"]["run_id"] for run in created]
    found = []
    for number in range(calls + calls // 10):
        metrics = [{"key": f"m{n}", "value": number / 7, "timestamp": number, "step": number} for n in range(_METRICS)]
        begun = time.perf_counter()
        post("/api/2.0/mlflow/runs/log-batch", {"run_id": ids[number % _RUNS], "metrics": metrics})
        found.append(1000 * (time.perf_counter() - begun))
    connection.close()
    return found[calls // 10 :]  # without the first, which warm the server up


def measure(stage: Stage, rounds: int, calls: int) -> dict[str, Any]:
    p50: dict[str, list[float]] = {name: [] for name in SET_UPS}
    p95: dict[str, list[float]] = {name: [] for name in SET_UPS}
    order = random.Random(4)  # the same every time
    for _ in range(rounds):
        for name in order.sample(SET_UPS, len(SET_UPS)):
            with _set_up(stage, name) as url:
                taken = statistics.quantiles(_latencies_ms(url, calls), n=100)
            p50[name].append(taken[49])
            p95[name].append(taken[94])
    medians = {name: statistics.median(values) for name, values in p95.items()}
    return {
        "rounds": rounds, "calls": calls,
        "set_ups": [
            {
                "name": name, "p50_ms": round(statistics.median(p50[name]), 3), "p95_ms": round(medians[name], 3),
                "p95_of_each_round_ms": [round(value, 3) for value in p95[name]],
                "to_unlinked": round(medians[name] / medians[SET_UPS[0]], 3),
            }
            for name in SET_UPS
        ],
    }  # fmt: skip

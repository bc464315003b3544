"""Load: `wrk` for rates, and what an answer of it says."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent / "wrk"
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Rate:
    """What one round of `wrk` saw."""

    per_second: float
    p50_ms: float
    p99_ms: float
    requests: int


def wrk(url: str, script: str, *, connections: int, seconds: float, runs: Path, experiment: str) -> Rate:
    """Drive one server with one script. Raises when any answer is not 2xx: a refusal is no work."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "--latency",
               "-s", str(SCRIPTS / f"{script}.lua"), url]  # fmt: skip
    said = subprocess.run(
        command, env=environment(runs=runs, experiment=experiment), capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"{url} did not do the work of {script}:\n{said}")
    return Rate(
        float(_find(r"Requests/sec:\s+([\d.]+)", said)), _ms(_find(r"(?m)^\s+50%\s+(\S+)", said)),
        _ms(_find(r"(?m)^\s+99%\s+(\S+)", said)), int(_find(r"(\d+) requests in", said)),
    )  # fmt: skip


def environment(*, runs: Path, experiment: str) -> dict[str, str]:
    """What the scripts read."""
    told = {"BENCH_RUNS": str(runs), "BENCH_EXPERIMENT": experiment}
    return {**os.environ, **told, "LUA_PATH": f"{SCRIPTS}/?.lua;;"}


def _find(pattern: str, said: str) -> str:
    match = re.search(pattern, said)
    if match is None:
        raise RuntimeError(f"wrk said something else than expected:\n{said}")
    return match.group(1)


def _ms(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    if match is None:
        raise RuntimeError(f"no time: {text}")
    return float(match.group(1)) * _UNITS_MS[match.group(2)]

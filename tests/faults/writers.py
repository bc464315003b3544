"""Clients that log whatever happens to the server: each knows what it was told was done, and asks again otherwise."""

import hashlib
import logging
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
PATIENCE_S = 60.0
TIMEOUT_S = 60.0  # of a client; the server must have answered long before
OPS_OF_A_RUN = 40
_AGAIN = {429, 503, 504}
_PACE_S = 0.02

Json = dict[str, Any]


@dataclass
class Run:
    """What is known to be in one run, because it was acknowledged."""

    key: str
    run_id: str = ""
    root: str = ""
    points: set[int] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # path to MD5
    step: int = 0

    def writes(self) -> int:
        return len(self.points) + len(self.tags) + len(self.params) + len(self.files)


class Writer(threading.Thread):
    """Writes to runs of its own until it is told to stop."""

    def __init__(self, url: str, experiment: str, name: str, stopping: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.url = url
        self.experiment = experiment
        self.stopping = stopping
        self.runs: list[Run] = []
        self.sent = 0
        self.errors: Counter[str] = Counter()
        self.answers: list[float] = []  # when each write was acknowledged
        self.longest_s = 0.0
        self.wrong: list[str] = []

    def first_answer_after(self, moment: float) -> float | None:
        return next((answered for answered in self.answers if answered > moment), None)


@dataclass(frozen=True)
class Load:
    """Who logs, and how much at a time."""

    plain: int = 12
    mlflow: int = 4
    points: int = 5  # of a log-batch
    file_bytes: int = 0  # of the largest files; 0: none


class PlainWriter(Writer):
    """Speaks HTTP itself, so that every single answer is seen; the dice decide what it writes."""

    def __init__(
        self, url: str, experiment: str, name: str, stopping: threading.Event, *, seed: str, load: "Load"
    ) -> None:
        super().__init__(url, experiment, name, stopping)
        self._dice = random.Random(seed)
        self._load = load

    def run(self) -> None:
        with httpx.Client(base_url=self.url, trust_env=False, timeout=TIMEOUT_S) as http:
            self._http = http
            while not self.stopping.is_set():
                if (run := self._create()) is None:
                    continue
                for _ in range(OPS_OF_A_RUN):
                    if self.stopping.is_set():
                        break
                    self._write(run)
                    self.stopping.wait(_PACE_S)
                self._post("/runs/update", {"run_id": run.run_id, "status": "FINISHED", "end_time": _now_ms()})

    def _create(self) -> Run | None:
        key = f"{self.name}-{len(self.runs)}"
        run = Run(key)
        tags = [{"key": "runmirror.idempotency_key", "value": key}]
        self.runs.append(run)  # without an answer it may be there all the same
        answer = self._post("/runs/create", {"experiment_id": self.experiment, "start_time": _now_ms(), "tags": tags})
        if answer is None:
            return None
        info = answer.json()["run"]["info"]
        run.run_id, run.root = info["run_id"], info["artifact_uri"].removeprefix("mlflow-artifacts:/")
        return run

    def _write(self, run: Run) -> None:
        drawn = self._dice.random()
        if self._load.file_bytes and drawn < 0.25:
            self._upload(run)
        elif drawn < 0.5:
            points = [_point(step) for step in range(run.step, run.step + self._load.points)]
            run.step += len(points)
            if self._post("/runs/log-batch", {"run_id": run.run_id, "metrics": points}):
                run.points |= {point["step"] for point in points}
        elif drawn < 0.8:
            point = _point(run.step)
            run.step += 1
            if self._post("/runs/log-metric", {"run_id": run.run_id, **point}):
                run.points.add(point["step"])
        else:
            kind, pairs, path = ("tag", run.tags, "/runs/set-tag")
            if drawn >= 0.9:
                kind, pairs, path = ("param", run.params, "/runs/log-parameter")
            key, value = f"{kind}{len(pairs)}", str(self._dice.random())
            if self._post(path, {"run_id": run.run_id, "key": key, "value": value}):
                pairs[key] = value

    def _upload(self, run: Run) -> None:
        content = self._dice.randbytes(self._dice.choice([100, self._load.file_bytes // 10, self._load.file_bytes]))
        path = f"folder/f{len(run.files)}.bin"
        if self._until_done("PUT", f"{FILES}/{run.root}/{path}", content=content):
            run.files[path] = hashlib.md5(content).hexdigest()

    def _post(self, path: str, body: Json) -> httpx.Response | None:
        return self._until_done("POST", API + path, json=body)

    def _until_done(self, method: str, path: str, **body: Any) -> httpx.Response | None:
        """The answer 200; None when it could not be had."""
        patience = PATIENCE_S
        while patience > 0:
            began = time.monotonic()
            self.sent += 1
            try:
                answer = self._http.request(method, path, **body)
            except httpx.TransportError as error:
                self.errors[_named(error)] += 1
                pause = 0.1
            else:
                if answer.status_code == 200:
                    self.answers.append(time.monotonic())
                    self.longest_s = max(self.longest_s, time.monotonic() - began)
                    return answer
                self.errors[str(answer.status_code)] += 1
                if answer.status_code not in _AGAIN:
                    self.wrong.append(f"{method} {path[:60]} answered {answer.status_code}: {answer.text[:200]}")
                    return None
                pause = self._told(answer)
            took = time.monotonic() - began
            self.longest_s = max(self.longest_s, took)
            time.sleep(min(pause, 0.5))
            if self.stopping.is_set():
                patience -= took + 0.1
        self.wrong.append(f"{method} {path[:60]} was not done after {PATIENCE_S:.0f} s")
        return None

    def _told(self, answer: httpx.Response) -> float:
        """How long to wait; every refusal must say so, in MLflow's words."""
        try:
            if answer.json()["error_code"]:
                return float(answer.headers["Retry-After"]) if answer.status_code != 504 else 0.1
        except (ValueError, KeyError):
            self.wrong.append(f"{answer.status_code} without error_code or Retry-After: {answer.text[:200]}")
        return 0.1


class MlflowWriter(Writer):
    """The unmodified client with the retries it comes with: what it says failed, failed."""

    def __init__(self, url: str, experiment: str, name: str, stopping: threading.Event, folder: Path | None) -> None:
        super().__init__(url, experiment, name, stopping)
        self._folder = folder
        self.failed: list[str] = []

    def run(self) -> None:
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        client = MlflowClient(self.url)
        run = Run(self.name)
        tags = {"runmirror.idempotency_key": run.key}
        while not run.run_id and not self.stopping.is_set():
            self.runs = [run]
            if (made := self._call(lambda: client.create_run(self.experiment, tags=tags))) is not None:
                run.run_id, run.root = made.info.run_id, made.info.artifact_uri.removeprefix("mlflow-artifacts:/")
        while not self.stopping.is_set():
            step = run.step = run.step + 1
            if self._call(lambda: (client.log_metric(run.run_id, "m", step / 2, 1000 + step, step), 1)):  # noqa: B023
                run.points.add(step)
            if self._folder is not None and step % 10 == 0:
                self._upload(client, run)
            self.stopping.wait(_PACE_S)
        self._call(lambda: client.set_terminated(run.run_id))

    def _upload(self, client: MlflowClient, run: Run) -> None:
        assert self._folder is not None
        content = random.Random(f"{run.key} {run.step}").randbytes(20_000)
        file = self._folder / f"{run.key}-{run.step}.bin"
        file.write_bytes(content)
        if self._call(lambda: (client.log_artifact(run.run_id, str(file)), 1)):
            run.files[file.name] = hashlib.md5(content).hexdigest()
        file.unlink()

    def _call(self, what: Any) -> Any:
        began = time.monotonic()
        self.sent += 1
        try:
            done = what()
        except (MlflowException, OSError) as error:
            self.failed.append(f"after {time.monotonic() - began:.1f} s: {str(error)[:200]}")
            return None
        finally:
            self.longest_s = max(self.longest_s, time.monotonic() - began)
        self.answers.append(time.monotonic())
        return done


def _point(step: int) -> Json:
    return {"key": "m", "value": step / 2, "timestamp": 1000 + step, "step": step}


def _named(error: httpx.TransportError) -> str:
    match error:
        case httpx.TimeoutException():
            return f"no answer in {TIMEOUT_S:.0f} s"
        case httpx.ConnectError():
            return "refused"
    return f"broken off ({type(error).__name__})"


def _now_ms() -> int:
    return time.time_ns() // 10**6

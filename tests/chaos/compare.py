"""What clients were told, what the source has, and what the workspace has: three accounts that must agree.

Nothing of the product is used here but its HTTP API: a mistake of its own comparison would hide the same mistake twice.
"""

import hashlib
import json
import math
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from tests.chaos.plan import Json
from tests.chaos.workload import API, FILES, Journal

OVERFLOW = "runmirror/overflow.jsonl"
_REVISION = re.compile(r"runmirror/revisions/(\d+)/(.+)")
_SERVICE_TAGS = {"mlflow.rootRunId"}
_BACK_S = 30.0
Point = tuple[str, int, int, str]


@dataclass
class SourceRun:
    """A run as the API tells it."""

    info: Json
    params: dict[str, str]
    tags: dict[str, str]
    points: Counter[Point]
    files: dict[str, str]
    inputs: Counter[str]


@dataclass
class TargetRun:
    """A run of the workspace, its overflow file opened; `changes` in the order in which they took effect."""

    state: Json
    changes: list[Json]
    points: list[Point]
    overflow: list[Json] = field(default_factory=list)

    def over(self, kind: str) -> list[Json]:
        return [line for line in self.overflow if line["kind"] == kind]


def point(key: str, step: Any, timestamp: Any, value: Any) -> Point:
    """NaN equals NaN here, and 0 equals -0."""
    number = float(value)
    return key, int(step), int(timestamp), "nan" if math.isnan(number) else repr(number + 0.0)


def _written(batch: Json) -> list[Point]:
    """The points of a log-batch as they are kept: like MLflow, infinities become the largest numbers."""
    values = [max(min(float(p["value"]), sys.float_info.max), -sys.float_info.max) for p in batch["metrics"]]
    return [
        point(p["key"], p["step"], p["timestamp"], p["value"] if p["value"] == "NaN" else value)
        for p, value in zip(batch["metrics"], values, strict=True)
    ]


def read_source(url: str, experiments: list[str]) -> dict[str, SourceRun]:
    with httpx.Client(base_url=url, trust_env=False, verify=False, timeout=60) as client:

        def ask(method: str, path: str, **options: Any) -> Json:
            found: Json = _patiently(client, method, path, **options).json()
            return found

        body = {"experiment_ids": experiments, "run_view_type": "ALL", "max_results": 1000}
        runs = ask("POST", f"{API}/runs/search", json=body).get("runs", [])
        return {run["info"]["run_id"]: _source_run(client, ask, run) for run in runs}


def _patiently(client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """What a read answers in the end: the last faults may have cut connections, or killed a server that is coming back.

    Only what a client is told to come again for is asked again; any other answer is the answer.
    """
    deadline = time.monotonic() + _BACK_S
    while True:
        try:
            answer = client.request(method, path, **options)
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
        else:
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer.raise_for_status()
        time.sleep(0.05)  # the pause between two looks


def _source_run(client: httpx.Client, ask: Any, run: Json) -> SourceRun:
    info, held = run["info"], run.get("data", {})
    points = Counter[Point]()
    for key in [metric["key"] for metric in held.get("metrics", [])]:
        query = {"run_id": info["run_id"], "metric_key": key, "max_results": 25000}
        for told in ask("GET", f"{API}/metrics/get-history", params=query).get("metrics", []):
            points[point(key, told.get("step", 0), told["timestamp"], told["value"])] += 1
    root = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
    files = {}
    for path in _paths(ask, info["run_id"], ""):
        answer = _patiently(client, "GET", f"{FILES}/{root}/{quote(path)}")
        files[path] = hashlib.sha256(answer.content).hexdigest()
    datasets = run.get("inputs", {}).get("dataset_inputs", [])
    return SourceRun(
        info,
        {param["key"]: param["value"] for param in held.get("params", [])},
        {tag["key"]: tag["value"] for tag in held.get("tags", [])},
        points,
        files,
        Counter(given["dataset"]["name"] for given in datasets),
    )


def _paths(ask: Any, run_id: str, folder: str) -> Iterator[str]:
    query = {"run_id": run_id} | ({"path": folder} if folder else {})
    for file in ask("GET", f"{API}/artifacts/list", params=query).get("files", []):
        if file["is_dir"]:
            yield from _paths(ask, run_id, file["path"])
        else:
            yield file["path"]


def read_target(state: Json, effects: list[Json], overflows: dict[str, bytes]) -> list[TargetRun]:
    """`overflows`: the content of each run's newest overflow file."""
    changes = defaultdict[str, list[Json]](list)
    for effect in effects:
        changes[effect["run_id"]].append(effect)
    runs = []
    for run in state["runs"]:
        arrived = [point(p["key"], p["step"], p["timestamp"], p["value"]) for p in run["metrics"]]
        lines = [json.loads(line) for line in overflows.get(run["run_id"], b"").splitlines()]
        runs.append(TargetRun(run, changes[run["run_id"]], arrived, lines))
    return runs


def newest(artifacts: Iterable[Json]) -> dict[str, Json]:
    """Of every path what counts: its newest revision, else the file itself."""
    found: dict[str, tuple[int, Json]] = {}
    for artifact in artifacts:
        revision = _REVISION.fullmatch(artifact["path"])
        path, number = (revision[2], int(revision[1])) if revision else (artifact["path"], -1)
        if path not in found or found[path][0] < number:
            found[path] = number, artifact
    return {path: artifact for path, (_, artifact) in found.items()}


def compare(journals: list[Journal], source: dict[str, SourceRun], target: list[TargetRun]) -> list[str]:
    """Every difference, in words."""
    told: list[str] = []
    by_source = defaultdict[str, list[TargetRun]](list)
    for run in target:
        by_source[run.state["tags"].get("runmirror.run_id", "none")].append(run)
    strangers = by_source.keys() - source.keys()
    told += [f"the workspace has a run of {run_id}, which is not at the source" for run_id in strangers]
    for journal in journals:
        if journal.run_id not in source:
            told.append(f"run {journal.run_id} was acknowledged and is not at the source")
            continue
        told += [f"run {journal.run_id}: {words}" for words in _told_and_kept(journal, source[journal.run_id])]
    for run_id, run in source.items():
        copies = by_source[run_id]
        if len(copies) != 1:
            told.append(f"run {run_id} stands {len(copies)} times in the workspace")
            continue
        told += [f"run {run_id}: {words}" for words in _kept_and_mirrored(run, copies[0], by_source)]
    for journal in journals:
        if journal.run_id in source and len(by_source[journal.run_id]) == 1:
            found = _order(journal, by_source[journal.run_id][0])
            told += [f"run {journal.run_id}: {words}" for words in found]
    return told


def _told_and_kept(journal: Journal, run: SourceRun) -> Iterator[str]:
    """Every acknowledged write is at the source, and nothing that nobody wrote."""
    sure, perhaps = set[Point](), set[Point]()
    params, tags, files, inputs = {}, dict(journal.plan.tags), {}, set[str]()
    name, status, end, stage, perhaps_params = journal.plan.name, "RUNNING", None, "active", {}
    for call in journal.calls:
        what, is_sure = call.op.what, call.answered is not None
        match call.op.kind:
            case "batch":
                points = set(_written(what))
                given = {param["key"]: param["value"] for param in what.get("params", [])}
                perhaps |= points
                perhaps_params |= given
                if is_sure:
                    sure |= points
                    params |= given
                    tags |= {tag["key"]: tag["value"] for tag in what.get("tags", [])}
            case "tag":
                tags[what["key"]] = what["value"]
            case "delete_tag":
                tags.pop(what["key"], None)
            case "update":
                name, status = what.get("run_name", name), what.get("status", status)
                end = what.get("end_time", end)
            case "delete" | "restore":
                stage = "deleted" if call.op.kind == "delete" else "active"
            case "inputs":
                inputs.add(what["name"])
            case "file":
                files[what["path"]] = hashlib.sha256(what["content"].encode()).hexdigest()
            case "delete_file":
                files.pop(what["path"], None)
    yield from _missing("acknowledged points lost at the source", sure - set(run.points))
    yield from _missing("points at the source that nobody wrote", set(run.points) - perhaps)
    yield from _missing("points twice at the source", {p for p, number in run.points.items() if number > 1})
    yield from _missing("acknowledged params lost at the source", params.items() - run.params.items())
    yield from _missing("params at the source that nobody wrote", run.params.items() - perhaps_params.items())
    own = {key: value for key, value in run.tags.items() if not key.startswith(("runmirror.", "mlflow."))}
    yield from _missing("tags at the source against what was acknowledged", tags.items() ^ own.items())
    yield from _missing("files at the source against what was acknowledged", files.items() ^ run.files.items())
    yield from _missing("inputs at the source against what was acknowledged", inputs ^ run.inputs.keys())
    kept = (run.info["run_name"], run.info["status"], run.info["lifecycle_stage"])
    if kept != (name, status, stage):
        yield f"acknowledged state {(name, status, stage)}, at the source {kept}"
    if end is not None and int(run.info.get("end_time") or 0) != end:
        yield f"acknowledged end {end}, at the source {run.info.get('end_time')}"


def _kept_and_mirrored(
    run: SourceRun, copy: TargetRun, by_source: dict[str, list[TargetRun]]
) -> Iterator[str]:  # fmt: skip
    """Everything of the source is in the workspace exactly once: in the run itself, or in its overflow file."""
    state = copy.state
    arrived = Counter(copy.points)
    arrived.update(point(p["key"], p["step"], p["timestamp"], p["value"]) for p in copy.over("metric"))
    yield from _missing("points lost", (run.points - arrived).elements())
    yield from _missing("points twice, or of nobody", (arrived - run.points).elements())
    params = Counter(state["params"].items())
    params.update((line["key"], line["value"]) for line in copy.over("param"))
    yield from _missing("params lost", (Counter(run.params.items()) - params).elements())
    yield from _missing("params twice, or of nobody", (params - Counter(run.params.items())).elements())
    wanted = {key: value for key, value in run.tags.items() if not key.startswith("runmirror.")}
    name = run.info["run_name"]
    if len(name) > 256:
        wanted.pop("mlflow.runName", None)
    parent = wanted.pop("mlflow.parentRunId", None)
    tags = Counter((k, v) for k, v in state["tags"].items() if not k.startswith("runmirror."))
    tags.update((line["key"], line["value"]) for line in copy.over("tag"))
    known = tags - Counter(wanted.items())
    yield from _missing("tags lost", (Counter(wanted.items()) - tags).elements())
    allowed = {*_SERVICE_TAGS, "mlflow.parentRunId", *({"mlflow.runName"} if len(name) > 256 else ())}
    yield from _missing("tags twice, or of nobody", [pair for pair in known.elements() if pair[0] not in allowed])
    if parent is not None:
        remote = [found.state["run_id"] for found in by_source[parent]]
        shown = state["tags"].get("mlflow.parentRunId")
        other = state["tags"].get("runmirror.parent_run_id")
        if [shown] != remote and other != parent:
            yield f"its parent {parent} is {remote} in the workspace, and it names {shown}, {other}"
    held = newest(state["artifacts"])
    files = {path: artifact["sha256"] for path, artifact in held.items() if path in run.files}
    yield from _missing("files lost, or not the newest", run.files.items() - files.items())
    # A name without content is left behind when a worker dies before the upload and the file is gone by the next.
    empty = [path for path, artifact in held.items() if artifact["sha256"] is None and path in {OVERFLOW, *run.files}]
    yield from _missing("files registered and never uploaded", empty)
    inputs = Counter(given["dataset"]["name"] for given in state["inputs"])
    inputs.update(line["name"] for line in copy.over("dataset"))
    if inputs != run.inputs:
        yield f"inputs {dict(run.inputs)}, in the workspace {dict(inputs)}"
    names = [line["value"] for line in copy.over("run_name")] or [state["run_name"]]
    if names != [name]:
        yield f"named {name!r}, in the workspace {names}"
    if (run.info["status"], run.info["lifecycle_stage"]) != (state["status"], state["lifecycle_stage"]):
        yield (
            f"{run.info['status']} and {run.info['lifecycle_stage']}, in the workspace {state['status']} and "
            f"{state['lifecycle_stage']}"
        )
    if run.info.get("end_time") is not None and int(run.info["end_time"]) != state["end_time"]:
        yield f"ended {run.info['end_time']}, in the workspace {state['end_time']}"
    shown = run.tags.get("runmirror.status")
    if shown != ("partial" if copy.overflow and len(copy.overflow) > 1 else "mirrored"):
        yield f"shown as {shown!r} at the source, with {len(copy.overflow)} lines of overflow"


def _arrivals(copy: TargetRun) -> tuple[dict[Any, int], dict[int, int]]:
    """When each point, param and file content came first, and when each ending was told, by its time."""
    arrival: dict[Any, int] = {}
    endings: dict[int, int] = {}
    for at, change in enumerate(copy.changes):
        what = change["what"]
        match change["kind"]:
            case "batch":
                for key in [point(*p) for p in what["points"]] + [("param", key) for key, _ in what["params"]]:
                    arrival.setdefault(key, at)
            case "state" if what["status"] not in {"RUNNING", "SCHEDULED"} and what["end_time"] is not None:
                endings.setdefault(what["end_time"], at)
            case "file":
                revision = _REVISION.fullmatch(what["path"])
                arrival.setdefault(("file", revision[2] if revision else what["path"], what["sha256"]), at)
    return arrival, endings


def _order(journal: Journal, copy: TargetRun) -> Iterator[str]:
    """Of two writes, one acknowledged before the other was begun, the first arrives first; an ending after its data."""
    born: dict[Point, int] = {}
    arrival, endings = _arrivals(copy)
    native = {key: at for key, at in arrival.items() if isinstance(key[1], int)}
    before: list[Any] = []  # what has been acknowledged so far
    latest = -1
    gone = set[Any]()
    for call in journal.calls:
        what = call.op.what
        if call.op.kind == "batch":
            points = _written(what)
            new = [p for p in points if p in native and p not in born]
            born |= dict.fromkeys(new, call.begun)
            if call.answered is None:
                continue
            if late := [p for p in new if native[p] < latest]:
                yield f"points arrived before earlier ones: {late[:3]}"
            latest = max([latest, *(native[p] for p in new)])
            before += new
            before += [("param", param["key"]) for param in what.get("params", [])]
        elif call.op.kind == "file":
            gone |= {key for key in before if key[0] == "file" and key[1] == what["path"]}
            before.append(("file", what["path"], hashlib.sha256(what["content"].encode()).hexdigest()))
        elif call.op.kind == "delete_file":
            gone |= {key for key in before if key[0] == "file" and key[1] == what["path"]}
        elif call.op.kind == "update" and (at := endings.get(what.get("end_time", -1))) is not None:
            # What is not in the run itself is in the overflow file, whose end is not waited for here.
            overdue = [key for key in before if key not in gone and arrival.get(key, -1) > at]
            if overdue:
                yield f"ended at {what['end_time']} before its data arrived: {overdue[:3]}"


def _missing(what: str, found: Iterable[Any]) -> Iterator[str]:
    listed = sorted(found, key=str)
    if listed:
        yield f"{what}: {len(listed)}, such as {[str(entry)[:120] for entry in listed[:3]]}"

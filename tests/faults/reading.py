"""What is stored, as clients read it, against what was acknowledged."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.faults.figures import Figures
from tests.faults.writers import API, FILES, Json, Run, Writer


def compare(url: str, experiment: str, writers: Iterable[Writer], figures: Figures) -> None:
    """Count what is lost and what is double."""
    runs = [run for writer in writers for run in writer.runs]
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http, ThreadPoolExecutor(4) as pool:
        stored = list(_search(http, experiment))
        keys = [_tags(run).get("runmirror.idempotency_key", "") for run in stored]
        twice = len(keys) - len(set(keys))
        missing = {run.key for run in runs if run.run_id} - set(keys)
        strangers = set(keys) - {run.key for run in runs}
        figures.doubled += twice + len(strangers)
        figures.lost += len(missing)
        figures.wrong += [f"{twice} runs are there twice"] if twice else []
        figures.wrong += [f"runs that nobody created: {sorted(strangers)[:3]}"] if strangers else []
        figures.wrong += [f"lost runs: {sorted(missing)[:3]}"] if missing else []
        kept = [run for run in runs if run.run_id and run.key not in missing]
        for lost, doubled, told in pool.map(lambda run: _compare_run(http, run), kept):
            figures.lost += lost
            figures.doubled += doubled
            figures.wrong += told
    figures.acknowledged += sum(run.writes() + bool(run.run_id) for run in runs)


def _compare_run(http: httpx.Client, run: Run) -> tuple[int, int, list[str]]:
    data = _answered(http, f"{API}/runs/get", run_id=run.run_id)["run"]["data"]
    steps = [point["step"] for point in _points(http, run.run_id)]
    doubled = len(steps) - len(set(steps))
    lost = {f"point {step}" for step in run.points - set(steps)}
    for kind, wanted in (("tags", run.tags), ("params", run.params)):
        found = {pair["key"]: pair["value"] for pair in data.get(kind, [])}
        lost |= {f"{kind} {key}" for key, value in wanted.items() if found.get(key) != value}
    for path, md5 in run.files.items():
        answer = http.get(f"{FILES}/{run.root}/{path}")
        if answer.status_code != 200 or hashlib.md5(answer.content).hexdigest() != md5:
            lost.add(f"file {path} ({answer.status_code})")
    told = [f"run {run.run_id} lost {sorted(lost)[:5]}"] if lost else []
    told += [f"run {run.run_id} has {doubled} points twice"] if doubled else []
    return len(lost), doubled, told


def _points(http: httpx.Client, run_id: str) -> Iterable[Json]:
    asked = {"run_id": run_id, "metric_key": "m", "max_results": "10000"}
    while True:
        page = _answered(http, f"{API}/metrics/get-history", **asked)
        yield from page.get("metrics", [])
        if not page.get("next_page_token"):
            return
        asked["page_token"] = page["next_page_token"]


def _search(http: httpx.Client, experiment: str) -> Iterable[Json]:
    asked: Json = {"experiment_ids": [experiment], "max_results": 1000}
    while True:
        answer = http.post(f"{API}/runs/search", json=asked)
        answer.raise_for_status()
        yield from answer.json().get("runs", [])
        if not answer.json().get("next_page_token"):
            return
        asked["page_token"] = answer.json()["next_page_token"]


def _answered(http: httpx.Client, path: str, **query: str) -> Json:
    answer = http.get(path, params=query)
    answer.raise_for_status()
    found: Json = answer.json()
    return found


def _tags(run: Json) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}

"""What is read of runs: nothing that was read before hides what is true now, and odd values come back as they are."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror.own_tags import STATUS_TAG, WRITTEN_TAGS
from runmirror.runs.kept import KeptRuns
from runmirror.wire import INT64_MAX

API = "/api/2.0/mlflow"
AJAX = "/ajax-api/2.0/mlflow"
PENDING = f"INSERT INTO tags (run_id, key, value, seq) VALUES (:run_id, '{STATUS_TAG}', 'pending', 0)"


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(f"{API}{path}", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def new_run(client: httpx.AsyncClient, experiment_id: str = "0") -> str:
    created = await post(client, "/runs/create", {"experiment_id": experiment_id, "start_time": 1})
    return str(created["run"]["info"]["run_id"])


async def found(client: httpx.AsyncClient) -> dict[str, Any]:
    """Every run of every stage, as a search shows it."""
    body = {"experiment_ids": ["0", "1"], "run_view_type": "ALL"}
    return {run["info"]["run_id"]: run for run in (await post(client, "/runs/search", body)).get("runs", [])}


async def test_a_search_shows_what_every_kind_of_write_has_changed(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    assert (await post(client, "/experiments/create", {"name": "second"}))["experiment_id"] == "1"
    run_id, other = await new_run(client), await new_run(client, "1")
    model = {"experiment_id": "0", "name": "m", "source_run_id": run_id}
    model_id = (await post(client, "/logged-models", model))["model"]["info"]["model_id"]
    dataset = {"dataset": {"name": "d", "digest": "1", "source_type": "local", "source": "s"}}
    of_run = {"run_id": run_id}
    writes: list[tuple[str, dict[str, Any]]] = [
        ("/runs/log-metric", of_run | {"key": "m", "value": 1, "timestamp": 1}),
        ("/runs/log-parameter", of_run | {"key": "p", "value": "1"}),
        ("/runs/set-tag", of_run | {"key": "t", "value": "1"}),
        ("/runs/set-tag", of_run | {"key": "t", "value": "2"}),
        ("/runs/delete-tag", of_run | {"key": "t"}),
        ("/runs/log-batch", of_run | {"metrics": [{"key": "m", "value": "NaN", "timestamp": 2}]}),
        ("/runs/log-inputs", of_run | {"datasets": [dataset]}),
        ("/runs/log-inputs", of_run | {"models": [{"model_id": model_id}]}),
        ("/runs/outputs", of_run | {"models": [{"model_id": model_id, "step": 1}]}),
        ("/runs/update", of_run | {"run_name": "renamed", "status": "FINISHED", "end_time": 9}),
        ("", {"sql": PENDING}),
        ("", {"sql": "UPDATE tags SET value = 'mirrored' WHERE run_id = :run_id AND key = 'runmirror.status'"}),
        ("", {"sql": "DELETE FROM tags WHERE run_id = :run_id AND key = 'runmirror.status'"}),
        *(("", {"sql": PENDING.replace(STATUS_TAG, tag)}) for tag in WRITTEN_TAGS),
        ("/runs/delete", of_run),
        ("/runs/restore", of_run),
        ("/experiments/delete", {"experiment_id": "0"}),
    ]
    before = await found(client)
    for path, body in writes:
        if path:
            await post(client, path, body)
        else:  # as the mirror writes its tags: no write of the run's
            async with engine.begin() as connection:
                await connection.execute(text(body["sql"]), {"run_id": run_id})
        after = await found(client)
        told = await client.get(f"{API}/runs/get", params={"run_id": run_id})
        assert after[run_id] == told.json()["run"], (path, body)
        assert after[run_id] != before[run_id], (path, body)
        assert after[other] == before[other]
        assert after == await found(client)
        before = after


async def test_odd_values_come_back_as_they_are_from_every_read(client: httpx.AsyncClient) -> None:
    bare, full = await new_run(client), await new_run(client)
    # name of the metric: what is sent, and what is told
    values: dict[str, tuple[Any, Any]] = {
        "nan": ("NaN", "NaN"), "inf": ("Infinity", 1.7976931348623157e308), "huge": (1e300, 1e300),
        "whole": (1e16, 1e16), "tiny": (5e-324, 5e-324), "zero": (-0.0, -0.0), "third": (1 / 3, 1 / 3),
        "ключ 键/k": (2, 2.0),
    }  # fmt: skip
    points = [{"key": key, "value": sent, "timestamp": 7, "step": -INT64_MAX - 1} for key, (sent, _) in values.items()]
    words = ['"quoted" \\ back', "line\nfeed\ttab\x01\x1f\x7f", "ünï 🎈 \u2028", "", "</script>"]
    pairs = [{"key": f"k{n}", "value": word} for n, word in enumerate(words)]
    await post(client, "/runs/log-batch", {"run_id": full, "metrics": points, "params": pairs, "tags": pairs})
    for _ in range(2):  # read from Postgres, and from memory
        runs = await found(client)
        assert "metrics" not in runs[bare]["data"]
        assert "params" not in runs[bare]["data"]
        data = runs[full]["data"]
        shown = {metric["key"]: (repr(metric["value"]), metric["step"]) for metric in data["metrics"]}
        assert shown == {key: (repr(told), -INT64_MAX - 1) for key, (_, told) in values.items()}
        assert data["params"] == pairs
        assert [tag for tag in data["tags"] if tag["key"].startswith("k")] == pairs
    for key, (_, told) in values.items():
        history = await client.get(f"{API}/metrics/get-history", params={"run_id": full, "metric_key": key})
        point = {"key": key, "value": told, "timestamp": 7, "step": -INT64_MAX - 1}
        assert json.dumps(history.json()) == json.dumps({"metrics": [point]})
    nothing = await client.get(f"{API}/metrics/get-history", params={"run_id": bare, "metric_key": "m"})
    assert nothing.text == "{}"


async def test_points_of_one_time_and_step_stand_in_mlflows_order_across_pages(client: httpx.AsyncClient) -> None:
    run_id = await new_run(client)
    sent = [("NaN", 5, 0), (-1, 5, 0), (1, 5, 0), (3, 4, 9), (2, 6, -3)]
    metrics = [{"key": "m", "value": value, "timestamp": ms, "step": step} for value, ms, step in sent]
    await post(client, "/runs/log-batch", {"run_id": run_id, "metrics": metrics})
    seen, token = [], ""
    while True:
        asked = {"run_id": run_id, "metric_key": "m", "max_results": 1} | ({"page_token": token} if token else {})
        page = (await client.get(f"{API}/metrics/get-history", params=asked)).json()
        seen += [point["value"] for point in page["metrics"]]
        if not (token := page.get("next_page_token", "")):
            break
    assert seen == [3, -1, "NaN", 1, 2]


@pytest.mark.parametrize("points", [1, 7, 8, 9, 24, 25])
async def test_a_sample_holds_the_first_of_each_bucket_and_the_last_point(
    client: httpx.AsyncClient, points: int
) -> None:
    run_id = await new_run(client)
    metrics = [{"key": "m", "value": 0, "timestamp": 99 - step, "step": step} for step in range(points)]
    await post(client, "/runs/log-batch", {"run_id": run_id, "metrics": metrics})
    asked = {"run_ids": run_id, "metric_key": "m", "max_results": 8}
    answer = await client.get(f"{AJAX}/metrics/get-history-bulk-interval", params=asked)
    size, longer = divmod(points, 8)
    firsts = [bucket * size + min(bucket, longer) for bucket in range(8)] if size else range(points)
    assert [point["step"] for point in answer.json()["metrics"]] == [*[*firsts][:-1], points - 1]


def test_what_is_kept_stays_within_its_bounds_and_the_oldest_goes_first() -> None:
    kept = KeptRuns(100_000)
    runs = [uuid4() for _ in range(100)]
    for run_id in runs:
        kept.keep(run_id, "1", b"x" * 2000)
        assert kept.get(runs[0], "1"), "asked for all the time"
        assert kept.bytes <= kept.limit_bytes
    assert kept.get(runs[1], "1") is None
    assert kept.get(runs[-1], "1")
    assert kept.get(runs[-1], "2") is None
    kept.keep(runs[-1], "2", b"x" * 50_000)
    assert kept.get(runs[-1], "2") is None, "one run may not drive out all others"
    for run_id in runs:
        kept.keep(run_id, "3", b"")
    assert kept.bytes == 100 * 400
    nothing = KeptRuns(0)
    nothing.keep(runs[0], "1", b"{}")
    assert nothing.get(runs[0], "1") is None

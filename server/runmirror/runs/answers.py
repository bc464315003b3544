"""Answers with many rows, as the bytes that leave: no object per row lives in between.

What they hold is what `wire` says; the routes declare that as their response model.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec
from fastapi import Response
from sqlalchemy.engine import Row

from runmirror.runs.history import Place

InputsOutputs = dict[UUID, tuple[dict[str, Any], dict[str, Any]]]

_encode = msgspec.json.Encoder().encode


def json_answer(content: dict[str, Any]) -> Response:
    """A 200 with this body; parts of it may be `msgspec.Raw`."""
    return Response(_encode(content), media_type="application/json")


def run(row: Row[Any], inputs_outputs: InputsOutputs) -> dict[str, Any]:
    """`Run` of MLflow's wire, from a row of `queries.load_json`."""
    run_id = row.run_id.hex
    info = {
        "run_uuid": run_id,
        "experiment_id": str(row.experiment_id),
        "run_name": row.name,
        "user_id": row.user_id,
        "status": row.status,
        "start_time": row.start_time_ms,
        "end_time": row.end_time_ms,
        "artifact_uri": row.artifact_uri,
        "lifecycle_stage": row.lifecycle_stage,
        "run_id": run_id,
    }
    if not row.end_time_ms:
        del info["end_time"]
    lists = {"metrics": row.metrics, "params": row.params, "tags": row.tags}
    data = {name: msgspec.Raw(text.encode()) for name, text in lists.items() if text is not None}
    inputs, outputs = inputs_outputs.get(row.run_id, ({}, {}))
    return {"info": info, "data": data, "inputs": inputs, "outputs": outputs}


def runs_page(rows: Iterable[Row[Any]], inputs_outputs: InputsOutputs, next_page_token: str | None) -> Response:
    """`RunsPage`."""
    runs = [run(row, inputs_outputs) for row in rows]
    page: dict[str, Any] = {"runs": runs} if runs else {}
    return json_answer(page | ({"next_page_token": next_page_token} if next_page_token else {}))


def history_page(key: str, points: Sequence[Place], next_page_token: str | None) -> Response:
    """`HistoryPage`."""
    metrics = [
        {"key": key, "value": value if math.isfinite(value) else "NaN", "timestamp": timestamp_ms, "step": step}
        for timestamp_ms, step, value in points
    ]
    page: dict[str, Any] = {"metrics": metrics} if metrics else {}
    return json_answer(page | ({"next_page_token": next_page_token} if next_page_token else {}))

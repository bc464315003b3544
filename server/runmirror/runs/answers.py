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
_NEITHER: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
_ENDED = b',"inputs":{},"outputs":{}}'


def json_answer(body: bytes) -> Response:
    """A 200 with this body."""
    return Response(body, media_type="application/json")


def run(row: Row[Any], inputs_outputs: InputsOutputs) -> bytes:
    """`Run`, from a row of `queries.load_json`."""
    inputs, outputs = inputs_outputs.get(row.run_id, _NEITHER)
    end = _ENDED if not (inputs or outputs) else b',"inputs":%b,"outputs":%b}' % (_encode(inputs), _encode(outputs))
    return str(row.json).encode() + end


def run_answer(row: Row[Any], inputs_outputs: InputsOutputs) -> Response:
    """`RunAnswer`."""
    return json_answer(b'{"run":%b}' % run(row, inputs_outputs))


def runs_page(rows: Iterable[Row[Any]], inputs_outputs: InputsOutputs, next_page_token: str | None) -> Response:
    """`RunsPage`."""
    runs = b",".join([run(row, inputs_outputs) for row in rows])
    fields = [b'"runs":[%b]' % runs] if runs else []
    return json_answer(b"{%b}" % b",".join([*fields, *_next(next_page_token)]))


def history_page(key: str, points: Sequence[Place], next_page_token: str | None) -> Response:
    """`HistoryPage`."""
    metrics = [
        {"key": key, "value": value if math.isfinite(value) else "NaN", "timestamp": timestamp_ms, "step": step}
        for timestamp_ms, step, value in points
    ]
    fields = [b'"metrics":%b' % _encode(metrics)] if metrics else []
    return json_answer(b"{%b}" % b",".join([*fields, *_next(next_page_token)]))


def _next(page_token: str | None) -> list[bytes]:
    return [b'"next_page_token":%b' % _encode(page_token)] if page_token else []

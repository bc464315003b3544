"""What a trace used and cost: sums over its spans, and the metadata in which MLflow's wire carries them."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from runmirror.traces.keys import (
    COST,
    COST_COLUMNS,
    MAX_SESSION_LENGTH,
    SESSION,
    TOKEN_COLUMNS,
    TOKEN_USAGE,
    check_length,
)
from runmirror.wire import INT64_MAX

_ALWAYS = {"input_tokens", "output_tokens", "total_tokens", *COST_COLUMNS}  # 0 where no span says
PROMOTED = frozenset({SESSION, TOKEN_USAGE, COST})


@dataclass(frozen=True, slots=True)
class Node:
    """A span with the usage or the cost it reports, if it does."""

    span_id: str
    parent_span_id: str | None
    figures: Mapping[str, Any] | None


def parse_figures(text: str | None) -> Mapping[str, Any] | None:
    """The JSON object in a span attribute or in metadata; None when there is none."""
    try:
        found = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def total(nodes: Sequence[Node], columns: Iterable[str]) -> dict[str, int | float]:
    """Sums by column, nothing when no span reports any.

    A span that reports has counted what is below it, so its descendants are passed over.
    """
    ids = {node.span_id for node in nodes}
    below: dict[str, list[Node]] = {}
    waiting: list[tuple[Node, bool]] = []
    for node in nodes:
        if node.parent_span_id in ids and node.parent_span_id != node.span_id:
            below.setdefault(node.parent_span_id or "", []).append(node)
        else:
            waiting.append((node, False))
    sums: dict[str, int | float] = {}
    while waiting:
        node, counted = waiting.pop()
        if node.figures is not None and not counted:
            for column in columns:
                value = _figure(column, node.figures.get(column))
                if value is not None or column in _ALWAYS:
                    sums[column] = sums.get(column, 0) + (value or 0)
        waiting.extend((child, counted or node.figures is not None) for child in below.get(node.span_id, ()))
    return {column: value for column, sum_ in sums.items() if (value := _figure(column, sum_)) is not None}


def columns_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The columns that metadata sets: session, token counts and costs. Raises `InvalidParameter` (session too long)."""
    columns: dict[str, Any] = {}
    if SESSION in metadata:
        columns["session_id"] = check_length("Session ID", metadata[SESSION], MAX_SESSION_LENGTH)
    for key, names in ((TOKEN_USAGE, TOKEN_COLUMNS), (COST, COST_COLUMNS)):
        figures = parse_figures(metadata.get(key)) or {}
        columns |= {name: _figure(name, figures[name]) for name in names if name in figures}
    return columns


def metadata_of(columns: Mapping[str, Any]) -> dict[str, str]:
    """The metadata that stands for the columns of a trace."""
    found = {} if columns["session_id"] is None else {SESSION: str(columns["session_id"])}
    for key, names in ((TOKEN_USAGE, TOKEN_COLUMNS), (COST, COST_COLUMNS)):
        figures = {name: columns[name] for name in names if columns[name] is not None}
        if figures:
            found[key] = json.dumps(figures)
    return found


def finite(value: Any) -> float | None:
    """A finite double; None for anything else."""
    if value is None or isinstance(value, bool | list | dict):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _figure(column: str, value: Any) -> int | float | None:
    return finite(value) if column in COST_COLUMNS else _count(value)


def _count(value: Any) -> int | None:
    """A whole number of 64 bits; None for anything else."""
    if value is None or isinstance(value, bool | list | dict):
        return None
    try:
        number = Decimal(str(value))
        if not number.is_finite() or abs(number) > INT64_MAX or number != number.to_integral_value():
            return None
    except InvalidOperation:
        return None
    return int(number)

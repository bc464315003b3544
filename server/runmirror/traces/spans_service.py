"""Spans that arrive: what they say of their traces, and the one order in which that is written."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import names
from runmirror.errors import ExperimentNotFound, InvalidParameter
from runmirror.traces import keys, queries, spans_queries
from runmirror.traces.previews import preview
from runmirror.traces.service import artifact_root, link_to_run
from runmirror.traces.spans import SpanIn, plain_text
from runmirror.traces.totals import Node, parse_figures, total

_UNTOLD_RESOURCE = ("telemetry.sdk.", "mlflow.")  # of the library, and names that clients may not take
_SESSION_ATTRIBUTES = ("session.id", "gen_ai.conversation.id")


async def log_spans(connection: AsyncConnection, experiment_id: str, spans: Sequence[SpanIn], run_id: str = "") -> None:
    """Write spans of any number of traces, making the traces that are not there yet; all of it or nothing.

    With `run_id`, the traces whose root is among the spans are linked to that run.
    """
    key = names.parse_experiment_id(experiment_id)
    experiment = await queries.experiment(connection, key)
    if experiment is None:
        raise ExperimentNotFound(str(key))
    by_trace: dict[str, list[SpanIn]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    if not by_trace:
        return
    made = [
        _trace(trace_id, key, artifact_root(experiment.artifact_location, trace_id), by_trace[trace_id])
        for trace_id in sorted(by_trace)
    ]
    opened = await spans_queries.open_traces(connection, made)
    await spans_queries.write(connection, [span.row() for span in spans])
    reporting = {
        trace_id
        for trace_id, members in by_trace.items()
        if any(keys.CHAT_USAGE in span.attributes or keys.LLM_COST in span.attributes for span in members)
    }
    if reporting:
        await _add_up(connection, [row for row in opened if row.trace_id in reporting])
    if run_id:
        await link_to_run(connection, [span.trace_id for span in spans if span.parent_span_id is None], run_id)


async def _add_up(connection: AsyncConnection, traces: Sequence[Any]) -> None:
    """Sums over all spans of these traces, also those of earlier exports."""
    nodes: dict[str, tuple[list[Node], list[Node]]] = {row.trace_id: ([], []) for row in traces}
    for row in await spans_queries.figures(connection, list(nodes)):
        usage, cost = nodes[row.trace_id]
        usage.append(Node(row.span_id, row.parent_span_id, parse_figures(row.usage)))
        cost.append(Node(row.span_id, row.parent_span_id, parse_figures(row.cost)))
    sums = []
    for row in traces:
        usage, cost = nodes[row.trace_id]
        tokens = {} if row.usage_is_final else total(usage, keys.TOKEN_COLUMNS)
        costs = {} if row.cost_is_final else total(cost, keys.COST_COLUMNS)
        if tokens or costs:
            sums.append({"trace_id": row.trace_id, **tokens, **costs})
    if sums:
        await spans_queries.set_figures(connection, sums)


def _trace(trace_id: str, experiment_id: int, root_uri: str, spans: Sequence[SpanIn]) -> dict[str, Any]:
    """The row of `traces` that these spans tell of, if nobody has told of it before."""
    start_ms = min(span.start_time_ns for span in spans) // 1_000_000
    ends = [span.end_time_ns for span in spans if span.end_time_ns is not None]
    root = next((span for span in spans if span.parent_span_id is None), None)
    own_tags = _own_tags(root.attributes) if root else {}
    name = own_tags.pop(keys.TRACE_NAME, None)
    user = _first_text(spans, ("user.id",))
    session = _first_text(spans, _SESSION_ATTRIBUTES)
    if session is not None:
        keys.check_length("Session ID", session, keys.MAX_SESSION_LENGTH)
    return {
        "trace_id": trace_id,
        "experiment_id": experiment_id,
        "request_time_ms": start_ms,
        "execution_time_ms": max(ends) // 1_000_000 - start_ms if ends else None,
        "state": "IN_PROGRESS" if root is None else "ERROR" if root.status == "ERROR" else "OK",
        "request_preview": preview(root.attributes.get(keys.SPAN_INPUTS), "user") if root else None,
        "response_preview": preview(root.attributes.get(keys.SPAN_OUTPUTS), "assistant") if root else None,
        "name": name,
        "session_id": session,
        "tags": {
            keys.ARTIFACT_LOCATION: root_uri,
            **_resource_tags(spans),
            **own_tags,
            keys.SPANS_LOCATION: keys.IN_TRACKING_STORE,
        },
        "trace_metadata": {} if user is None else {keys.USER: user},
    }


def _own_tags(attributes: Mapping[str, str]) -> dict[str, str]:
    """Tags of the trace that its root span carries, as clients that export by OpenTelemetry alone send them."""
    given = {
        key.removeprefix(keys.TAG_ATTRIBUTE_PREFIX): plain_text(value) or value
        for key, value in attributes.items()
        if key.startswith(keys.TAG_ATTRIBUTE_PREFIX)
    }
    tags = {key: value for key, value in _valid(given).items() if key not in keys.IMMUTABLE_TAGS}
    if keys.TRACE_NAME in tags:
        keys.check_length("Trace name", tags[keys.TRACE_NAME], keys.MAX_NAME_LENGTH)
    return tags


def _resource_tags(spans: Sequence[SpanIn]) -> dict[str, str]:
    resource = next((span.resource for span in spans if span.resource), {})
    return _valid({key: value for key, value in resource.items() if not key.startswith(_UNTOLD_RESOURCE)})


def _valid(tags: Mapping[str, str]) -> dict[str, str]:
    """Those with a name a tag may have: a span is not refused for the others."""
    found = {}
    for key, value in tags.items():
        try:
            names.check_name(key, "key")
        except InvalidParameter:
            continue
        found[key] = names.cut(value.replace("\0", "\N{REPLACEMENT CHARACTER}"), keys.MAX_TAG_VALUE_LENGTH)
    return found


def _first_text(spans: Sequence[SpanIn], attributes: Sequence[str]) -> str | None:
    for span in spans:
        for name in attributes:
            if value := span.attributes.get(name):
                text = plain_text(value)
                found = value if text is None else text
                if found:
                    return found.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return None

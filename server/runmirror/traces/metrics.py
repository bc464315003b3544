"""Figures over traces, spans and assessments, as MLflow's UI charts them: one statement per question.

Source: `mlflow.store.tracking.utils.sql_trace_metrics_utils`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Double, Label, Text, cast, collate, distinct, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.errors import InvalidParameter
from runmirror.search.clauses import is_one_of, parse_experiment_ids
from runmirror.search.parser import parse_filter
from runmirror.search.tree import Comparison, Entity, Field, Kind, Language, Operator
from runmirror.tables import assessments, spans, trace_links, traces
from runmirror.traces import keys
from runmirror.traces.wire import Aggregation, QueryMetrics

Condition = ColumnElement[bool]

MAX_POINTS = 1000
TRACES, SPANS, ASSESSMENTS = "TRACES", "SPANS", "ASSESSMENTS"
TIME_BUCKET = "time_bucket"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_COUNT = {"COUNT"}
_RANGE = {"AVG", "MIN", "MAX", "PERCENTILE"}
_SUMMED = {"SUM", *_RANGE}
_LATENCY_MS = func.div(spans.c.end_time_ns - spans.c.start_time_ns, 1_000_000)


@dataclass(frozen=True, slots=True)
class Metric:
    column: ColumnElement[Any]
    aggregations: set[str]
    dimensions: Mapping[str, ColumnElement[Any]]


_BY_NAME = {"trace_name": traces.c.name}
_BY_MODEL = {"span_model_name": spans.c.model_name, "span_model_provider": spans.c.model_provider}
_BY_SPAN = {"span_name": spans.c.name, "span_status": spans.c.status}
_BY_ASSESSMENT = {"assessment_name": assessments.c.name}

METRICS: Mapping[str, Mapping[str, Metric]] = {
    TRACES: {
        "trace_count": Metric(traces.c.trace_id, _COUNT, {**_BY_NAME, "trace_status": traces.c.state}),
        "session_count": Metric(traces.c.session_id, _COUNT, {}),
        "latency": Metric(traces.c.execution_time_ms, _RANGE, _BY_NAME),
        **{name: Metric(traces.c[name], _SUMMED, _BY_NAME) for name in keys.TOKEN_COLUMNS[:5]},
    },
    SPANS: {
        "span_count": Metric(spans.c.span_id, _COUNT, {**_BY_SPAN, "span_type": spans.c.type, **_BY_MODEL}),
        "latency": Metric(_LATENCY_MS, _RANGE, _BY_SPAN),
        **{name: Metric(spans.c[name], _SUMMED, _BY_MODEL) for name in keys.COST_COLUMNS},
    },
    ASSESSMENTS: {
        "assessment_count": Metric(
            assessments.c.assessment_id, _COUNT, {**_BY_ASSESSMENT, "assessment_value": assessments.c.value}
        ),
        "assessment_value": Metric(assessments.c.number, _RANGE, _BY_ASSESSMENT),
    },
}

_EQUAL = Field(Kind.TEXT, frozenset({Operator.EQUAL}))


class _TraceFields(Mapping[str, Field]):
    """status, and whatever follows `tag.` and `metadata.`"""

    def __getitem__(self, key: str) -> Field:
        kind, dot, name = key.partition(".")
        if key == "status" or (kind in {"tag", "metadata"} and dot and name):
            return _EQUAL
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(["status", "tag.<key>", "metadata.<key>"])

    def __len__(self) -> int:
        return 3


_FILTERS = Language(
    entities={"trace": Entity.ATTRIBUTE, "span": Entity.SPAN, "assessment": Entity.FEEDBACK},
    quoted_entities=True,
    fields={
        Entity.ATTRIBUTE: _TraceFields(),
        Entity.SPAN: dict.fromkeys(("name", "status", "type"), _EQUAL),
        Entity.FEEDBACK: dict.fromkeys(("name", "type"), _EQUAL),
    },
    order_fields={},
    order_entities=frozenset(),
    order_repeats=True,
)


async def query(connection: AsyncConnection, request: QueryMetrics) -> list[dict[str, Any]]:
    """The points asked for, by time and dimensions. Raises `InvalidParameter` at what cannot be asked."""
    metric = _metric(request)
    chosen = [_filter(text, request.view_type) for text in request.filters]
    labels: list[Label[Any]] = []
    if request.time_interval_seconds:
        labels.append(_bucket(request).label(TIME_BUCKET))
    labels += [metric.dimensions[name].label(name) for name in dict.fromkeys(request.dimensions)]
    figures = [_figure(metric.column, request.metric_name, wanted) for wanted in request.aggregations]
    asked = select(*labels, *(figure.label(f"value_{n}") for n, figure in enumerate(figures)))
    if request.view_type == SPANS:
        asked = asked.select_from(spans.join(traces, traces.c.trace_id == spans.c.trace_id))
    elif request.view_type == ASSESSMENTS:
        asked = asked.select_from(assessments.join(traces, traces.c.trace_id == assessments.c.trace_id))
        asked = asked.where(assessments.c.valid)
    experiments = parse_experiment_ids(request.experiment_ids)
    asked = asked.where(
        is_one_of(traces.c.experiment_id, experiments, traces.c.experiment_id.type),
        metric.column.is_not(None),
        *(label.element.is_not(None) for label in labels),
        *_in_time(request),
        *chosen,
    )
    for label in labels:
        order = collate(label.element, "C") if isinstance(label.element.type, Text) else label.element
        asked = asked.group_by(label.element).order_by(order)
    rows = (await connection.execute(asked.limit(min(request.max_results, MAX_POINTS)))).all()
    return [_point(request, [label.name for label in labels], row) for row in rows if None not in row[len(labels) :]]


def _metric(request: QueryMetrics) -> Metric:
    metrics = METRICS[request.view_type]
    if request.metric_name not in metrics:
        raise InvalidParameter(f"metric_name must be one of {list(metrics)}, got '{request.metric_name[:80]}'")
    metric = metrics[request.metric_name]
    if wrong := {wanted.aggregation_type for wanted in request.aggregations} - metric.aggregations:
        raise InvalidParameter(
            f"Found invalid aggregation_type(s): {sorted(wrong)}. "
            f"Supported aggregation types: {sorted(metric.aggregations)}"
        )
    if unknown := set(request.dimensions) - metric.dimensions.keys():
        raise InvalidParameter(
            f"Found invalid dimension(s): {sorted(name[:80] for name in unknown)}. "
            f"Supported dimensions: {sorted(metric.dimensions)}"
        )
    if request.time_interval_seconds and (request.start_time_ms is None or request.end_time_ms is None):
        raise InvalidParameter("start_time_ms and end_time_ms are required if time_interval_seconds is set")
    return metric


def _time_ms(request: QueryMetrics) -> ColumnElement[Any]:
    """Costs belong to the time of their span, everything else to that of its trace."""
    if request.view_type == SPANS and request.metric_name in keys.COST_COLUMNS:
        return func.div(spans.c.start_time_ns, 1_000_000)
    return traces.c.request_time_ms


def _bucket(request: QueryMetrics) -> ColumnElement[Any]:
    """The beginning of the interval, in milliseconds, that a row lies in."""
    moment: ColumnElement[Any] = traces.c.request_time_ms
    if request.view_type == SPANS:
        moment = func.div(spans.c.start_time_ns, 1_000_000)
    size_ms = literal(request.time_interval_seconds * 1000, BigInteger)
    return cast(func.floor(cast(moment, Double) / size_ms), BigInteger) * size_ms


def _in_time(request: QueryMetrics) -> list[ColumnElement[bool]]:
    moment = _time_ms(request)
    found = []
    if request.start_time_ms is not None:
        found.append(moment >= literal(request.start_time_ms, BigInteger))
    if request.end_time_ms is not None:
        found.append(moment <= literal(request.end_time_ms, BigInteger))
    return found


def _figure(column: ColumnElement[Any], metric_name: str, wanted: Aggregation) -> ColumnElement[Any]:
    match wanted.aggregation_type:
        case "COUNT":
            return func.count(distinct(column) if metric_name == "session_count" else column)
        case "PERCENTILE":
            fraction = literal((wanted.percentile_value or 0) / 100, Double)
            return func.percentile_cont(fraction).within_group(cast(column, Double))
        case name:
            figure: ColumnElement[Any] = getattr(func, name.lower())(cast(column, Double))
            return figure


def _filter(text: str, view_type: str) -> Condition:
    comparisons = parse_filter(text, _FILTERS)
    if len(comparisons) != 1:
        raise InvalidParameter(f"Invalid filter: '{text[:80]}'. Expected one filter clause.")
    comparison = comparisons[0]
    value = comparison.texts[0]
    match comparison.entity:
        case Entity.SPAN:
            if view_type != SPANS:
                raise InvalidParameter(f"Filtering by span is only supported for {SPANS} view type, got {view_type}")
            return _equals(spans.c[comparison.key], value)
        case Entity.FEEDBACK:
            if view_type != ASSESSMENTS:
                raise InvalidParameter(
                    f"Filtering by assessment is only supported for {ASSESSMENTS} view type, got {view_type}"
                )
            return _equals(assessments.c["kind" if comparison.key == "type" else "name"], value)
    return _trace_filter(comparison, value)


def _trace_filter(comparison: Comparison, value: str) -> Condition:
    if comparison.key == "status":
        return _equals(traces.c.state, value)
    kind, _, name = comparison.key.partition(".")
    if len(name) > 2 and name[0] == name[-1] and name[0] in "`\"'":
        name = name[1:-1]
    if kind == "tag":
        return _equals(traces.c.name if name == keys.TRACE_NAME else traces.c.tags[name].astext, value)
    if name == keys.SESSION:
        return _equals(traces.c.session_id, value)
    made = _equals(traces.c.trace_metadata[name].astext, value)
    if name != keys.SOURCE_RUN:
        return made
    linked = select(trace_links.c.trace_id).where(trace_links.c.kind == "run", trace_links.c.target == value)
    return made | traces.c.trace_id.in_(linked)


def _equals(column: ColumnElement[Any], value: str) -> Condition:
    return column == literal(value, Text)


def _point(request: QueryMetrics, names: Sequence[str], row: Any) -> dict[str, Any]:
    point: dict[str, Any] = {"metric_name": request.metric_name}
    if names:
        point["dimensions"] = {
            name: _moment(value) if name == TIME_BUCKET else str(value) for name, value in zip(names, row, strict=False)
        }
    values = zip(request.aggregations, row[len(names) :], strict=True)
    return point | {"values": {wanted.label: float(value) for wanted, value in values}}


def _moment(ms: int) -> str:
    limit = 253_402_300_799_999  # the year 9999
    return (_EPOCH + timedelta(milliseconds=max(min(ms, limit), 0))).isoformat()

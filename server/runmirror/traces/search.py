"""Traces by filter, ordered, page by page: one statement that gives ids."""

import json
from collections.abc import Sequence

from sqlalchemy import BigInteger, ColumnElement, Text, and_, cast, collate, exists, func, literal, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.errors import InvalidParameter
from runmirror.search import paging
from runmirror.search.clauses import (
    Column,
    is_one_of,
    metric_matches,
    number_matches,
    parse_experiment_ids,
    text_matches,
)
from runmirror.search.paging import SortTerm
from runmirror.search.parser import parse_filter, parse_order_by
from runmirror.search.tree import Comparison, Entity, Operator, SortKey
from runmirror.tables import assessments, spans, trace_links, traces
from runmirror.traces import keys
from runmirror.traces.language import ATTRIBUTES_PREFIX, TRACES
from runmirror.traces.totals import PROMOTED

_NULLS = {Operator.IS_NULL, Operator.IS_NOT_NULL}
_RANGES = {Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST}
_END_TIME = traces.c.request_time_ms + func.coalesce(traces.c.execution_time_ms, literal(0, BigInteger))
_NUMBERS = {
    "request_time_ms": traces.c.request_time_ms,
    "execution_time_ms": traces.c.execution_time_ms,
    "end_time_ms": _END_TIME,
}
_COLUMNS_OF = {keys.TOKEN_USAGE: keys.TOKEN_COLUMNS, keys.COST: keys.COST_COLUMNS}


async def search_traces(
    connection: AsyncConnection,
    *,
    experiment_ids: Sequence[str],
    filter_string: str,
    max_results: int,
    order_by: Sequence[str],
    page_token: str,
) -> tuple[list[str], str | None]:
    """The ids of one page of traces, and a token if more follow.

    Raises `InvalidParameter` at a filter, order, token or page size that cannot be answered.
    """
    paging.check_max_results(max_results)
    experiments = parse_experiment_ids(experiment_ids)
    comparisons = parse_filter(filter_string, TRACES)
    sort_keys = parse_order_by(order_by, TRACES)
    terms = _terms(sort_keys)
    name = paging.fingerprint("traces", sorted(experiments), comparisons, sort_keys)
    query = select(traces.c.trace_id, *(term.expression.label(f"by_{n}") for n, term in enumerate(terms)))
    query = query.where(*selects(experiments, comparisons))
    if page_token:
        query = query.where(paging.follows(terms, paging.decode_token(page_token, name, terms)))
    query = query.order_by(*(clause for term in terms for clause in term.clauses())).limit(max_results + 1)
    rows = (await connection.execute(query)).all()
    page = rows[:max_results]
    more = paging.encode_token(name, page[-1][1:]) if len(rows) > max_results else None
    return [row.trace_id for row in page], more


def selects(experiment_ids: Sequence[int], comparisons: Sequence[Comparison]) -> list[ColumnElement[bool]]:
    """Conditions on a row of `traces`. What is said of spans must all hold of one span."""
    scope = is_one_of(traces.c.experiment_id, experiment_ids, traces.c.experiment_id.type)
    about_spans = [_span_holds(c) for c in comparisons if _is_about_spans(c)]
    others = [_holds(c, experiment_ids) for c in comparisons if not _is_about_spans(c)]
    if about_spans:
        others.append(exists().where(spans.c.trace_id == traces.c.trace_id, *about_spans))
    return [scope, *others]


def _is_about_spans(comparison: Comparison) -> bool:
    return comparison.entity is Entity.SPAN or (comparison.entity, comparison.key) == (Entity.ATTRIBUTE, "text")


def _holds(  # noqa: PLR0911 one line per thing that can be compared
    comparison: Comparison, experiment_ids: Sequence[int]
) -> ColumnElement[bool]:
    match comparison.entity, comparison.key:
        case Entity.ATTRIBUTE, "run_id":
            return _of_run(comparison)
        case Entity.ATTRIBUTE, "prompt":
            return _of_prompt(comparison)
        case Entity.ATTRIBUTE, key if key in _NUMBERS:
            return number_matches(_NUMBERS[key], comparison)
        case Entity.ATTRIBUTE, key:
            return _text_or_null(traces.c[key], comparison)
        case Entity.TAG, key:
            return _text_or_null(_tag(key), comparison)
        case Entity.METADATA, keys.SOURCE_RUN:
            return _of_run(comparison)
        case Entity.METADATA, key if key in _COLUMNS_OF:
            return _figures_hold(comparison)
        case Entity.METADATA, key:
            return _text_or_null(_metadata(key), comparison)
        case Entity.ISSUE, _:
            of_issue = and_(assessments.c.kind == "issue", assessments.c.name == comparison.texts[0])
            return exists().where(assessments.c.trace_id == traces.c.trace_id, of_issue)
    return _assessed(comparison, experiment_ids)


def _text_or_null(column: Column, comparison: Comparison) -> ColumnElement[bool]:
    match comparison.operator:
        case Operator.IS_NULL:
            return column.is_(None)
        case Operator.IS_NOT_NULL:
            return column.is_not(None)
    return text_matches(column, comparison)


def _tag(key: str) -> ColumnElement[str]:
    return traces.c.name if key == keys.TRACE_NAME else traces.c.tags[key].astext


def _metadata(key: str) -> ColumnElement[str]:
    return traces.c.session_id if key == keys.SESSION else traces.c.trace_metadata[key].astext


def _of_run(comparison: Comparison) -> ColumnElement[bool]:
    """Traces that a run made, by their metadata, or that were linked to it."""
    made = _text_or_null(_metadata(keys.SOURCE_RUN), comparison)
    if comparison.operator is not Operator.EQUAL:
        return made
    return or_(made, _linked("run", comparison.texts[0]))


def _of_prompt(comparison: Comparison) -> ColumnElement[bool]:
    if comparison.texts[0].count("/") != 1:
        raise InvalidParameter(
            f'Invalid prompts filter value {comparison.texts[0][:80]!r}. Expected format: prompt = "name/version"'
        )
    return _linked("prompt", comparison.texts[0])


def _linked(kind: str, target: str) -> ColumnElement[bool]:
    of_this = and_(trace_links.c.trace_id == traces.c.trace_id, trace_links.c.kind == kind)
    return exists().where(of_this, trace_links.c.target == target)


def _figures_hold(comparison: Comparison) -> ColumnElement[bool]:
    there = or_(*(traces.c[name].is_not(None) for name in _COLUMNS_OF[comparison.key]))
    match comparison.operator:
        case Operator.IS_NULL:
            return not_(there)
        case Operator.IS_NOT_NULL:
            return there
    raise InvalidParameter(f"Reserved metadata '{comparison.key}' can only be compared by IS NULL and IS NOT NULL.")


def _span_holds(comparison: Comparison) -> ColumnElement[bool]:
    key = comparison.key
    if key in {"content", "text"}:
        content = func.concat_ws(" ", spans.c.name, cast(spans.c.attributes, Text), cast(spans.c.events, Text))
        return text_matches(content, comparison)
    if not key.startswith(ATTRIBUTES_PREFIX):
        return text_matches(spans.c[key], comparison)
    name = key.removeprefix(ATTRIBUTES_PREFIX)
    quoted = len(name) > 2 and name[0] == name[-1] and name[0] in "`\"'"
    # Attributes are JSON text; a value that is a text is compared without its quotes.
    raw = spans.c.attributes[name[1:-1] if quoted else name].astext
    return text_matches(func.regexp_replace(raw, '^"(.*)"$', r"\1"), comparison)


def _assessed(comparison: Comparison, experiment_ids: Sequence[int]) -> ColumnElement[bool]:
    """Of the trace itself, or of a session that it belongs to."""
    matching = [
        assessments.c.kind == comparison.entity.value,
        assessments.c.name == comparison.key,
        assessments.c.valid,
    ]
    if comparison.operator not in _NULLS:
        matching.append(_value_holds(comparison))
    direct = exists().where(assessments.c.trace_id == traces.c.trace_id, *matching)
    sibling = traces.alias()
    sessions = (
        select(sibling.c.session_id)
        .join(assessments, assessments.c.trace_id == sibling.c.trace_id)
        .where(
            is_one_of(sibling.c.experiment_id, experiment_ids, sibling.c.experiment_id.type),
            sibling.c.session_id.is_not(None),
            assessments.c.assessment_metadata.has_key(keys.SESSION),
            *matching,
        )
    )
    found = or_(direct, and_(traces.c.session_id.is_not(None), traces.c.session_id.in_(sessions)))
    return not_(found) if comparison.operator is Operator.IS_NULL else found


def _value_holds(comparison: Comparison) -> ColumnElement[bool]:
    """Texts are stored with their quotes, numbers and truths without: either may be meant."""
    if comparison.operator in _RANGES:
        return and_(assessments.c.is_number, metric_matches(assessments.c.number, comparison))
    if comparison.operator not in {Operator.EQUAL, Operator.UNEQUAL}:
        return text_matches(assessments.c.value, comparison)
    text = comparison.texts[0]
    same = is_one_of(assessments.c.value, [text, json.dumps(text)], Text())
    return same if comparison.operator is Operator.EQUAL else not_(same)


def _terms(sort_keys: Sequence[SortKey]) -> list[SortTerm]:
    """What was asked for, then the newest first, then the id."""
    terms = [_term(key) for key in sort_keys]
    named = {key.key for key in sort_keys if key.entity is Entity.ATTRIBUTE}
    if "request_time_ms" not in named:
        terms.append(SortTerm(traces.c.request_time_ms, int, descending=True))
    if "trace_id" not in named:
        terms.append(SortTerm(collate(traces.c.trace_id, "C"), str))
    return terms


def _term(key: SortKey) -> SortTerm:
    match key.entity, key.key:
        case Entity.TAG, name:
            return SortTerm(collate(_tag(name), "C"), str, key.descending, nullable=True)
        case Entity.METADATA, name if name in PROMOTED - {keys.SESSION}:
            raise InvalidParameter(
                f"Ordering by reserved metadata '{name}' is not supported because it is represented by "
                "multiple columns."
            )
        case Entity.METADATA, name:
            return SortTerm(collate(_metadata(name), "C"), str, key.descending, nullable=True)
        case _, "run_id":
            return SortTerm(collate(_metadata(keys.SOURCE_RUN), "C"), str, key.descending, nullable=True)
        case _, "experiment_id":
            return SortTerm(traces.c.experiment_id, int, key.descending)
        case _, name if name in _NUMBERS:
            return SortTerm(_NUMBERS[name], int, key.descending, nullable=name == "execution_time_ms")
        case _, name:
            return SortTerm(collate(traces.c[name], "C"), str, key.descending, nullable=name == "name")

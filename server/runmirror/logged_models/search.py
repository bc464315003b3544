"""logged-models/search: attributes, params and tags, as one statement; metrics and datasets are not served yet."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Text, and_, cast, collate, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import LifecycleStage
from runmirror.errors import InvalidParameter
from runmirror.logged_models.wire import OrderBy, SearchLoggedModels
from runmirror.search import paging
from runmirror.search.clauses import (
    experiment_id_matches,
    is_one_of,
    number_matches,
    parse_experiment_ids,
    run_id_matches,
    text_matches,
)
from runmirror.search.paging import SortTerm
from runmirror.search.parser import parse_filter
from runmirror.search.tree import Comparison, Entity, Field, Kind, Language, Operator
from runmirror.tables import logged_model_params, logged_model_tags, logged_models

DEFAULT_MAX_RESULTS = 100
_NUMERIC = frozenset(
    {Operator.EQUAL, Operator.UNEQUAL, Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST}
)
_TEXTUAL = frozenset({Operator.EQUAL, Operator.UNEQUAL, Operator.LIKE, Operator.ILIKE, Operator.IN, Operator.NOT_IN})
_TIMES = {
    "creation_timestamp_ms": logged_models.c.creation_timestamp_ms,
    "last_updated_timestamp_ms": logged_models.c.last_updated_timestamp_ms,
}
_IDS = {"experiment_id": logged_models.c.experiment_id, "source_run_id": logged_models.c.source_run_id}
_TEXTS = {
    "model_id": logged_models.c.model_id,
    "name": logged_models.c.name,
    "artifact_location": logged_models.c.artifact_uri,
    "model_type": logged_models.c.model_type,
    "lifecycle_stage": logged_models.c.lifecycle_stage,
    "status": cast(logged_models.c.status, Text),  # its number: 1 pending, 2 ready, 3 failed
}
_ALIASES = {
    "creation_time": "creation_timestamp_ms",
    "creation_timestamp": "creation_timestamp_ms",
    "last_updated_timestamp": "last_updated_timestamp_ms",
}

LOGGED_MODELS = Language(
    entities={
        "attributes": Entity.ATTRIBUTE,
        "metrics": Entity.METRIC,
        "params": Entity.PARAM,
        "tags": Entity.TAG,
    },
    quoted_entities=False,
    fields={
        Entity.ATTRIBUTE: {
            **{name: Field(Kind.TEXT, _TEXTUAL, name) for name in _TEXTS | _IDS},
            **{name: Field(Kind.NUMBER, _NUMERIC, name) for name in _TIMES},
            **{alias: Field(Kind.NUMBER, _NUMERIC, name) for alias, name in _ALIASES.items()},
        },
        Entity.METRIC: Field(Kind.NUMBER, _NUMERIC),
        Entity.PARAM: Field(Kind.TEXT, _TEXTUAL),
        Entity.TAG: Field(Kind.TEXT, _TEXTUAL),
    },
    order_fields={},
    order_entities=frozenset({Entity.ATTRIBUTE}),
    order_repeats=True,
)


async def search(connection: AsyncConnection, request: SearchLoggedModels) -> tuple[list[str], str | None]:
    """The ids of one page of logged models, and a token if more follow.

    Raises `InvalidParameter` at a filter, order, token or page size that cannot be answered.
    """
    if request.datasets:
        raise _not_served("the 'datasets' clause")
    max_results = request.max_results or DEFAULT_MAX_RESULTS
    paging.check_max_results(max_results)
    experiment_ids = parse_experiment_ids(request.experiment_ids)
    comparisons = parse_filter(request.filter, LOGGED_MODELS)
    terms = _terms(request.order_by)
    name = paging.fingerprint("logged models", sorted(experiment_ids), comparisons, request.order_by)
    query = select(logged_models.c.model_id, *(term.expression.label(f"by_{n}") for n, term in enumerate(terms)))
    query = query.where(
        logged_models.c.lifecycle_stage != LifecycleStage.DELETED,
        is_one_of(logged_models.c.experiment_id, experiment_ids, logged_models.c.experiment_id.type),
        *map(_holds, comparisons),
    )
    if request.page_token:
        query = query.where(paging.follows(terms, paging.decode_token(request.page_token, name, terms)))
    query = query.order_by(*(clause for term in terms for clause in term.clauses())).limit(max_results + 1)
    rows = (await connection.execute(query)).all()
    page = rows[:max_results]
    more = paging.encode_token(name, page[-1][1:]) if len(rows) > max_results else None
    return [row.model_id for row in page], more


def _holds(comparison: Comparison) -> ColumnElement[bool]:
    """The condition on a row of `logged_models`; params and tags are looked up by their primary key."""
    match comparison.entity:
        case Entity.METRIC:
            raise _not_served("a filter on metrics")
        case Entity.ATTRIBUTE:
            return _attribute_holds(comparison)
    pairs = (logged_model_params if comparison.entity is Entity.PARAM else logged_model_tags).alias()
    of_this = and_(pairs.c.model_id == logged_models.c.model_id, pairs.c.key == comparison.key)
    return exists().where(of_this, text_matches(pairs.c.value, comparison))


def _attribute_holds(comparison: Comparison) -> ColumnElement[bool]:
    match comparison.key:
        case key if key in _TIMES:
            return number_matches(_TIMES[key], comparison)
        case "experiment_id":
            return experiment_id_matches(logged_models.c.experiment_id, comparison)
        case "source_run_id":
            clause = run_id_matches(logged_models.c.source_run_id, comparison)
            if comparison.operator in {Operator.UNEQUAL, Operator.NOT_IN}:  # no run is another run
                return or_(clause, logged_models.c.source_run_id.is_(None))
            return clause
    return text_matches(_TEXTS[comparison.key], comparison)


def _terms(order_by: Sequence[OrderBy]) -> list[SortTerm]:
    """What was asked for, then the newest first, then the id."""
    terms: list[SortTerm] = []
    named: set[str] = set()
    for clause in order_by:
        if "." in clause.field_name:
            if clause.field_name.startswith("metrics."):
                raise _not_served("an order by metrics")
            raise InvalidParameter(f"Invalid order by field name: {clause.field_name[:80]}.")
        name = _ALIASES.get(clause.field_name, clause.field_name)
        terms.append(_term(name, descending=not clause.ascending))
        named.add(name)
    if "creation_timestamp_ms" not in named:
        terms.append(_term("creation_timestamp_ms", descending=True))
    if "model_id" not in named:
        terms.append(_term("model_id", descending=False))
    return terms


def _term(name: str, *, descending: bool) -> SortTerm:
    if name in _TIMES:
        return SortTerm(_TIMES[name], int, descending)
    if name == "experiment_id":
        return SortTerm(logged_models.c.experiment_id, int, descending)
    if name == "status":
        return SortTerm(logged_models.c.status, int, descending)
    if name in _TEXTS:
        return SortTerm(collate(_TEXTS[name], "C"), str, descending)
    raise InvalidParameter(f"Invalid order by field name: {name[:80]}")


def _not_served(what: str) -> InvalidParameter:
    return InvalidParameter(
        f"Invalid search of logged models: this server does not support {what} yet; use attributes, params and tags."
    )

"""logged-models/search: MLflow's query as one statement over `logged_models`, their params, tags and metrics."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, FromClause, Text, and_, cast, collate, exists, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import LateralFromClause

from runmirror.auth import permits
from runmirror.entities import LifecycleStage
from runmirror.errors import InvalidParameter
from runmirror.logged_models.wire import DatasetFilter, OrderBy, SearchLoggedModels
from runmirror.search import paging
from runmirror.search.clauses import (
    experiment_id_matches,
    is_one_of,
    metric_matches,
    number_matches,
    parse_experiment_ids,
    run_id_matches,
    text_matches,
)
from runmirror.search.paging import SortTerm
from runmirror.search.parser import MAX_ORDER_BY, parse_filter
from runmirror.search.tree import Comparison, Entity, Field, Kind, Language, Operator
from runmirror.tables import logged_model_metrics, logged_model_params, logged_model_tags, logged_models

DEFAULT_MAX_RESULTS = 100
MAX_DATASETS = 100
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
    "status_message": logged_models.c.status_message,
}
_ALIASES = {
    "creation_time": "creation_timestamp_ms",
    "creation_timestamp": "creation_timestamp_ms",
    "last_updated_timestamp": "last_updated_timestamp_ms",
}

_METRICS = "metrics."

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
    max_results = request.max_results or DEFAULT_MAX_RESULTS
    paging.check_max_results(max_results)
    experiment_ids = parse_experiment_ids(request.experiment_ids)
    comparisons = parse_filter(request.filter, LOGGED_MODELS)
    on_datasets = _on_datasets(request.datasets)
    terms, looked_up = _terms(request.order_by)
    readable = await permits.current().readable(connection, experiment_ids)
    found_in: FromClause = logged_models
    for latest in looked_up:
        found_in = found_in.outerjoin(latest, true())
    query = (
        select(logged_models.c.model_id)
        .select_from(found_in)
        .where(
            logged_models.c.lifecycle_stage != LifecycleStage.DELETED,
            is_one_of(logged_models.c.experiment_id, readable, logged_models.c.experiment_id.type),
            *(_holds(comparison, on_datasets) for comparison in comparisons),
        )
    )
    if request.datasets and all(comparison.entity is not Entity.METRIC for comparison in comparisons):
        query = query.where(exists().where(logged_model_metrics.c.model_id == logged_models.c.model_id, on_datasets))
    name = paging.fingerprint("logged models", sorted(experiment_ids), comparisons, request.datasets, request.order_by)
    rows, more = await paging.fetch_page(
        connection, query, terms, name=name, max_results=max_results, page_token=request.page_token
    )
    return [row.model_id for row in rows], more


def _on_datasets(datasets: Sequence[DatasetFilter]) -> ColumnElement[bool]:
    """Whether a point was measured on one of these datasets; without a digest, on any dataset of the name."""
    if len(datasets) > MAX_DATASETS:
        raise InvalidParameter(f"Invalid datasets: {len(datasets)} were given, at most {MAX_DATASETS} are accepted.")
    if not all(dataset.dataset_name for dataset in datasets):
        raise InvalidParameter("`dataset_name` in the `datasets` clause must be specified.")
    return or_(*map(_on_dataset, datasets)) if datasets else true()


def _on_dataset(dataset: DatasetFilter) -> ColumnElement[bool]:
    points = logged_model_metrics.c
    named = points.dataset_name == dataset.dataset_name if dataset.dataset_name else true()
    return and_(named, points.dataset_digest == dataset.dataset_digest if dataset.dataset_digest else true())


def _holds(comparison: Comparison, on_datasets: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition on a row of `logged_models`; what belongs to it is looked up by primary keys."""
    match comparison.entity:
        case Entity.METRIC:
            points = logged_model_metrics.c
            named = and_(points.model_id == logged_models.c.model_id, points.key == comparison.key)
            return exists().where(named, metric_matches(points.value, comparison), on_datasets)
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


def _terms(order_by: Sequence[OrderBy]) -> tuple[list[SortTerm], list[LateralFromClause]]:
    """What was asked for, then the newest first, then the id; and the metrics to look up for it."""
    if len(order_by) > MAX_ORDER_BY:
        raise InvalidParameter(f"Invalid order_by: {len(order_by)} were given, at most {MAX_ORDER_BY} are accepted.")
    terms: list[SortTerm] = []
    looked_up: list[LateralFromClause] = []
    named: set[str] = set()
    for clause in order_by:
        if clause.field_name.startswith(_METRICS):
            latest = _latest(clause)
            looked_up.append(latest)
            terms.append(SortTerm(latest.c.value, float, not clause.ascending, nullable=True))
            continue
        name = _ALIASES.get(clause.field_name, clause.field_name)
        terms.append(_term(name, descending=not clause.ascending))
        named.add(name)
    if "creation_timestamp_ms" not in named:
        terms.append(_term("creation_timestamp_ms", descending=True))
    if "model_id" not in named:
        terms.append(_term("model_id", descending=False))
    return terms, looked_up


def _latest(clause: OrderBy) -> LateralFromClause:
    """The last point of one metric of a logged model, on one dataset if the clause names one."""
    points = logged_model_metrics.c
    return (
        select(points.value)
        .where(
            points.model_id == logged_models.c.model_id,
            points.key == clause.field_name.removeprefix(_METRICS),
            _on_dataset(clause),
        )
        .order_by(points.timestamp_ms.desc(), points.step.desc(), points.run_id)
        .limit(1)
        .correlate(logged_models)
        .lateral()
    )


def _term(name: str, *, descending: bool) -> SortTerm:
    match name:
        case _ if name in _TIMES:
            return SortTerm(_TIMES[name], int, descending)
        case "experiment_id":
            return SortTerm(logged_models.c.experiment_id, int, descending)
        case "source_run_id":  # no run sorts before all runs: to MLflow it is the empty text
            run_id = func.coalesce(func.replace(cast(logged_models.c.source_run_id, Text), "-", ""), "")
            return SortTerm(collate(run_id, "C"), str, descending)
        case "status":
            return SortTerm(logged_models.c.status, int, descending)
        case _ if name in _TEXTS:
            return SortTerm(collate(_TEXTS[name], "C"), str, descending, nullable=name == "status_message")
    raise InvalidParameter(f"Invalid order by field name: {name[:80]}")

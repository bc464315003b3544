"""runs/search: MLflow's query as one statement over `runs` and what is logged to them, all of it in Postgres."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, FromClause, Select, Table, and_, collate, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth import permits
from runmirror.entities import LifecycleStage, ViewType
from runmirror.search import clauses, paging
from runmirror.search.clauses import is_one_of, metric_matches, number_matches, run_id_matches, text_matches
from runmirror.search.languages import RUNS
from runmirror.search.paging import SortTerm
from runmirror.search.parser import parse_filter, parse_order_by
from runmirror.search.tree import Comparison, Entity, Operator, SortKey
from runmirror.tables import dataset_inputs, datasets, latest_metrics, params, runs, tags

DATASET_CONTEXT = "mlflow.data.context"
# Tables that Postgres may join in the order it likes: choosing among 30 takes it seconds, among 100 minutes.
MAX_JOINED = 6

_KEYED: dict[Entity, Table] = {Entity.METRIC: latest_metrics, Entity.PARAM: params, Entity.TAG: tags}
_ATTRIBUTES = {
    "run_id": runs.c.run_id,
    "run_name": runs.c.name,
    "user_id": runs.c.user_id,
    "status": runs.c.status,
    "start_time": runs.c.start_time_ms,
    "end_time": runs.c.end_time_ms,
    "artifact_uri": runs.c.artifact_uri,
}
_STAGES = {ViewType.ACTIVE_ONLY: LifecycleStage.ACTIVE, ViewType.DELETED_ONLY: LifecycleStage.DELETED}


@dataclass(frozen=True, slots=True)
class SearchPage:
    """The ids in the order asked for; a token if more follow."""

    run_ids: list[UUID]
    next_page_token: str | None = None


async def search_runs(
    connection: AsyncConnection,
    *,
    experiment_ids: list[str],
    filter_string: str,
    run_view_type: ViewType,
    max_results: int,
    order_by: list[str],
    page_token: str | None,
) -> SearchPage:
    """One page of the runs of these experiments, in one statement.

    Raises `InvalidParameter` at a filter, order, token, id or page size that MLflow would not accept. Experiments
    that do not exist, or may not be read, have no runs; no experiments at all have none either.
    """
    paging.check_max_results(max_results)
    comparisons = parse_filter(filter_string, RUNS)
    keys = parse_order_by(order_by, RUNS)
    experiments = sorted(set(clauses.parse_experiment_ids(experiment_ids)))
    query, terms = _ordered(select(runs.c.run_id), keys)
    name = paging.fingerprint("runs", experiments, run_view_type, comparisons, keys)
    last = paging.decode_token(page_token, name, terms) if page_token else None
    experiments = await permits.current().readable(connection, experiments)
    if not experiments:
        return SearchPage([])
    query = query.where(is_one_of(runs.c.experiment_id, experiments, BigInteger()), *_all_hold(comparisons, keys))
    if run_view_type in _STAGES:
        query = query.where(runs.c.lifecycle_stage == _STAGES[run_view_type])
    if last is not None:
        query = query.where(paging.follows(terms, last))
    rows = (await connection.execute(query.limit(max_results + 1))).all()
    page = rows[:max_results]
    more = paging.encode_token(name, page[-1][1:]) if len(rows) > max_results else None
    return SearchPage([row.run_id for row in page], more)


def _all_hold(comparisons: Sequence[Comparison], keys: Sequence[SortKey]) -> list[ColumnElement[bool]]:
    """The conditions; where they are many, EXISTS … IS TRUE makes Postgres look them up run by run, not join."""
    entities = [*(comparison.entity for comparison in comparisons), *(key.entity for key in keys)]
    joined = sum(entity is not Entity.ATTRIBUTE for entity in entities)
    conditions = [_holds(comparison) for comparison in comparisons]
    return conditions if joined <= MAX_JOINED else [condition.is_(True) for condition in conditions]


def _holds(comparison: Comparison) -> ColumnElement[bool]:
    """The condition on a row of `runs`; what is logged to it is looked up by its primary key, (run_id, key)."""
    if comparison.entity is Entity.ATTRIBUTE:
        return _attribute_holds(comparison)
    if comparison.entity is Entity.DATASET:
        return _some_dataset_holds(comparison)
    table = _KEYED[comparison.entity].alias()
    of_run = _has_key(table, comparison.key)
    match comparison.operator:
        case Operator.IS_NULL:
            return ~exists().where(of_run)
        case Operator.IS_NOT_NULL:
            return exists().where(of_run)
    matches = metric_matches if comparison.entity is Entity.METRIC else text_matches
    return exists().where(of_run, matches(table.c.value, comparison))


def _attribute_holds(comparison: Comparison) -> ColumnElement[bool]:
    column = _ATTRIBUTES[comparison.key]
    if comparison.key == "run_id":
        return run_id_matches(column, comparison)
    if comparison.key in {"start_time", "end_time"}:
        return number_matches(column, comparison)
    return text_matches(column, comparison)


def _some_dataset_holds(comparison: Comparison) -> ColumnElement[bool]:
    """True if any one dataset of the run matches; two comparisons may be met by two datasets, as in MLflow."""
    used, dataset = dataset_inputs.alias(), datasets.alias()
    of_run = used.c.run_id == runs.c.run_id
    if comparison.key == "context":
        return exists().where(of_run, text_matches(used.c.tags[DATASET_CONTEXT].astext, comparison))
    column = {"name": dataset.c.name, "digest": dataset.c.digest}[comparison.key]
    return exists().where(of_run, dataset.c.dataset_id == used.c.dataset_id, text_matches(column, comparison))


def _has_key(table: FromClause, key: str) -> ColumnElement[bool]:
    """Whether a row of `table` is what the run has under `key`; a deleted tag is no tag."""
    found = and_(table.c.run_id == runs.c.run_id, table.c.key == key)
    return and_(found, table.c.value.is_not(None)) if table.c.value.nullable else found


def _ordered(query: Select[tuple[UUID]], keys: Sequence[SortKey]) -> tuple[Select[Any], list[SortTerm]]:
    """The query in this order, newest first where keys leave it open; after the id, the values it is ordered by."""
    source: FromClause = runs
    terms: list[SortTerm] = []
    for key in keys:
        if key.entity is Entity.ATTRIBUTE:
            terms.append(_attribute_term(key.key, descending=key.descending))
            continue
        table = _KEYED[key.entity].alias()
        source = source.outerjoin(table, _has_key(table, key.key))
        metric = key.entity is Entity.METRIC
        column = table.c.value if metric else collate(table.c.value, "C")
        terms.append(SortTerm(column, float if metric else str, key.descending, nullable=True))
    asked = {key.key for key in keys if key.entity is Entity.ATTRIBUTE}
    if "start_time" not in asked:
        terms.append(_attribute_term("start_time", descending=True))
    if "run_id" not in asked:
        terms.append(_attribute_term("run_id"))
    query = query.select_from(source).add_columns(*(term.expression.label(f"by_{n}") for n, term in enumerate(terms)))
    return query.order_by(*(clause for term in terms for clause in term.clauses())), terms


def _attribute_term(name: str, *, descending: bool = False) -> SortTerm:
    column = _ATTRIBUTES[name]
    match name:
        case "run_id":
            return SortTerm(column, UUID, descending)
        case "start_time" | "end_time":
            return SortTerm(column, int, descending, nullable=bool(column.nullable))
    return SortTerm(collate(column, "C"), str, descending)

"""experiments/search: MLflow's query as one statement over `experiments` and their tags."""

from sqlalchemy import ColumnElement, and_, collate, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth.clauses import may_read_experiment
from runmirror.entities import LifecycleStage, ViewType
from runmirror.search import paging
from runmirror.search.clauses import experiment_id_matches, number_matches, text_matches
from runmirror.search.languages import EXPERIMENTS
from runmirror.search.paging import SortTerm
from runmirror.search.parser import parse_filter, parse_order_by
from runmirror.search.tree import Comparison, Entity, Operator
from runmirror.tables import experiment_tags, experiments

_ATTRIBUTES = {
    "experiment_id": experiments.c.experiment_id,
    "name": experiments.c.name,
    "creation_time": experiments.c.creation_time_ms,
    "last_update_time": experiments.c.last_update_time_ms,
}
_STAGES = {ViewType.ACTIVE_ONLY: LifecycleStage.ACTIVE, ViewType.DELETED_ONLY: LifecycleStage.DELETED}
_DEFAULT_ORDER = ["creation_time DESC", "experiment_id ASC"]


async def search_experiments(
    connection: AsyncConnection,
    *,
    filter_string: str,
    view_type: ViewType,
    max_results: int | None,
    order_by: list[str],
    page_token: str | None,
) -> tuple[list[int], str | None]:
    """The ids of one page of experiments, in one statement, and a token if more follow.

    Raises `InvalidParameter` at a filter, order, token or page size that MLflow would not accept.
    """
    max_results = max_results or 0  # MLflow has no default here: leaving it out is as wrong as 0
    paging.check_max_results(max_results)
    comparisons = parse_filter(filter_string, EXPERIMENTS)
    keys = parse_order_by(order_by or _DEFAULT_ORDER, EXPERIMENTS)
    terms = [_term(key.key, descending=key.descending) for key in keys]
    if all(key.key != "experiment_id" for key in keys):
        terms.append(_term("experiment_id", descending=True))
    name = paging.fingerprint("experiments", view_type, comparisons, keys)
    readable = may_read_experiment(experiments.c.experiment_id)
    query = select(experiments.c.experiment_id).where(readable, *map(_holds, comparisons))
    if view_type in _STAGES:
        query = query.where(experiments.c.lifecycle_stage == _STAGES[view_type])
    rows, more = await paging.fetch_page(
        connection, query, terms, name=name, max_results=max_results, page_token=page_token or ""
    )
    return [row.experiment_id for row in rows], more


def _holds(comparison: Comparison) -> ColumnElement[bool]:
    """The condition on a row of `experiments`; a tag is looked up by its primary key, (experiment_id, key)."""
    if comparison.entity is Entity.ATTRIBUTE:
        column = _ATTRIBUTES[comparison.key]
        match comparison.key:
            case "experiment_id":
                return experiment_id_matches(column, comparison)
            case "name":
                return text_matches(column, comparison)
        return number_matches(column, comparison)
    tag = experiment_tags.alias()
    has_tag = and_(tag.c.experiment_id == experiments.c.experiment_id, tag.c.key == comparison.key)
    match comparison.operator:
        case Operator.IS_NULL:
            return ~exists().where(has_tag)
        case Operator.IS_NOT_NULL:
            return exists().where(has_tag)
    return exists().where(has_tag, text_matches(tag.c.value, comparison))


def _term(name: str, *, descending: bool) -> SortTerm:
    column = _ATTRIBUTES[name]
    if name == "name":
        return SortTerm(collate(column, "C"), str, descending)
    return SortTerm(column, int, descending)

"""datasets/search: MLflow's query as one statement over `evaluation_datasets`, their tags and experiments."""

from sqlalchemy import BigInteger, ColumnElement, and_, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth.clauses import may_read_dataset
from runmirror.evaluation_datasets.wire import SearchDatasets
from runmirror.search import paging
from runmirror.search.clauses import is_one_of, number_matches, text_matches
from runmirror.search.paging import SortTerm
from runmirror.search.parser import parse_filter, parse_order_by
from runmirror.search.tree import Comparison, Entity, Field, Kind, Language, Operator
from runmirror.tables import evaluation_dataset_experiments, evaluation_dataset_tags, evaluation_datasets
from runmirror.wire import EXPERIMENT_ID, INT64_MAX

_NUMERIC = frozenset(
    {Operator.EQUAL, Operator.UNEQUAL, Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST}
)
_TEXTUAL = frozenset({Operator.EQUAL, Operator.UNEQUAL, Operator.LIKE, Operator.ILIKE})
_TIMES = {
    "created_time": evaluation_datasets.c.created_time_ms,
    "last_update_time": evaluation_datasets.c.last_update_time_ms,
}
_TEXTS = {
    "name": evaluation_datasets.c.name,
    "created_by": evaluation_datasets.c.created_by,
    "last_updated_by": evaluation_datasets.c.last_updated_by,
}
_DEFAULT_ORDER = ["created_time DESC"]

EVALUATION_DATASETS = Language(
    entities={"tags": Entity.TAG},
    quoted_entities=False,
    fields={
        Entity.TAG: Field(Kind.TEXT, _TEXTUAL),
        Entity.ATTRIBUTE: {
            **{name: Field(Kind.TEXT, _TEXTUAL, name) for name in _TEXTS},
            "name": Field(Kind.TEXT, _TEXTUAL | {Operator.IN}, "name"),
            **{name: Field(Kind.WHOLE_NUMBER, _NUMERIC, name) for name in _TIMES},
        },
    },
    order_fields={name: name for name in ("name", *_TIMES)},
    order_entities=frozenset({Entity.ATTRIBUTE}),
    order_repeats=True,
)


async def search(connection: AsyncConnection, request: SearchDatasets) -> tuple[list[str], str | None]:
    """The ids of one page of datasets, and a token if more follow.

    Raises `InvalidParameter` at a filter, order, token or page size that cannot be answered.
    """
    paging.check_max_results(request.max_results)
    comparisons = parse_filter(request.filter_string, EVALUATION_DATASETS)
    keys = parse_order_by(request.order_by or _DEFAULT_ORDER, EVALUATION_DATASETS)
    terms = [_term(key.key, descending=key.descending) for key in keys]
    terms.append(SortTerm(evaluation_datasets.c.dataset_id, str, descending=True))
    readable = may_read_dataset(evaluation_datasets.c.dataset_id)
    query = select(evaluation_datasets.c.dataset_id).where(readable, *map(_holds, comparisons))
    if request.experiment_ids:
        query = query.where(_in_experiments(request.experiment_ids))
    name = paging.fingerprint("evaluation datasets", sorted(request.experiment_ids), comparisons, keys)
    rows, more = await paging.fetch_page(
        connection, query, terms, name=name, max_results=request.max_results, page_token=request.page_token
    )
    return [row.dataset_id for row in rows], more


def parse_existing(experiment_ids: list[str]) -> list[int]:
    """The ids that can exist, as numbers; no dataset is in the others."""
    numbers = [int(text) for text in experiment_ids if EXPERIMENT_ID.match(text)]
    return [number for number in numbers if number <= INT64_MAX]


def _in_experiments(experiment_ids: list[str]) -> ColumnElement[bool]:
    place = evaluation_dataset_experiments.alias()
    wanted = is_one_of(place.c.experiment_id, parse_existing(experiment_ids), BigInteger())
    return exists().where(place.c.dataset_id == evaluation_datasets.c.dataset_id, wanted)


def _holds(comparison: Comparison) -> ColumnElement[bool]:
    """The condition on a row of `evaluation_datasets`; a tag is looked up by its primary key."""
    if comparison.entity is Entity.TAG:
        tag = evaluation_dataset_tags.alias()
        has_tag = and_(tag.c.dataset_id == evaluation_datasets.c.dataset_id, tag.c.key == comparison.key)
        return exists().where(has_tag, text_matches(tag.c.value, comparison))
    if comparison.key in _TIMES:
        return number_matches(_TIMES[comparison.key], comparison)
    return text_matches(_TEXTS[comparison.key], comparison)


def _term(name: str, *, descending: bool) -> SortTerm:
    if name in _TIMES:
        return SortTerm(_TIMES[name], int, descending)
    return SortTerm(_TEXTS[name], str, descending)

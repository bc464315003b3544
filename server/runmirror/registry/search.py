"""registered-models/search and model-versions/search: MLflow's queries, each as one statement.

Prompts are registered models and versions too. They are found only by a search that asks for them by their tag
`mlflow.prompt.is_prompt`, and then nothing else is found; in every other search that tag is no condition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, and_, collate, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth.clauses import may_read_model
from runmirror.errors import InvalidParameter
from runmirror.registry.queries import DELETED
from runmirror.registry.rules import IS_PROMPT
from runmirror.registry.wire import SearchModels, SearchVersions
from runmirror.search import paging
from runmirror.search.clauses import number_matches, text_matches
from runmirror.search.paging import SortTerm
from runmirror.search.parser import parse_filter, parse_order_by
from runmirror.search.registry_language import MODEL_VERSIONS, REGISTERED_MODELS
from runmirror.search.tree import Comparison, Entity, Language, Operator
from runmirror.tables import model_version_tags, model_versions, registered_model_tags, registered_models

MAX_MODELS_PER_PAGE = 1000
MAX_VERSIONS_PER_PAGE = 200_000

_MODEL_ORDER = {
    "name": SortTerm(collate(registered_models.c.name, "C"), str),
    "last_updated_timestamp": SortTerm(registered_models.c.last_updated_time_ms, int),
}
_VERSION_ORDER = {
    "name": SortTerm(collate(registered_models.c.name, "C"), str),
    "version_number": SortTerm(model_versions.c.version, int),
    "creation_timestamp": SortTerm(model_versions.c.creation_time_ms, int),
    "last_updated_timestamp": SortTerm(model_versions.c.last_updated_time_ms, int),
}
_DEFAULT_VERSION_ORDER = ["last_updated_timestamp DESC"]
_A_PROMPT = Comparison(Entity.TAG, IS_PROMPT, Operator.EQUAL, "true")
_VERSION_TEXTS = {
    "name": registered_models.c.name,
    "run_id": model_versions.c.run_id,
    "source_path": model_versions.c.source,
}


async def search_models(connection: AsyncConnection, request: SearchModels) -> tuple[list[str], str | None]:
    """The names of one page of registered models, and a token if more follow.

    Raises `InvalidParameter` at a filter, order, token or page size that cannot be answered.
    """
    _check_page_size(request.max_results, MAX_MODELS_PER_PAGE)
    comparisons = parse_filter(request.filter, REGISTERED_MODELS)
    terms = _terms(request.order_by, REGISTERED_MODELS, _MODEL_ORDER)
    readable = may_read_model(registered_models.c.registered_model_id)
    query = select(registered_models.c.name).where(readable, *map(_model_holds, _conditions(comparisons)))
    if not _asks_for_prompts(comparisons):
        query = query.where(~_model_has_tag(_A_PROMPT))
    name = paging.fingerprint("registered models", comparisons, request.order_by)
    rows, more = await paging.fetch_page(
        connection, query, terms, name=name, max_results=request.max_results, page_token=request.page_token
    )
    return [row.name for row in rows], more


async def search_versions(
    connection: AsyncConnection, request: SearchVersions
) -> tuple[list[tuple[int, int]], str | None]:
    """The (registered_model_id, version) of one page of model versions, and a token if more follow; raises as above."""
    _check_page_size(request.max_results, MAX_VERSIONS_PER_PAGE)
    comparisons = parse_filter(request.filter, MODEL_VERSIONS)
    terms = _terms(request.order_by or _DEFAULT_VERSION_ORDER, MODEL_VERSIONS, _VERSION_ORDER)
    query = (
        select(model_versions.c.registered_model_id, model_versions.c.version)
        .join_from(model_versions, registered_models)
        .where(
            model_versions.c.current_stage != DELETED,
            may_read_model(model_versions.c.registered_model_id),
            *map(_version_holds, _conditions(comparisons)),
        )
    )
    if not _asks_for_prompts(comparisons):
        query = query.where(~_a_version_has_tag(_A_PROMPT))
    name = paging.fingerprint("model versions", comparisons, request.order_by)
    rows, more = await paging.fetch_page(
        connection, query, terms, name=name, max_results=request.max_results, page_token=request.page_token
    )
    return [(row.registered_model_id, row.version) for row in rows], more


def _check_page_size(max_results: int, limit: int) -> None:
    if not 1 <= max_results <= limit:
        raise InvalidParameter(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be a positive integer, at most "
            f"{limit}"
        )


def _asks_for_prompts(comparisons: Sequence[Comparison]) -> bool:
    """The first condition on the tag decides, as in MLflow."""
    for comparison in comparisons:
        if comparison.entity is Entity.TAG and comparison.key == IS_PROMPT:
            wanted = comparison.texts[0].lower()
            return (comparison.operator, wanted) in {(Operator.EQUAL, "true"), (Operator.UNEQUAL, "false")}
    return False


def _conditions(comparisons: Sequence[Comparison]) -> list[Comparison]:
    if _asks_for_prompts(comparisons):
        return list(comparisons)
    return [found for found in comparisons if found.entity is not Entity.TAG or found.key != IS_PROMPT]


def _model_holds(comparison: Comparison) -> ColumnElement[bool]:
    if comparison.entity is Entity.TAG:
        return _model_has_tag(comparison)
    return text_matches(registered_models.c.name, comparison)


def _version_holds(comparison: Comparison) -> ColumnElement[bool]:
    if comparison.entity is Entity.TAG:
        tag = model_version_tags.alias()
        of_this = and_(
            tag.c.registered_model_id == model_versions.c.registered_model_id,
            tag.c.version == model_versions.c.version,
            tag.c.key == comparison.key,
        )
        return exists().where(of_this, text_matches(tag.c.value, comparison))
    if comparison.key == "version_number":
        return number_matches(model_versions.c.version, comparison)
    return text_matches(_VERSION_TEXTS[comparison.key], comparison)


def _model_has_tag(comparison: Comparison) -> ColumnElement[bool]:
    tag = registered_model_tags.alias()
    of_this = and_(tag.c.registered_model_id == registered_models.c.registered_model_id, tag.c.key == comparison.key)
    return exists().where(of_this, text_matches(tag.c.value, comparison))


def _a_version_has_tag(comparison: Comparison) -> ColumnElement[bool]:
    """Whether any version of the same registered model has it, deleted ones counted: so MLflow tells prompts."""
    tag = model_version_tags.alias()
    of_this = and_(tag.c.registered_model_id == model_versions.c.registered_model_id, tag.c.key == comparison.key)
    return exists().where(of_this, text_matches(tag.c.value, comparison))


def _terms(order_by: Sequence[str], language: Language, known: Mapping[str, SortTerm]) -> list[SortTerm]:
    """What was asked for, then the name and, of versions, the newest first."""
    order = {key.key: key.descending for key in parse_order_by(order_by, language)}
    order.setdefault("name", False)
    if "version_number" in known:
        order.setdefault("version_number", True)
    return [replace(known[name], descending=descending) for name, descending in order.items()]

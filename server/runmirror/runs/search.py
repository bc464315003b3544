"""runs/search: MLflow's query over `runs` and what is logged to them, answered by Postgres alone."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.entities import LifecycleStage, ViewType
from runmirror.runs import search_ways
from runmirror.runs.search_ways import Asked
from runmirror.search import clauses, paging
from runmirror.search.languages import RUNS
from runmirror.search.parser import parse_filter, parse_order_by

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
    """One page of the runs of these experiments, in one statement or two (see `search_ways`).

    Raises `InvalidParameter` at a filter, order, token, id or page size that MLflow would not accept. Experiments
    that do not exist have no runs; no experiments at all have none either.
    """
    paging.check_max_results(max_results)
    comparisons = parse_filter(filter_string, RUNS)
    keys = parse_order_by(order_by, RUNS)
    experiments = sorted(set(clauses.parse_experiment_ids(experiment_ids)))
    name = paging.fingerprint("runs", experiments, run_view_type, comparisons, keys)
    last = tuple(paging.decode_token(page_token, name, search_ways.sort_terms(keys))) if page_token else None
    if not experiments:
        return SearchPage([])
    asked = Asked(tuple(experiments), _STAGES.get(run_view_type), comparisons, keys, last, max_results + 1)
    rows = await search_ways.fetch(connection, asked)
    page = rows[:max_results]
    more = paging.encode_token(name, page[-1][1:]) if len(rows) > max_results else None
    return SearchPage([row.run_id for row in page], more)

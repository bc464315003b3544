"""runs/search: MLflow's query over `runs` and what is logged to them, answered by Postgres alone."""

from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth import permits
from runmirror.entities import LifecycleStage, ViewType
from runmirror.runs import search_choice, search_ways
from runmirror.runs.search_ways import Asked
from runmirror.search import clauses, paging
from runmirror.search.languages import RUNS
from runmirror.search.paging import SortValue
from runmirror.search.parser import parse_filter, parse_order_by
from runmirror.search.tree import Comparison, SortKey

_LONGEST_REMEMBERED = 10_000  # characters of a search, of which fifty are: memory is no client's to fill
_STAGES = {ViewType.ACTIVE_ONLY: LifecycleStage.ACTIVE, ViewType.DELETED_ONLY: LifecycleStage.DELETED}


@dataclass(frozen=True, slots=True)
class SearchPage:
    """The runs in the order asked for, each with its version (see `search_ways`); a token if more follow."""

    versions: dict[UUID, str]
    next_page_token: str | None = None

    @property
    def run_ids(self) -> list[UUID]:
        return list(self.versions)


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for, whoever asks."""

    experiments: list[int]
    view: ViewType
    comparisons: tuple[Comparison, ...]
    keys: tuple[SortKey, ...]
    name: str  # see `paging.fingerprint`
    last: tuple[SortValue, ...] | None  # the sort values of the last row given out before
    max_results: int
    remember: bool  # a first page, and not too long: it may be asked for again


def understand(
    *,
    experiment_ids: list[str],
    filter_string: str,
    run_view_type: ViewType,
    max_results: int,
    order_by: list[str],
    page_token: str | None,
) -> Search:
    """Raises `InvalidParameter` at a filter, order, token, id or page size that MLflow would not accept.

    Raises `AzureExperimentNotFound` at an id of Azure ML's that is not known here yet.
    """
    paging.check_max_results(max_results)
    is_short = sum(map(len, (filter_string, *order_by, *experiment_ids))) <= _LONGEST_REMEMBERED
    parse = _parsed if is_short else _parsed.__wrapped__
    comparisons, keys = parse(filter_string, tuple(order_by))
    experiments = sorted(set(clauses.parse_experiment_ids(experiment_ids)))
    name = paging.fingerprint("runs", experiments, run_view_type, comparisons, keys)
    last = tuple(paging.decode_token(page_token, name, search_ways.sort_terms(keys))) if page_token else None
    return Search(experiments, run_view_type, comparisons, keys, name, last, max_results, is_short and last is None)


@lru_cache(maxsize=50)  # pages that show runs ask for the same again and again
def _parsed(filter_string: str, order_by: tuple[str, ...]) -> tuple[tuple[Comparison, ...], tuple[SortKey, ...]]:
    return parse_filter(filter_string, RUNS), parse_order_by(order_by, RUNS)


async def find(connection: AsyncConnection, search: Search) -> SearchPage:
    """One page of the runs of these experiments, in one statement or two (see `search_ways`).

    Experiments that do not exist, or may not be read, have no runs; no experiments at all have none either.
    """
    experiments = await permits.current().readable(connection, search.experiments)
    if not experiments:
        return SearchPage({})
    most = search.max_results
    asked = Asked(tuple(experiments), _STAGES.get(search.view), search.comparisons, search.keys, search.last, most + 1)
    rows = await search_choice.fetch(connection, asked, remember=search.remember)
    page = rows[:most]
    more = paging.encode_token(search.name, page[-1][2:]) if len(rows) > most else None
    return SearchPage({row.run_id: row.version for row in page}, more)

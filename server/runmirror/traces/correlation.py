"""How much two filters of traces agree: normalised pointwise mutual information, from -1 (never both) to 1 (always)."""

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.search.clauses import parse_experiment_ids
from runmirror.search.parser import parse_filter
from runmirror.traces.language import TRACES
from runmirror.traces.search import selects

_SMOOTHING = 0.5  # Jeffreys' prior: what one adds to each count, so that few traces do not say too much


async def correlate(
    connection: AsyncConnection, experiment_ids: Sequence[str], first: str, second: str, base: str
) -> dict[str, Any]:
    """Counts of the traces that `base` selects and each filter, and their NPMI where it is defined."""
    experiments = parse_experiment_ids(experiment_ids)
    one, other = (and_(*selects(experiments, parse_filter(text, TRACES))) for text in (first, second))
    counted = select(
        func.count().label("total"),
        func.count().filter(one).label("one"),
        func.count().filter(other).label("other"),
        func.count().filter(one, other).label("joint"),
    ).where(*selects(experiments, parse_filter(base, TRACES)))
    counts = (await connection.execute(counted)).one()
    answer: dict[str, Any] = {
        "filter1_count": counts.one,
        "filter2_count": counts.other,
        "joint_count": counts.joint,
        "total_count": counts.total,
    }
    if counts.one and counts.other:
        cells = (
            counts.joint,
            counts.one - counts.joint,
            counts.other - counts.joint,
            counts.total - counts.one - counts.other + counts.joint,
        )
        answer["npmi"] = npmi(*cells) if counts.joint else -1.0
        answer["npmi_smoothed"] = npmi(*cells, smoothing=_SMOOTHING)
    return answer


def npmi(both: float, only_one: float, only_other: float, neither: float, *, smoothing: float = 0.0) -> float:
    """From the four cells of a table; without smoothing, `both` is not 0."""
    if only_one == only_other == neither == 0:
        return 1.0
    total = both + only_one + only_other + neither + 4 * smoothing
    log_both, log_total = math.log(both + smoothing), math.log(total)
    apart = math.log(both + only_one + 2 * smoothing) + math.log(both + only_other + 2 * smoothing)
    return max(-1.0, min(1.0, (log_both + log_total - apart) / (log_total - log_both)))

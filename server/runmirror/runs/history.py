"""The history of one metric, in pages that new points neither shift nor repeat."""

import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Double, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.errors import InvalidParameter

Place = tuple[int, int, float]
"""Where a page ended: its last point, `(timestamp_ms, step, value)`."""


class Points(NamedTuple):
    """The columns of some points of one metric, all of one length."""

    timestamps_ms: Sequence[int]
    steps: Sequence[int]
    values: Sequence[float]


_RANK = "coalesce(nullif(value, 'NaN'), 0)"  # MLflow orders NaN as 0

# One row of three arrays: a row for each point would cost more than its content. The key of `metrics` is in this order
# but for NaN, so a page reads no more points than it holds. Of the chunks of points, only those are opened that begin
# before `far`: up to that time, the chunks that lie wholly ahead fill the page by themselves.
_AHEAD = f"(timestamp_ms, step, {_RANK}, value) > (:after_timestamp_ms, :after_step, :after_rank, :after_value)"
_ORDER = f"ORDER BY timestamp_ms, step, {_RANK}, value LIMIT :limit"
_OF_METRIC = """
    run_id = :run_id AND metric_id = (SELECT metric_id FROM latest_metrics WHERE run_id = :run_id AND key = :key)
"""
_PAGE = text(f"""
    WITH far AS MATERIALIZED (
        SELECT min(newest_ms) AS last FROM (
            SELECT newest_ms, sum(points) OVER (ORDER BY newest_ms) AS so_far FROM (
                SELECT newest_ms, points FROM metric_chunks
                WHERE {_OF_METRIC} AND newest_ms > :after_timestamp_ms AND oldest_ms > :after_timestamp_ms
                ORDER BY newest_ms LIMIT :limit) AS whole) AS summed
        WHERE so_far >= :limit),
    ahead AS (
        (SELECT timestamp_ms, step, value FROM metrics
         WHERE {_OF_METRIC} AND (timestamp_ms, step) >= (:after_timestamp_ms, :after_step) AND {_AHEAD} {_ORDER})
        UNION ALL
        SELECT p.timestamp_ms, p.step, p.value
        FROM metric_chunks, unnest(timestamp_ms_array, step_array, value_array) AS p (timestamp_ms, step, value)
        WHERE {_OF_METRIC} AND newest_ms >= :after_timestamp_ms
          AND oldest_ms <= coalesce((SELECT last FROM far), {2**63 - 1}) AND {_AHEAD})
    SELECT array_agg(timestamp_ms), array_agg(step), array_agg(value) FROM (SELECT * FROM ahead {_ORDER}) page
""").bindparams(
    bindparam("after_timestamp_ms", type_=BigInteger),
    bindparam("after_step", type_=BigInteger),
    bindparam("after_rank", type_=Double),
    bindparam("after_value", type_=Double),
    bindparam("limit", type_=BigInteger),
)
_BEFORE_ALL: Place = (-(2**63), -(2**63), -math.inf)


async def page(
    connection: AsyncConnection, run_id: UUID, key: str, *, max_results: int | None, page_token: str
) -> tuple[Points, str | None]:
    """Points by time, then step, then value; all of them when `max_results` is None.

    None for a run or a metric that does not exist, as in MLflow.

    Raises `InvalidParameter` for a bad page size or a token we did not give out.
    """
    if max_results is not None and max_results <= 0:
        raise InvalidParameter(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be a positive integer."
        )
    timestamp_ms, step, value = _read_token(page_token) if page_token else _BEFORE_ALL
    values = {
        "run_id": run_id, "key": key, "limit": None if max_results is None else max_results + 1,
        "after_timestamp_ms": timestamp_ms, "after_step": step,
        "after_rank": 0.0 if math.isnan(value) else value, "after_value": value,
    }  # fmt: skip
    found = Points(*(column or [] for column in (await connection.execute(_PAGE, values)).one()))
    if max_results is None or len(found.values) <= max_results:
        return found, None
    page = Points(found.timestamps_ms[:max_results], found.steps[:max_results], found.values[:max_results])
    return page, _token((page.timestamps_ms[-1], page.steps[-1], page.values[-1]))


def _token(last: Place) -> str:
    timestamp_ms, step, value = last
    return base64.urlsafe_b64encode(json.dumps([timestamp_ms, step, repr(value)]).encode()).decode()


def _read_token(token: str) -> Place:
    try:
        timestamp_ms, step, value = json.loads(base64.urlsafe_b64decode(token))
        place = int(timestamp_ms), int(step), float(value)
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidParameter(
            f"Invalid page token {token[:80]!r}: use the next_page_token of this listing."
        ) from error
    if max(abs(place[0]), abs(place[1])) >= 2**63:
        raise InvalidParameter(f"Invalid page token {token[:80]!r}: use the next_page_token of this listing.")
    return place

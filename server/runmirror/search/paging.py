"""Order, and pages that stay put: a token holds the sort values of the last row that was given out.

The next page is what sorts after those values, so rows that appear or vanish between two pages make it neither skip
nor repeat others. A row whose own sort value changes meanwhile may move to the other side of the token, as it does
in the order itself. In the default order nothing can: start times and ids never change, and a new run comes first.
"""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Double, Row, Select, Text, Uuid, and_, false, literal, or_, true
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from runmirror.errors import InvalidParameter
from runmirror.wire import INT64_MAX, RUN_ID

MAX_RESULTS = 50_000

SortValue = int | float | str | UUID | None
_STORED_AS: dict[type, type[TypeEngine[Any]]] = {int: BigInteger, float: Double, str: Text, UUID: Uuid}


@dataclass(frozen=True, slots=True)
class SortTerm:
    """One column of the order; `kind` is the Python type of its values.

    Text sorts by code point, NaN after all numbers and a missing value after everything, ascending or descending.
    """

    expression: ColumnElement[Any]
    kind: type
    descending: bool = False
    nullable: bool = False

    def clauses(self) -> list[ColumnElement[Any]]:
        ordered = self.expression.desc() if self.descending else self.expression.asc()
        if self.nullable:
            ordered = ordered.nulls_last()
        # Postgres sorts NaN above all numbers: right when ascending.
        first = [self.expression == self._literal(math.nan)] if self.kind is float and self.descending else []
        return [*first, ordered]

    def ties(self, last: SortValue) -> ColumnElement[bool]:
        return self.expression.is_(None) if last is None else self.expression == self._literal(last)

    def follows(self, last: SortValue) -> ColumnElement[bool]:
        """Whether a row sorts after the value `last` by this term alone."""
        if last is None:
            return false()
        ways: list[ColumnElement[bool]] = [self.expression.is_(None)] if self.nullable else []
        if self.descending and self.kind is float:
            nan = self._literal(math.nan)
            if not _is_nan(last):
                ways += [self.expression < self._literal(last), self.expression == nan]
        elif self.descending:
            ways.append(self.expression < self._literal(last))
        else:
            ways.append(self.expression > self._literal(last))
        return or_(false(), *ways)

    def bound(self, last: SortValue) -> ColumnElement[bool]:
        """What follows from `follows or ties` and can be a range of an index."""
        if self.nullable or self.kind is float:
            return true()
        value = self._literal(last)
        return self.expression <= value if self.descending else self.expression >= value

    def _literal(self, value: SortValue) -> ColumnElement[Any]:
        return literal(value, _STORED_AS[self.kind])


def follows(terms: Sequence[SortTerm], last: Sequence[SortValue]) -> ColumnElement[bool]:
    """Whether a row sorts after the row whose sort values were `last`."""
    clause: ColumnElement[bool] = false()
    for term, value in reversed(list(zip(terms, last, strict=True))):
        clause = or_(term.follows(value), and_(term.ties(value), clause))
    return and_(terms[0].bound(last[0]), clause)


def fingerprint(*asked: object) -> str:
    """What a page token is good for: the same query, however its text was spelled."""
    return hashlib.blake2b(repr(asked).encode(), digest_size=12).hexdigest()


async def fetch_page(
    connection: AsyncConnection,
    query: Select[Any],
    terms: Sequence[SortTerm],
    *,
    name: str,
    max_results: int,
    page_token: str,
) -> tuple[Sequence[Row[Any]], str | None]:
    """One page of a query, and the token of the next; the sort values stand behind the query's own columns."""
    own = len(query.selected_columns)
    query = query.add_columns(*(term.expression.label(f"by_{n}") for n, term in enumerate(terms)))
    if page_token:
        query = query.where(follows(terms, decode_token(page_token, name, terms)))
    query = query.order_by(*(clause for term in terms for clause in term.clauses())).limit(max_results + 1)
    rows = (await connection.execute(query)).all()
    page = rows[:max_results]
    return page, encode_token(name, page[-1][own:]) if len(rows) > max_results else None


def encode_token(query: str, last: Sequence[SortValue]) -> str:
    values = [value.hex if isinstance(value, UUID) else value for value in last]
    return base64.urlsafe_b64encode(json.dumps([query, *values]).encode()).decode()


def decode_token(token: str, query: str, terms: Sequence[SortTerm]) -> list[SortValue]:
    """The sort values of the last row given out. Raises `InvalidParameter` at a token that is not of this query."""
    try:
        found = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        raise InvalidParameter("Invalid page token, could not be decoded.") from None
    if not isinstance(found, list) or len(found) != len(terms) + 1 or found[0] != query:
        raise InvalidParameter(
            "Invalid page token: it belongs to another search. Repeat the search that gave it, with the same "
            "filter, order_by, view type and experiments."
        )
    return [_decode(value, term) for value, term in zip(found[1:], terms, strict=True)]


def check_max_results(max_results: int) -> None:
    if max_results < 1:
        raise InvalidParameter(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be a positive integer"
        )
    if max_results > MAX_RESULTS:
        raise InvalidParameter(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be at most {MAX_RESULTS}"
        )


def _decode(value: object, term: SortTerm) -> SortValue:
    if value is None and term.nullable:
        return None
    match value:
        case str() if term.kind is UUID and RUN_ID.fullmatch(value):
            return UUID(value)
        case str() if term.kind is str and "\0" not in value and _is_unicode(value):
            return value
        case int() if term.kind is int and not isinstance(value, bool) and abs(value) <= INT64_MAX:
            return value
        case float() if term.kind is float:
            return value
    raise InvalidParameter("Invalid page token, it was changed.")


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_nan(value: SortValue) -> bool:
    return isinstance(value, float) and math.isnan(value)

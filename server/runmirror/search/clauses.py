"""Comparisons → SQL over columns of any table, with MLflow's meaning of each operator."""

import math
import operator as python
import re
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Double,
    Text,
    Uuid,
    and_,
    any_,
    cast,
    collate,
    false,
    func,
    literal,
    true,
)
from sqlalchemy.sql.elements import SQLCoreOperations
from sqlalchemy.types import TypeEngine

from runmirror.errors import InvalidParameter
from runmirror.names import here, is_azure_experiment_id
from runmirror.run_ids import stored_id
from runmirror.search.tree import Comparison, Operator
from runmirror.wire import INT64_MAX

Column = SQLCoreOperations[Any]

_COMPARE: dict[Operator, Callable[[Any, Any], Any]] = {
    Operator.EQUAL: python.eq,
    Operator.UNEQUAL: python.ne,
    Operator.LESS: python.lt,
    Operator.AT_MOST: python.le,
    Operator.GREATER: python.gt,
    Operator.AT_LEAST: python.ge,
}
_LONGEST_PATTERN = 500
_BACKREFERENCE = re.compile(r"\\[1-9]|\(\?P=")
_LONGEST_ID = 40  # characters; 64 bits need 20


def text_matches(column: Column, comparison: Comparison) -> ColumnElement[bool]:
    """Text is compared byte by byte, ILIKE folds A to Z alone, and a backslash in a pattern is just a backslash.

    So says MLflow over SQLite, its default; a collation by name says it on every Postgres.
    """
    match comparison.operator:
        case Operator.LIKE:
            return column.like(literal(comparison.value, Text), escape="")
        case Operator.ILIKE:
            return collate(column, "C").ilike(literal(comparison.value, Text), escape="")
        case Operator.RLIKE:
            return _matches_pattern(column, comparison.texts[0])
        case Operator.IN | Operator.NOT_IN:
            return _listed(column, comparison.operator, comparison.texts, Text())
    return _compared(column, comparison.operator, literal(comparison.value, Text))


def number_matches(column: Column, comparison: Comparison) -> ColumnElement[bool]:
    """For a column of 64-bit whole numbers; what is no such number is compared as a double."""
    return _compared(column, comparison.operator, _number(comparison.number))


def metric_matches(column: Column, comparison: Comparison) -> ColumnElement[bool]:
    """NaN differs from every number and is neither above nor below it (Postgres sorts it above all)."""
    clause = _compared(column, comparison.operator, literal(float(comparison.number), Double))
    if comparison.operator in {Operator.GREATER, Operator.AT_LEAST}:
        return and_(clause, column < literal(math.nan, Double))
    return clause


def run_id_matches(column: Column, comparison: Comparison) -> ColumnElement[bool]:
    """For a column of UUIDs; clients know them as 32 hex digits, or by the names that Azure ML gave."""
    if comparison.operator in {Operator.LIKE, Operator.ILIKE}:
        return text_matches(func.replace(cast(column, Text), "-", ""), comparison)
    ids = [key for key in map(stored_id, comparison.texts) if key is not None]
    return _listed(column, comparison.operator, ids, Uuid())


def experiment_id_matches(column: Column, comparison: Comparison) -> ColumnElement[bool]:
    return _listed(column, comparison.operator, parse_experiment_ids(comparison.texts), BigInteger())


def is_one_of(column: Column, values: Sequence[Any], kind: TypeEngine[Any]) -> ColumnElement[bool]:
    """One parameter however many values; a single one is compared by `=`, so that an index may give the order."""
    if len(values) == 1:
        return _compared(column, Operator.EQUAL, literal(values[0], kind))
    return _compared(column, Operator.EQUAL, any_(literal(list(values), ARRAY(kind))))


def parse_experiment_ids(texts: Sequence[str]) -> list[int]:
    """The ids that can exist, as numbers. Raises `InvalidParameter` at one that is no number."""
    return [number for number in map(_parse_experiment_id, texts) if -INT64_MAX <= number <= INT64_MAX]


def _parse_experiment_id(text: str) -> int:
    if is_azure_experiment_id(text):
        return here(text)
    try:
        return int(text[: _LONGEST_ID + 1])
    except ValueError:
        shown = text[:_LONGEST_ID]
        raise InvalidParameter(f"Invalid experiment ID {shown!r}. Experiment ID must be a valid integer.") from None


def _listed(column: Column, operator: Operator, values: Sequence[Any], kind: TypeEngine[Any]) -> ColumnElement[bool]:
    """Of the values that can exist at all: without any, nothing is in the list and everything outside it."""
    wanted = operator in {Operator.EQUAL, Operator.IN}
    if not values:
        return false() if wanted else true()
    found = is_one_of(column, values, kind)
    return found if wanted else ~found


def _compared(column: Column, operator: Operator, value: ColumnElement[Any]) -> ColumnElement[bool]:
    clause: ColumnElement[bool] = _COMPARE[operator](column, value)
    return clause


def _matches_pattern(column: Column, pattern: str) -> ColumnElement[bool]:
    """A regular expression somewhere in the text, as Postgres reads it: in time that grows with the text alone."""
    if len(pattern) > _LONGEST_PATTERN or _BACKREFERENCE.search(pattern):
        raise InvalidParameter(
            f"Invalid regular expression: it may have {_LONGEST_PATTERN} characters and no back references."
        )
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidParameter(f"Invalid regular expression {pattern[:80]!r}: {error}.") from None
    return collate(column, "C").regexp_match(pattern)


def _number(value: float) -> ColumnElement[Any]:
    if isinstance(value, int) and -INT64_MAX <= value <= INT64_MAX:
        return literal(value, BigInteger)
    return literal(float(value), Double)

"""The filters of run history: OData-like comparisons, `or` inside parentheses, `and` between them."""

import operator
import re
from collections.abc import Callable
from typing import Any

from azureml_emulator.errors import InvalidParameter, Json

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
COMPARISON = re.compile(r"\(*\s*(?P<field>[^\s()]+)\s+(?P<op>eq|ne|gt|ge|lt|le)\s+(?P<value>.*?)\s*\)*", re.DOTALL)


def fits(text: str | None, written: Json) -> bool:
    """Say whether a run, as written for the wire, fits a filter."""
    if not text:
        return True
    return all(
        any(_holds(comparison, written) for comparison in re.split(r"\s+or\s+", part))
        for part in re.split(r"\s+and\s+", text)
    )


def _holds(comparison: str, written: Json) -> bool:
    match = COMPARISON.fullmatch(comparison.strip())
    if match is None:
        raise InvalidParameter(f"Invalid filter expression '{comparison}'")
    actual = _actual(match["field"], written)
    value = match["value"].strip("'\"")
    wanted = None if value == "null" else value
    if match["op"] in ("eq", "ne"):
        return OPERATORS[match["op"]](actual, wanted)
    return actual is not None and wanted is not None and OPERATORS[match["op"]](actual, wanted)


def _actual(field: str, written: Json) -> str | None:
    first, _, rest = field.partition("/")
    name = first[0].lower() + first[1:]
    if name not in written:
        raise InvalidParameter(f"Invalid filter field '{field}'")
    value = (written[name] or {}).get(rest) if rest else written[name]
    return None if value is None else str(value)

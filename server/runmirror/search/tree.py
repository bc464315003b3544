"""What a search asks for, once its text has been understood: frozen values, free of text and of SQL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum


class Entity(StrEnum):
    """What a comparison is about; the value is what MLflow calls it."""

    METRIC = "metric"
    PARAM = "parameter"
    TAG = "tag"
    ATTRIBUTE = "attribute"
    DATASET = "dataset"
    METADATA = "metadata"
    SPAN = "span"
    FEEDBACK = "feedback"
    EXPECTATION = "expectation"
    ISSUE = "issue"


class Operator(StrEnum):
    """How the stored value is compared; the value is the upper-case spelling in a filter."""

    EQUAL = "="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    LIKE = "LIKE"
    ILIKE = "ILIKE"
    RLIKE = "RLIKE"
    IN = "IN"
    NOT_IN = "NOT IN"
    IS_NULL = "IS NULL"
    IS_NOT_NULL = "IS NOT NULL"


class Kind(Enum):
    """What a value must look like in the text."""

    TEXT = "a text in quotes"
    NUMBER = "a number"
    WHOLE_NUMBER = "a whole number"
    QUOTABLE_NUMBER = "a whole number, in quotes or not"
    RANGED = "a number after <, <=, > and >=, else a text in quotes"


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that can be compared: `name` is ours for attributes and datasets, empty where any key will do."""

    kind: Kind
    operators: frozenset[Operator]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Language:
    """What one resource lets a search say."""

    entities: Mapping[str, Entity]  # by every spelling that may stand before the first dot
    quoted_entities: bool  # may that spelling stand in backticks?
    fields: Mapping[Entity, Field | Mapping[str, Field]]  # by spelling, where only certain keys exist
    order_fields: Mapping[str, str]  # attribute spelling → its field's name
    order_entities: frozenset[Entity]
    order_repeats: bool  # may an order_by name the same thing twice? (the second has no effect)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`key` is the metric's, param's or tag's key, or the name of an attribute or dataset field.

    `value` is a text, a number, the texts of a list (IN, NOT IN) or None (IS NULL, IS NOT NULL).
    """

    entity: Entity
    key: str
    operator: Operator
    value: str | int | float | tuple[str, ...] | None
    position: int = field(default=0, compare=False, repr=False)  # where in the text it begins, from 1

    @property
    def number(self) -> int | float:
        if not isinstance(self.value, int | float):
            raise TypeError(f"{self!r} compares no number")
        return self.value

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of a list, or the one text."""
        if isinstance(self.value, tuple):
            return self.value
        if not isinstance(self.value, str):
            raise TypeError(f"{self!r} compares no text")
        return (self.value,)


@dataclass(frozen=True, slots=True)
class SortKey:
    entity: Entity
    key: str
    descending: bool = False

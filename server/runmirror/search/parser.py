"""Filter and order_by text → tree, by recursive descent over tokens; time grows with the length of the text.

filter      = { comparison | "AND" }            (MLflow, too, lets an AND be missing or stand twice)
comparison  = identifier ( comparator value | [ "NOT" ] "IN" list | "IS" [ "NOT" ] "NULL" )
list        = "(" text { "," text } [ "," ] ")"
order_by    = identifier [ "ASC" | "DESC" ]
identifier  = [ entity "." ] key                (without blanks; key in backticks or quotes if it has any)
"""

import re
from collections.abc import Iterable, Sequence

from runmirror.errors import InvalidParameter
from runmirror.search.tokens import Token, TokenKind, refusal, tokenize
from runmirror.search.tree import Comparison, Entity, Field, Kind, Language, Operator, SortKey

MAX_FILTER_LENGTH = 100_000  # characters: the UI asks for runs by lists of their ids
MAX_COMPARISONS = 50
MAX_ORDER_BY = 16
_RANGES = {Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST}
_QUOTED_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")  # as Python reads it, within 64 bits
_LONGEST_WHOLE_NUMBER = 20  # characters: a longer one fits no 64 bits, and only its size matters


def parse_filter(text: str, language: Language) -> tuple[Comparison, ...]:
    """The comparisons that must all hold; none for the empty text. Raises `InvalidParameter`, saying what and where."""
    if not text:
        return ()
    if len(text) > MAX_FILTER_LENGTH:
        raise InvalidParameter(
            f"Invalid filter: it has {len(text)} characters, at most {MAX_FILTER_LENGTH} are accepted."
        )
    return _Reader(text, language, "filter").comparisons()


def parse_order_by(clauses: Sequence[str], language: Language) -> tuple[SortKey, ...]:
    """The keys to sort by, first things first. Raises `InvalidParameter`, saying what and where."""
    if len(clauses) > MAX_ORDER_BY:
        raise InvalidParameter(f"Invalid order_by: it has {len(clauses)} clauses, at most {MAX_ORDER_BY} are accepted.")
    keys: list[SortKey] = []
    for clause in clauses:
        if len(clause) > MAX_FILTER_LENGTH:
            raise InvalidParameter(
                f"Invalid order_by: a clause has {len(clause)} characters, at most {MAX_FILTER_LENGTH} are accepted."
            )
        key = _Reader(clause, language, "order_by").sort_key()
        if all((key.entity, key.key) != (other.entity, other.key) for other in keys):
            keys.append(key)
        elif not language.order_repeats:
            raise InvalidParameter(f"`order_by` contains duplicate fields: {clause!r} was there before.")
    return tuple(keys)


class _Reader:
    """A place in the tokens of one text."""

    def __init__(self, text: str, language: Language, what: str) -> None:
        self._text = text
        self._language = language
        self._what = what
        self._tokens = tokenize(text, what=what)
        self._at = 0

    def comparisons(self) -> tuple[Comparison, ...]:
        if self._peek().kind is TokenKind.END:
            raise self._refuse("it is blank")
        found: list[Comparison] = []
        while self._peek().kind is not TokenKind.END:
            if self._peek().is_word("AND"):
                self._take()
                continue
            if len(found) == MAX_COMPARISONS:
                raise self._refuse(f"at most {MAX_COMPARISONS} comparisons are accepted")
            found.append(self._comparison())
        return tuple(found)

    def sort_key(self) -> SortKey:
        if self._text != self._text.strip() or not self._text:
            raise self._refuse("a clause is a key and perhaps ASC or DESC, without blanks around it")
        entity, spelling, start = self._identifier()
        if entity not in self._language.order_entities:
            raise self._refuse(f"nothing can be ordered by a {entity}", start)
        key = spelling
        if entity is Entity.ATTRIBUTE:
            if spelling not in self._language.order_fields:
                raise self._unknown_key(entity, spelling, self._language.order_fields, start)
            key = self._language.order_fields[spelling]
        direction = self._take()
        descending = direction.is_word("DESC")
        if direction.kind is not TokenKind.END and not (descending or direction.is_word("ASC")):
            raise self._refuse("expected ASC, DESC or nothing after the key", direction)
        if direction.kind is not TokenKind.END and self._peek().kind is not TokenKind.END:
            raise self._refuse("nothing may follow ASC or DESC", self._peek())
        return SortKey(entity, key, descending)

    def _comparison(self) -> Comparison:
        entity, spelling, start = self._identifier()
        field = self._field(entity, spelling, start)
        spoken = self._peek()
        operator = self._operator()
        if operator not in field.operators:
            accepted = ", ".join(sorted(field.operators))
            raise self._refuse(
                f"invalid comparator; {entity} {_shown(field.name or spelling)} accepts {accepted}", spoken
            )
        value: str | int | float | tuple[str, ...] | None
        if operator in {Operator.IS_NULL, Operator.IS_NOT_NULL}:
            value = None
        elif operator in {Operator.IN, Operator.NOT_IN}:
            value = self._list()
        elif field.kind is Kind.TEXT or (field.kind is Kind.RANGED and operator not in _RANGES):
            value = self._quoted_text()
        elif field.kind is Kind.QUOTABLE_NUMBER and self._peek().quote in {"'", '"'}:
            value = self._quoted_number()
        else:
            value = self._number(field.kind)
        return Comparison(entity, field.name or spelling, operator, value, start.start + 1)

    def _identifier(self) -> tuple[Entity, str, Token]:
        """The entity, its key without quotes, and the token it begins with."""
        start = self._take()
        if start.kind is not TokenKind.WORD and start.quote not in {"`", '"'}:
            if start.text in {"(", ")"}:
                raise self._refuse("parentheses are not supported; comparisons are joined by AND", start)
            raise self._refuse("expected a key such as metrics.loss or status", start)
        if self._peek().text != "." or self._peek().start != start.end:
            if start.is_word("OR", "NOT"):
                raise self._refuse(f"{start.text.upper()} is not supported; comparisons are joined by AND", start)
            return Entity.ATTRIBUTE, start.unquoted if start.quote else start.text, start
        self._take()
        entity = self._entity(start)
        return entity, self._key(entity), start

    def _entity(self, token: Token) -> Entity:
        quoted = token.quote == "`" and self._language.quoted_entities
        spelling = token.unquoted if quoted else token.text
        if spelling not in self._language.entities:
            known = ", ".join(dict.fromkeys(self._language.entities.values()))
            raise self._refuse(f"invalid entity type; expected one of {known}", token)
        return self._language.entities[spelling]

    def _key(self, entity: Entity) -> str:
        """What follows the dot: one quoted key, or words (and more dots) that touch each other."""
        first = self._peek()
        parts: list[Token] = []
        end = self._tokens[self._at - 1].end
        while (token := self._peek()).start == end and (
            token.kind in {TokenKind.WORD, TokenKind.QUOTED} or token.text == "."
        ):
            if parts and token.text != "." and parts[-1].text != ".":
                break
            parts.append(self._take())
            end = token.end
        rest = self._peek()
        if rest.start == end and rest.kind is TokenKind.OTHER:
            raise self._refuse("a key with other characters than letters, digits, _ and . stands in backticks", rest)
        if not parts or (len(parts) == 1 and first.quote and not first.unquoted):
            raise self._refuse(f"the key of the {entity} is missing", first)
        if len(parts) == 1 and first.quote:
            return first.unquoted
        return self._text[first.start : end]

    def _field(self, entity: Entity, spelling: str, start: Token) -> Field:
        fields = self._language.fields[entity]
        if isinstance(fields, Field):
            return fields
        if spelling not in fields:
            raise self._unknown_key(entity, spelling, fields, start)
        return fields[spelling]

    def _operator(self) -> Operator | None:
        """The comparator that follows, or None where there is none that any field knows."""
        token = self._take()
        if token.kind is TokenKind.COMPARATOR and token.text in set(Operator):
            return Operator(token.text)
        if token.is_word("LIKE", "ILIKE", "RLIKE", "IN"):
            return Operator(token.text.upper())
        if token.is_word("NOT") and self._peek().is_word("IN"):
            self._take()
            return Operator.NOT_IN
        if token.is_word("IS"):
            negated = self._peek().is_word("NOT")
            if negated:
                self._take()
            if not self._peek().is_word("NULL"):
                raise self._refuse("expected NULL or NOT NULL after IS", self._peek())
            self._take()
            return Operator.IS_NOT_NULL if negated else Operator.IS_NULL
        return None

    def _quoted_text(self) -> str:
        token = self._take()
        if token.quote not in {"'", '"'}:
            raise self._refuse("expected a text in single or double quotes", token)
        return token.unquoted

    def _number(self, kind: Kind) -> int | float:
        token = self._take()
        if token.kind is not TokenKind.NUMBER:
            raise self._refuse("expected a number, without quotes", token)
        if token.text.lstrip("-").isdigit() and len(token.text) <= _LONGEST_WHOLE_NUMBER:
            return int(token.text)
        if kind in {Kind.WHOLE_NUMBER, Kind.QUOTABLE_NUMBER} and not token.text.lstrip("-").isdigit():
            raise self._refuse(f"expected {kind.value}", token)
        return float(token.text)

    def _quoted_number(self) -> int:
        token = self._take()
        if not _QUOTED_NUMBER.fullmatch(token.unquoted):
            raise self._refuse("expected a whole number", token)
        return int(token.unquoted)

    def _list(self) -> tuple[str, ...]:
        opening = self._take()
        if opening.text != "(":
            raise self._refuse("expected a list of texts in parentheses", opening)
        values: list[str] = []
        while self._peek().text != ")":
            values.append(self._quoted_text())
            separator = self._peek()
            if separator.text == ",":
                self._take()
            elif separator.text != ")":
                raise self._refuse("expected a comma or the end of the list", separator)
        if not values:
            raise self._refuse("the list is empty", opening)
        self._take()
        return tuple(dict.fromkeys(values))

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._tokens[self._at]
        if token.kind is not TokenKind.END:
            self._at += 1
        return token

    def _refuse(self, why: str, token: Token | None = None) -> InvalidParameter:
        token = token or self._tokens[0]
        return refusal(self._what, why, token.start, token.text)

    def _unknown_key(self, entity: Entity, key: str, known: Iterable[str], start: Token) -> InvalidParameter:
        names = ", ".join(sorted(known))
        return self._refuse(f"invalid {entity} key {_shown(key)}; valid keys are {names}", start)


def _shown(key: str) -> str:
    return repr(key if len(key) <= 80 else f"{key[:80]}…")

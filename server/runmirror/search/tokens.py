"""Text → tokens, in one pass: every character is looked at a bounded number of times."""

import re
from dataclasses import dataclass
from enum import Enum

from runmirror.errors import InvalidParameter


class TokenKind(Enum):
    WORD = "word"
    QUOTED = "quoted"  # '…', "…" or `…`, quotes included
    NUMBER = "number"
    COMPARATOR = "comparator"
    PUNCTUATION = "punctuation"  # . ( ) ,
    OTHER = "other"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    kind: TokenKind
    text: str
    start: int  # offset in the text

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def quote(self) -> str:
        return self.text[0] if self.kind is TokenKind.QUOTED else ""

    @property
    def unquoted(self) -> str:
        """The text between the quotes, as it stands: MLflow resolves neither doubled quotes nor backslashes."""
        return self.text[1:-1]

    def is_word(self, *words: str) -> bool:
        """Whether this is one of the (upper-case) words, in any case."""
        return self.kind is TokenKind.WORD and self.text.upper() in words


# Possessive quantifiers: what does not match fails at once, however long the digits.
_NUMBER = re.compile(r"-?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+(?![\w.])")
_WORD = re.compile(r"\w++")
_BLANK = re.compile(r"\s++")
_COMPARATOR = re.compile(r"[<>=!~]++")
_INSIDE_QUOTES = {quote: re.compile(rf"(?:{quote}{quote}|\\{quote}|[^{quote}])*+") for quote in "'\""}
_INSIDE_QUOTES["`"] = re.compile(r"(?:``|[^`])*+")
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")


def tokenize(text: str, *, what: str) -> list[Token]:
    """The tokens of `text`, without blanks, closed by one of kind END.

    Raises `InvalidParameter` (which calls the text `what`) at an unclosed quote and at a character that no stored
    text contains.
    """
    if bad := _NOT_STORABLE.search(text):
        raise refusal(what, "text must be valid Unicode without NUL characters", bad.start(), bad.group())
    found: list[Token] = []
    at = 0
    while at < len(text):
        if blank := _BLANK.match(text, at):
            at = blank.end()
            continue
        token = _next(text, at, found[-1] if found else None, what)
        found.append(token)
        at = token.end
    found.append(Token(TokenKind.END, "", len(text)))
    return found


def _next(text: str, at: int, previous: Token | None, what: str) -> Token:
    first = text[at]
    if first in _INSIDE_QUOTES:
        return Token(TokenKind.QUOTED, text[at : _closed(text, at, what)], at)
    if not _continues_a_key(previous, at) and (number := _NUMBER.match(text, at)):
        return Token(TokenKind.NUMBER, number.group(), at)
    if word := _WORD.match(text, at):
        return Token(TokenKind.WORD, word.group(), at)
    if comparator := _COMPARATOR.match(text, at):
        return Token(TokenKind.COMPARATOR, comparator.group(), at)
    return Token(TokenKind.PUNCTUATION if first in ".()," else TokenKind.OTHER, first, at)


def _continues_a_key(previous: Token | None, at: int) -> bool:
    """Whether what stands at `at` belongs to a key: the .5 of metrics.5 is no number."""
    if previous is None or previous.end != at:
        return False
    return previous.text == "." or previous.kind in {TokenKind.WORD, TokenKind.QUOTED}


def _closed(text: str, at: int, what: str) -> int:
    """Where the quoted text that opens at `at` has ended.

    A doubled quote or one behind a backslash does not close, unless nothing else does: 'C:\\' is closed.
    """
    quote = text[at]
    match = _INSIDE_QUOTES[quote].match(text, at + 1)
    end = len(text) if match is None else match.end()
    if end < len(text):
        return end + 1
    last = text.rfind(quote, at + 1)
    if last == -1:
        raise refusal(what, f"the quote {quote} is never closed", at, text[at:])
    return last + 1


def refusal(what: str, why: str, start: int, token: str) -> InvalidParameter:
    """The error that names what was wrong, where (counted from 1), and the token that stands there."""
    shown = token if len(token) <= 80 else f"{token[:80]}…"
    near = f"at position {start + 1}" + (f", near {shown!r}" if shown else ", where it ends")
    return InvalidParameter(f"Invalid {what}: {why} ({near}).")

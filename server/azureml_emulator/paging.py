"""Pages: a token is the place where the next page starts."""

import base64
from collections.abc import Sequence
from typing import TypeVar

from azureml_emulator.errors import InvalidParameter

T = TypeVar("T")


def page_of(found: Sequence[T], size: int, token: str | None) -> tuple[Sequence[T], str | None]:
    """Cut one page and name the next, if there is one."""
    if size < 1:
        raise InvalidParameter("'max_results' must be positive")
    start = 0
    if token:
        try:
            start = int(base64.urlsafe_b64decode(token.encode()))
        except ValueError:
            raise InvalidParameter("Invalid page token") from None
    end = start + size
    following = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(found) else None
    return found[start:end], following

"""Spans, for whoever does something worth one; without a place to send them to it costs one look-up."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runmirror.telemetry.tracing import Tracing

Tell = Callable[[str, str | int], None]
"""What one learns on the way: an attribute's name and value."""


def _to_nobody(_name: str, _value: str | int) -> None:
    pass


_NOTHING: AbstractContextManager[Tell] = nullcontext(_to_nobody)

# Of the process, or of the request that is being answered.
_current: ContextVar["Tracing | None"] = ContextVar("tracing", default=None)
set_tracing = _current.set
reset_tracing = _current.reset


def span(name: str, attributes: dict[str, Any], *, is_call: bool = False) -> AbstractContextManager[Tell]:
    """A span around a block; `is_call`: another server does the work."""
    tracing = _current.get()
    return _NOTHING if tracing is None else tracing.span(name, attributes, is_call=is_call)

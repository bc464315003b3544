"""How far an import is: a bar where somebody watches, else a line now and then."""

import sys
from time import monotonic
from typing import Any

import click

_EVERY_S = 5.0


class Progress:
    """One phase after the other, on standard error: standard output is for the report."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._phase = ""
        self._done = 0
        self._told_at = 0.0
        self._began_at = 0.0

    def phase(self, name: str, total: int | None = None) -> None:
        self.end()
        self._phase, self._done = name, 0
        self._told_at = self._began_at = monotonic()
        if sys.stderr.isatty() and not self._quiet:
            # Without a known number the bar shows what has been done, and moves.
            self._bar = click.progressbar(
                length=total or 0, label=f"{name:<18}", file=sys.stderr, show_pos=True, show_eta=total is not None
            )
            self._bar.render_progress()

    def advance(self, number: int) -> None:
        self._done += number
        if self._bar is not None:
            self._bar.update(number)
        elif not self._quiet and monotonic() - self._told_at >= _EVERY_S:
            self._told_at = monotonic()
            self._tell()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None
        elif self._phase and not self._quiet:
            self._tell()
        self._phase = ""

    def _tell(self) -> None:
        took = monotonic() - self._began_at
        rate = f", {self._done / took:,.0f} a second" if took > 1 and self._done else ""
        click.echo(f"{self._phase}: {self._done:,}{rate}", err=True)

"""What `runmirror verify` prints, and the code it ends with."""

import asyncio
import json
import sys
from collections import Counter
from types import TracebackType
from typing import Any, Self, TextIO

import click

from runmirror.artifacts.store import create_store
from runmirror.db import create_engine
from runmirror.mirror.target import TargetOutage
from runmirror.mirror.verify.session import (
    CouldNotCheckError,
    Judged,
    Selection,
    both_sides,
    exit_code,
    judged,
    without_surplus,
)
from runmirror.mirror.verify.verdicts import Outcome, Verdict
from runmirror.settings import Settings

COULD_NOT_CHECK = 2
_SILENT_S = 2.0
_SHOWN = 20


class Progress:
    """A bar on standard error, as soon as it has taken longer than one likes to wait without a word."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._bar: Any = None
        self._done = self._total = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._show_later(), name="progress")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def __call__(self, count: int, total: int) -> None:
        """So many runs more were looked at, of so many."""
        self._done, self._total = self._done + count, total
        if self._bar is not None:
            self._bar.update(count)

    async def _show_later(self) -> None:
        await asyncio.sleep(_SILENT_S)
        while self._bar is None:
            if self._total:
                bar = click.progressbar(length=self._total, label="verifying", file=self._out, show_pos=True)
                self._bar = bar.__enter__()
                self._bar.update(self._done)
            await asyncio.sleep(_SILENT_S)


async def verify_workspace(
    settings: Settings, database_url: str, selection: Selection, *,
    deep: bool, repair: bool, ignore_surplus: bool, as_json: bool,
) -> int:  # fmt: skip
    """Print every run that is not equal (as JSON: every run) and a summary; the exit code."""
    engine = create_engine(settings, database_url)
    store = create_store(settings)
    outcomes = Counter[Outcome]()
    repairing = 0
    last = selection.after
    code = None
    try:
        async with both_sides(settings, engine, store, deep=deep) as sides, Progress(sys.stderr) as progress:
            at_once = settings.mirror_concurrency
            pages = judged(sides, selection, at_once=at_once, repair=repair, progress=progress)
            async for page in pages:
                for verdict in page.verdicts:
                    counted = without_surplus(verdict) if ignore_surplus else verdict
                    outcomes[counted.outcome] += 1
                    _tell(counted, page, as_json=as_json)
                repairing += len(page.repairing)
                last = page.verdicts[-1].run_id
        code = exit_code(outcomes)
    except (CouldNotCheckError, TargetOutage) as error:
        click.echo(f"could not check: {error}", err=True)
    finally:
        if code is None and outcomes.total() and not selection.is_of_some:
            click.echo(f"go on from here with: --after {last.hex}", err=True)
        await store.close()
        await engine.dispose()
    _sum_up(outcomes, repairing, as_json=as_json)
    return COULD_NOT_CHECK if code is None else code


def _tell(verdict: Verdict, page: Judged, *, as_json: bool) -> None:
    is_repairing = verdict.run_id in page.repairing
    if as_json:
        click.echo(json.dumps(verdict.as_json() | {"repairing": is_repairing}))
        return
    if verdict.outcome is Outcome.EQUAL:
        return
    reason = f" ({verdict.reason})" if verdict.reason else ""
    click.echo(f"run {verdict.run_id.hex}: {verdict.outcome}{reason}")
    for difference in verdict.differences[:_SHOWN]:
        click.echo(f"  {difference}")
    if len(verdict.differences) > _SHOWN:
        click.echo(f"  … and {len(verdict.differences) - _SHOWN} more (--json has all)")
    if is_repairing:
        click.echo("  back in the queue: a worker sends what is missing")


def _sum_up(outcomes: Counter[Outcome], repairing: int, *, as_json: bool) -> None:
    counts = {outcome.value: outcomes[outcome] for outcome in Outcome} | {"repairing": repairing}
    if as_json:
        click.echo(json.dumps({"summary": counts}))
        return
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    click.echo(f"{outcomes.total()} runs verified{': ' + told if told else ''}")

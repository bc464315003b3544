"""Commands that take care of what is stored: what is erased, and what was done."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click

from runmirror.command_line.shared import (
    bring_up_to_date,
    check_run_ids,
    data_dir_option,
    database_option,
    open_database,
    read_settings,
    trust,
)


@click.command()
@click.option("--older-than", default="30d", show_default=True, help="only what was deleted so long ago: 30d, 1d12h …")
@click.option("--run", "run_ids", metavar="ID", multiple=True, callback=check_run_ids, help="this run; may be repeated")
@click.option("--experiment", "experiments", metavar="NAME_OR_ID", multiple=True, help="what was deleted of this one")
@click.option("--erase/--dry-run", default=False, help="erase, or only show what would be erased (default)")
@database_option
@data_dir_option
@click.option("--artifacts-destination", help="a folder, or wasbs://container@account.blob.core.windows.net/path")
def gc(*, older_than: str, run_ids: tuple[UUID, ...], experiments: tuple[str, ...], erase: bool, **flags: Any) -> None:
    """Erase runs, logged models and experiments that were deleted long enough ago, with their files.

    A run whose deletion a linked workspace has not heard of yet is kept, and so is what a registered model has its
    files from. What becomes of the copy in Azure was decided at the deletion: RUNMIRROR_MIRROR_ON_DELETE.
    """
    from runmirror.erasure.command import Wish, collect, parse_age

    settings = read_settings(flags)
    trust(settings)
    with open_database(settings) as url:
        bring_up_to_date(url)
        try:
            wish = Wish(parse_age(older_than), run_ids, experiments, dry_run=not erase)
            done = asyncio.run(collect(settings, url, wish, click.echo))
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    click.echo(
        f"{'erased' if erase else 'would be erased'}: {done.runs} runs, {done.models} logged models, "
        f"{done.experiments} experiments, {done.files} files; kept: {done.held_back}",
        err=True,
    )


@click.command()
@click.option("--since", type=click.DateTime(), help="only what happened then or later (UTC)")
@click.option("--action", help="only this: run.delete, workspace. …")
@click.option("--json", "as_json", is_flag=True, help="a JSON object a line")
@database_option
@data_dir_option
def audit(*, since: datetime | None, action: str | None, as_json: bool, **flags: Any) -> None:
    """Show who deleted, restored, erased or linked what, the oldest first."""
    from runmirror.audit.command import show

    settings = read_settings(flags)
    since = None if since is None else since.replace(tzinfo=UTC)
    with open_database(settings) as url:
        bring_up_to_date(url)
        asyncio.run(show(settings, url, since=since, action=action, as_json=as_json, tell=click.echo))

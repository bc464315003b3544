"""The command that brings what another tracking server has."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

import click

from runmirror.command_line.shared import (
    bring_up_to_date,
    data_dir_option,
    database_option,
    failing_with,
    open_database,
    read_settings,
    trust,
)


@click.command("import")
@click.argument("source", metavar="FROM")
@click.option("--experiments", multiple=True, metavar="NAME", help="only this experiment of it; may be repeated")
@click.option("--since", type=click.DateTime(), help="only runs and traces that started then or later (UTC)")
@click.option(
    "--without", multiple=True, type=click.Choice(["artifacts", "traces", "registry"]), help="leave these out"
)
@click.option("--artifacts-from", metavar="WHERE", help="folder or mlflow server that has the files of a database")
@click.option("--token", envvar="MLFLOW_TRACKING_TOKEN", help="for an mlflow server (MLFLOW_TRACKING_TOKEN)")
@click.option("--username", envvar="MLFLOW_TRACKING_USERNAME", help="for an mlflow server (MLFLOW_TRACKING_USERNAME)")
@click.option("--password", envvar="MLFLOW_TRACKING_PASSWORD", help="for an mlflow server (MLFLOW_TRACKING_PASSWORD)")
@click.option("--workers", type=click.IntRange(1, 32), default=4, show_default=True, help="how many at once")
@click.option("--mirror/--no-mirror", default=True, help="mirror what is imported into the linked workspace (default)")
@click.option("--again", is_flag=True, help="look at the files of what has not changed, too")
@click.option("--source-name", metavar="NAME", help="call the source so, if its address changes between calls")
@click.option("--dry-run", is_flag=True, help="only tell what would be brought")
@click.option("--verify/--no-verify", default=True, help="read both sides once more and compare them (default)")
@click.option("--verify-only", is_flag=True, help="only compare; nothing is written")
@click.option("--json", "as_json", is_flag=True, help="a JSON object a line: every problem, then the summary")
@database_option
@data_dir_option
@click.option("--artifacts-destination", help="a folder, or wasbs://container@account.blob.core.windows.net/path")
def import_command(
    source: str, *, experiments: tuple[str, ...], since: datetime | None, without: tuple[str, ...],
    artifacts_from: str | None, token: str | None, username: str | None, password: str | None, workers: int,
    mirror: bool, again: bool, source_name: str | None, dry_run: bool, verify: bool, verify_only: bool, as_json: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Bring what another tracking server has: an mlflow server (http://…), a folder of it (./mlruns, file:…), its
    database (sqlite:…, postgresql://…), or an Azure ML workspace (azureml://…).

    A call that broke off is completed by the next one, and a later one brings what has changed since; nothing is there
    twice. Ends with 0 if both sides agree, 1 if something was refused or differs, 2 if it could not be done.
    """
    from runmirror.importing.command import How, import_from
    from runmirror.importing.source import SourceError
    from runmirror.importing.sources import SignIn
    from runmirror.importing.task import UnknownExperiment, Wish

    since_ms = None if since is None else round(since.replace(tzinfo=UTC).timestamp() * 1000)
    wish = Wish(
        experiments, since_ms, artifacts="artifacts" not in without, registry="registry" not in without,
        traces="traces" not in without, workers=workers, mirror=mirror, again=again,
    )  # fmt: skip
    how = How(
        artifacts_from, source_name, SignIn(token, username, password), dry_run=dry_run, verify=verify,
        verify_only=verify_only, as_json=as_json,
    )  # fmt: skip
    with failing_with(2):
        settings = read_settings(flags)
        trust(settings)
        with open_database(settings) as url:
            bring_up_to_date(url)
            try:
                agrees = asyncio.run(import_from(settings, url, source, wish=wish, how=how, tell=click.echo))
            except (SourceError, UnknownExperiment) as error:
                raise click.ClickException(str(error)) from error
    sys.exit(0 if agrees else 1)

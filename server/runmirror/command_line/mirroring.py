"""Commands about the copy in the workspace: which one it is, how far it is, whether it is right."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click

from runmirror.command_line.shared import (
    bring_up_to_date,
    check_run_ids,
    data_dir_option,
    database_option,
    failing_with,
    open_database,
    read_settings,
    trust,
)


@click.command()
@click.argument("workspace")
@click.option("--name", help="add the workspace beside those that are linked, under this name")
@click.option("--experiments", multiple=True, metavar="PATTERN", help="experiments that go there, e.g. 'team-a/*'")
@click.option("--default/--no-default", "is_default", default=None, help="whether what fits no pattern goes there")
@database_option
@data_dir_option
def link(
    workspace: str, *, name: str | None, experiments: tuple[str, ...], is_default: bool | None, **flags: Any
) -> None:
    """Link an Azure ML workspace (ARM id, or the path of its config.json) and check that it can be written to.

    Without any of the three options it takes the place of the one that is linked; with one of them it is added.
    Everything logged so far is mirrored too. Credentials are found as azure-identity finds them: environment,
    workload identity, managed identity, Azure CLI.
    """
    from runmirror.mirror.link import Wish
    from runmirror.mirror.link_commands import LinkFailedError, link_workspace

    settings = read_settings({**flags, "azureml_workspace": workspace})
    wish = Wish(name, experiments or None, is_default)
    with open_database(settings) as url:
        bring_up_to_date(url)
        try:
            asyncio.run(link_workspace(settings, url, click.echo, wish))
        except LinkFailedError as error:
            raise click.ClickException(str(error)) from error


@click.command()
@click.argument("name")
@database_option
@data_dir_option
def unlink(name: str, **flags: Any) -> None:
    """Unlink a workspace by its name or ARM id: what stands there stays, its runs go where the routes lead now."""
    from runmirror.mirror.link_commands import LinkFailedError, unlink_workspace

    settings = read_settings(flags)
    with open_database(settings) as url:
        bring_up_to_date(url)
        try:
            gone = asyncio.run(unlink_workspace(settings, url, name))
        except LinkFailedError as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"unlinked {gone.name} ({gone.workspace_id})")


@click.command()
@database_option
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="for programs")
def links(*, as_json: bool, **flags: Any) -> None:
    """Show the linked workspaces, which runs go to each, and how far it is."""
    from runmirror.mirror.link_commands import describe_links, read_workspaces

    settings = read_settings(flags)
    with open_database(settings) as url:
        bring_up_to_date(url)
        linked = asyncio.run(read_workspaces(settings, url))
    told = json.dumps([one.model_dump(mode="json") for one in linked]) if as_json else describe_links(linked)
    click.echo(told or "no workspace is linked")


@click.command()
@click.option("--experiment", help="only the runs of this experiment (name or id)")
@click.option("--since", type=click.DateTime(), help="only runs that started then or later (UTC)")
@database_option
@data_dir_option
def backfill(*, experiment: str | None, since: datetime | None, **flags: Any) -> None:
    """Let runs that wait be mirrored behind live ones, at the pace of RUNMIRROR_MIRROR_BACKFILL_RATE.

    A run that is written again is a live one again. Linking a workspace does this with all there is.
    """
    from runmirror.mirror.link_commands import describe_links, put_behind, read_workspaces

    settings = read_settings(flags)
    since = None if since is None else since.replace(tzinfo=UTC)
    with open_database(settings) as url:
        bring_up_to_date(url)
        number = asyncio.run(put_behind(settings, url, experiment, since))
        linked = asyncio.run(read_workspaces(settings, url))
    click.echo(f"{number} waiting runs put behind live ones")
    click.echo(describe_links(linked))


@click.command()
@database_option
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="for programs")
def status(*, as_json: bool, **flags: Any) -> None:
    """Show the linked workspaces, what is behind, and why."""
    from runmirror.mirror.commands import describe, read_status
    from runmirror.mirror.link_commands import describe_links

    settings = read_settings(flags)
    with open_database(settings) as url:
        bring_up_to_date(url)
        current = asyncio.run(read_status(settings, url))
    if as_json:
        click.echo(json.dumps(current.model_dump(mode="json")))
        return
    click.echo(describe(current))
    if len(current.workspaces) > 1 or any(one.backfill_runs for one in current.workspaces):
        click.echo("\n" + describe_links(current.workspaces))


@click.command()
@click.option("--run", "run_ids", metavar="ID", multiple=True, callback=check_run_ids, help="this run; may be repeated")
@click.option("--experiment", metavar="NAME_OR_ID", help="the runs of this experiment")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="the N runs verified longest ago, or never")
@click.option(
    "--after", metavar="RUN_ID", callback=check_run_ids, help="go on behind this run, where an earlier call ended"
)
@click.option("--deep", is_flag=True, help="read every file whole, also where the workspace tells its hash")
@click.option("--repair", is_flag=True, help="put runs that lack something back into the queue")
@click.option("--ignore-surplus", is_flag=True, help="what stands only in the workspace is no difference")
@click.option("--json", "as_json", is_flag=True, help="a JSON object a line: every run, then the summary")
@database_option
@data_dir_option
@click.option("--artifacts-destination", help="a folder, or wasbs://container@account.blob.core.windows.net/path")
@click.option("--azureml-workspace", help="ARM id of the workspace to mirror into, or the path of its config.json")
def verify(
    *, run_ids: tuple[UUID, ...], experiment: str | None, sample: int | None, after: UUID | None,
    deep: bool, repair: bool, ignore_surplus: bool, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Read the copies in the workspace back and compare them with what was logged; all of them by default.

    Ends with 0 if all are equal, 1 if something differs, 2 if something could not be checked.
    """
    from runmirror.mirror.verify.command import verify_workspace
    from runmirror.mirror.verify.session import FIRST, Selection

    if sum((bool(run_ids), experiment is not None, sample is not None)) > 1:
        raise click.UsageError("--run, --experiment and --sample exclude each other")
    selection = Selection(run_ids, experiment, sample, after or FIRST)
    with failing_with(2):
        settings = read_settings(flags)
        trust(settings)
        with open_database(settings) as url:
            bring_up_to_date(url)
            check = verify_workspace(
                settings, url, selection, deep=deep, repair=repair, ignore_surplus=ignore_surplus, as_json=as_json
            )
            sys.exit(asyncio.run(check))


@click.command()
@click.option("--run", "run_ids", metavar="ID", multiple=True, callback=check_run_ids, help="this run; may be repeated")
@click.option("--experiment", "experiments", metavar="NAME_OR_ID", multiple=True, help="the runs of this experiment")
@click.option("--model", "models", metavar="NAME", multiple=True, help="this registered model; may be repeated")
@click.option("--all", "everything", is_flag=True, help="all quarantined runs and registered models in trouble")
@click.option("--dry-run", is_flag=True, help="only show which runs those are")
@click.option("--json", "as_json", is_flag=True, help="a JSON object a line")
@database_option
@data_dir_option
def replay(
    *, run_ids: tuple[UUID, ...], experiments: tuple[str, ...], models: tuple[str, ...], everything: bool,
    dry_run: bool, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Put quarantined runs and registered models back into the mirror's queue, once the cause is mended."""
    from runmirror.mirror.replay import replay_models, replay_runs

    if sum((bool(run_ids), bool(experiments), bool(models), everything)) != 1:
        raise click.UsageError("say which: --run, --experiment, --model or --all")
    settings = read_settings(flags)
    with open_database(settings) as url:
        bring_up_to_date(url)
        how: dict[str, Any] = {"dry_run": dry_run, "as_json": as_json, "tell": click.echo}
        told = []
        if not models:
            count = asyncio.run(replay_runs(settings, url, run_ids=run_ids, experiments=experiments, **how))
            told.append(f"{count} runs")
        if models or everything:
            replayed = asyncio.run(replay_models(settings, url, names=models, **how))
            told += [f"{replayed} registered models"] if models or replayed else []
    click.echo(f"{' and '.join(told)} {'would go' if dry_run else 'are'} back in the queue", err=True)

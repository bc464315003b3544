"""Commands that deploy model versions in a linked workspace."""

import asyncio
import json
import sys
from typing import Any

import click

from runmirror.command_line.shared import (
    bring_up_to_date,
    data_dir_option,
    database_option,
    open_database,
    read_settings,
    refusals,
)

_KINDS = ("aci", "aks", "online-endpoint")
_json_option = click.option("--json", "as_json", is_flag=True, help="for programs")


@click.group(invoke_without_command=True)
@click.option("--model", metavar="URI", help="models:/name/version, models:/name@alias or models:/name/latest")
@click.option("--to", "kind", type=click.Choice(_KINDS), help="container instance, AKS cluster or managed endpoint")
@click.option("--name", help="of the service: 3 to 32 lower-case letters, digits and dashes")
@click.option("--workspace", help="a linked one, by name or ARM id (default: where the model is mirrored to)")
@click.option("--cpu", type=click.FloatRange(0, 1000, min_open=True), help="cores (aci, aks)")
@click.option("--memory", "memory_gb", type=click.FloatRange(0, 100_000, min_open=True), help="gigabytes (aci, aks)")
@click.option("--instance-type", help="size of a machine, e.g. Standard_DS3_v2 (online-endpoint)")
@click.option("--instance-count", type=click.IntRange(1, 1000), help="machines, or replicas (online-endpoint, aks)")
@click.option("--aks-cluster", help="name of the workspace's AKS compute (aks)")
@click.option(
    "--auth", type=click.Choice(("key", "token", "entra", "none")), default="key", show_default=True,
    help="how its callers show who they are (aci: key, none; aks: key, token, none; online-endpoint: not none)",
)  # fmt: skip
@click.option("--replace", is_flag=True, help="take the place of the one that has the name")
@click.option("--wait", is_flag=True, help="look until it is done; exit code 1 if it failed")
@_json_option
@database_option
@data_dir_option
@click.pass_context
def deploy(
    context: click.Context, /, *, model: str | None, kind: str | None, name: str | None, workspace: str | None,
    replace: bool, wait: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Deploy a registered model's version as a web service in the linked workspace.

    A worker does the work: it waits until the workspace's model registry has the version, deploys it, and goes on where
    another one stopped. Without --wait this only asks for it.
    """
    flags = {each: options.pop(each) for each in ("database_url", "data_dir")}
    if context.invoked_subcommand is not None:
        return
    if model is None or kind is None or name is None:
        raise click.UsageError("say what and where: --model, --to and --name")
    from pydantic import ValidationError

    from runmirror.deployments import command
    from runmirror.deployments.wire import DeployRequest

    try:
        asked = DeployRequest.model_validate({"model": model, "to": kind, "name": name, **options})
    except ValidationError as error:
        problem = error.errors()[0]
        raise click.UsageError(f"{problem['loc'][-1]}: {problem['msg']}") from error
    settings = read_settings(flags)
    with open_database(settings) as url, refusals():
        bring_up_to_date(url)
        held = asyncio.run(
            command.deploy(
                settings, url, model=model, kind=asked.to, name=name, spec=asked.to_spec(), workspace=workspace,
                replace=replace, wait=wait, tell=_tell,
            )
        )  # fmt: skip
    _end(held, as_json=as_json)


@deploy.command("list")
@click.option("--ended", is_flag=True, help="also those that are deleted or replaced")
@_json_option
@database_option
@data_dir_option
def list_deployments(*, ended: bool, as_json: bool, **flags: Any) -> None:
    """Show deployments, the newest first."""
    from runmirror.deployments import command
    from runmirror.deployments.wire import DeploymentAnswer

    settings = read_settings(flags)
    with open_database(settings) as url:
        bring_up_to_date(url)
        found = asyncio.run(command.newest(settings, url, ended=ended))
    answers = [DeploymentAnswer.of(one).model_dump(mode="json") for one in found]
    click.echo(json.dumps(answers) if as_json else command.describe_all(found))


@deploy.command("show")
@click.argument("which")
@_json_option
@database_option
@data_dir_option
def show_deployment(which: str, *, as_json: bool, **flags: Any) -> None:
    """Show one deployment, by its name or id: its state, its address, what happened, why it failed."""
    from runmirror.deployments import command

    settings = read_settings(flags)
    with open_database(settings) as url, refusals():
        bring_up_to_date(url)
        held = asyncio.run(command.show(settings, url, which))
    _print(held, as_json=as_json)


@deploy.command("delete")
@click.argument("which")
@click.option("--wait", is_flag=True, help="look until nothing of it is left; exit code 1 if that failed")
@_json_option
@database_option
@data_dir_option
def delete_deployment(which: str, *, wait: bool, as_json: bool, **flags: Any) -> None:
    """Take a deployment away, by its name or id."""
    from runmirror.deployments import command

    settings = read_settings(flags)
    with open_database(settings) as url, refusals():
        bring_up_to_date(url)
        held = asyncio.run(command.delete(settings, url, which, wait=wait, tell=_tell))
    _end(held, as_json=as_json)


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _print(held: Any, *, as_json: bool) -> None:
    from runmirror.deployments import command
    from runmirror.deployments.wire import DeploymentAnswer

    answer = DeploymentAnswer.of(held).model_dump(mode="json")
    click.echo(json.dumps(answer) if as_json else command.describe(held))


def _end(held: Any, *, as_json: bool) -> None:
    from runmirror.deployments import command

    _print(held, as_json=as_json)
    if not command.is_good(held):
        sys.exit(1)

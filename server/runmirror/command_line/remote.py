"""Commands for the machines that log to the server."""

import click


@click.group("init-script")
def init_script() -> None:
    """Print a script that another system runs at its start, so that what it runs logs to this server."""


@init_script.command()
@click.option(
    "--tracking-uri", required=True, envvar="RUNMIRROR_TRACKING_URI", help="address of the server, as clusters reach it"
)
@click.option("--package", default="runmirror-client", show_default=True, help="what pip installs: a name or a wheel")
def databricks(tracking_uri: str, package: str) -> None:
    """For clusters of Azure Databricks: runmirror init-script databricks --tracking-uri https://… > init.sh"""
    from runmirror import init_scripts

    try:
        click.echo(init_scripts.databricks(tracking_uri, package), nl=False)
    except ValueError as error:
        raise click.UsageError(str(error)) from error

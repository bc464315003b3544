"""The command line: `runmirror serve | worker | migrate | link | status | demo`."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import uvicorn
from pydantic import ValidationError
from sqlalchemy import make_url

from runmirror import __version__
from runmirror.settings import Settings

_GRACE_S = 25  # what a request in flight gets at SIGTERM

database_option = click.option(
    "--backend-store-uri", "database_url", metavar="URL", help="postgresql://…; default: embedded in the data directory"
)
data_dir_option = click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="where data lives")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="runmirror")
def main() -> None:
    """MLflow-compatible tracking server that mirrors every run into your Azure ML workspace."""


@main.command()
@click.option("--host", help="address to listen on (default 127.0.0.1)")
@click.option("--port", type=int, help="port to listen on (default 5000)")
@click.option("--workers", type=int, help="API processes (default 1)")
@click.option("--static-prefix", help="path below which everything is served, e.g. /mlflow")
@database_option
@data_dir_option
@click.option("--artifacts-destination", help="a folder, or wasbs://container@account.blob.core.windows.net/path")
@click.option("--azureml-workspace", help="ARM id of the workspace to mirror into, or the path of its config.json")
@click.option("--mirror/--no-mirror", default=None, help="run the mirror worker too (default yes)")
@click.option("--insecure-no-auth", is_flag=True, default=None, help="listen beyond loopback without authentication")
def serve(**flags: Any) -> None:
    """Serve the tracking API, with the mirror worker beside it."""
    from runmirror.supervisor import worker_process
    from runmirror.webhooks.secrets import kept_key

    settings = read_settings(flags)
    _trust(settings)
    _end_in_order()
    with _database(settings) as url:
        _migrate(url)
        environment = settings_environment(flags, url)
        if settings.database_url is None and settings.webhook_secret_key is None:
            # The database is in the data directory, so what it holds can be encrypted with a key that is there too.
            environment["RUNMIRROR_WEBHOOK_SECRET_KEY"] = kept_key(settings.data_dir)
        os.environ.update(environment)  # uvicorn's processes and the worker read their settings from here
        click.echo(f"runmirror {__version__} on http://{settings.host}:{settings.port}", err=True)
        with worker_process(os.environ) if settings.mirror else contextlib.nullcontext():
            uvicorn.run(
                "runmirror.asgi:create",
                factory=True,
                host=settings.host,
                port=settings.port,
                workers=settings.workers,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=_GRACE_S,
                server_header=False,
            )


@main.command()
@database_option
@data_dir_option
@click.option("--artifacts-destination", help="a folder, or wasbs://container@account.blob.core.windows.net/path")
@click.option("--azureml-workspace", help="ARM id of the workspace to mirror into, or the path of its config.json")
def worker(**flags: Any) -> None:
    """Mirror runs into the linked workspace, apart from any server; run as many as you like."""
    settings = read_settings(flags)
    _trust(settings)
    from runmirror.mirror.worker import run_worker
    from runmirror.supervisor import stop_with_parent

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("azure", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    stop_with_parent()
    with _database(settings) as url:
        asyncio.run(run_worker(settings, url))


@main.command()
@database_option
@data_dir_option
def migrate(**flags: Any) -> None:
    """Bring the database to this version's schema."""
    from runmirror.migrate import head_revision

    with _database(read_settings(flags)) as url:
        _migrate(url)
        click.echo(f"database is at revision {head_revision()}")


@main.command()
@click.argument("workspace")
@database_option
@data_dir_option
def link(workspace: str, **flags: Any) -> None:
    """Link an Azure ML workspace (ARM id, or the path of its config.json) and check that it can be written to.

    Everything logged so far is mirrored too. Credentials are found as azure-identity finds them: environment,
    workload identity, managed identity, Azure CLI.
    """
    from runmirror.mirror.commands import LinkFailedError, link_workspace

    settings = read_settings({**flags, "azureml_workspace": workspace})
    with _database(settings) as url:
        _migrate(url)
        try:
            asyncio.run(link_workspace(settings, url, report=click.echo))
        except LinkFailedError as error:
            raise click.ClickException(str(error)) from error


@main.command()
@database_option
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="for programs")
def status(*, as_json: bool, **flags: Any) -> None:
    """Show the linked workspace, what is behind, and why."""
    from runmirror.mirror.commands import describe, read_status

    settings = read_settings(flags)
    with _database(settings) as url:
        _migrate(url)
        current = asyncio.run(read_status(settings, url))
    click.echo(json.dumps(current.model_dump(mode="json")) if as_json else describe(current))


@main.command()
@click.option("--once", is_flag=True, help="end after the comparison; exit code 1 if the two sides differ")
@click.option("--azure-sdk", is_flag=True, help="read the workspace back through the real azureml-core")
@click.option("--port", type=int, default=0, help="port of the demo server (default: a free one)")
def demo(*, once: bool, azure_sdk: bool, port: int) -> None:
    """Train a small model against runmirror and show that the workspace (an emulator) has all of it."""
    from runmirror.demo import run_demo

    sys.exit(run_demo(once=once, azure_sdk=azure_sdk, port=port))


def read_settings(flags: dict[str, Any]) -> Settings:
    """Settings from the environment, overridden by the flags that were given."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise click.ClickException("; ".join(_say(problem) for problem in error.errors())) from error


def _say(problem: Any) -> str:
    setting = "".join(f"{place}: " for place in problem["loc"][:1])
    return setting + str(problem["msg"]).removeprefix("Value error, ")


def settings_environment(flags: dict[str, Any], database_url: str) -> dict[str, str]:
    """The given flags as RUNMIRROR_* variables, for the processes that `serve` starts."""
    given = {**{name: value for name, value in flags.items() if value is not None}, "database_url": database_url}
    return {f"RUNMIRROR_{name.upper()}": str(value) for name, value in given.items()}


def _trust(settings: Settings) -> None:
    """One authority file for every client: aiohttp, below the blob client, knows only SSL_CERT_FILE.

    It reads it when it is imported, and a file handed to the blob client would be parsed anew for every request.
    """
    if settings.ca_bundle is not None:
        os.environ["SSL_CERT_FILE"] = settings.ca_bundle


def _end_in_order() -> None:
    """uvicorn raises the signal that stopped it once more; let it unwind us, so that what we started is stopped too."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[str]:
    if settings.database_url is not None:
        yield settings.database_url
        return
    from runmirror.embedded import embedded_postgres

    with embedded_postgres(settings.data_dir) as url:
        yield url


def _migrate(url: str) -> None:
    import asyncpg

    from runmirror.migrate import SchemaUnknown
    from runmirror.migrate import migrate as upgrade

    try:
        upgrade(url)
    except SchemaUnknown as error:
        raise click.ClickException(
            f"the database has a schema this version does not know ({error}): start the version that made it, or newer"
        ) from error
    except (OSError, asyncpg.CannotConnectNowError) as error:
        raise click.ClickException(f"cannot reach Postgres at {_shown(url)}: {error}") from error


def _shown(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)


if __name__ == "__main__":
    main()

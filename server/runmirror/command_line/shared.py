"""What the commands have in common: options, settings, the database, and how they end when something is wrong."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from pydantic import ValidationError
from sqlalchemy import make_url

from runmirror.settings import Settings

database_option = click.option(
    "--backend-store-uri", "database_url", metavar="URL", help="postgresql://…; default: embedded in the data directory"
)
data_dir_option = click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="where data lives")


def check_run_ids(_context: click.Context, _option: click.Parameter, value: Any) -> Any:
    """Ids of runs as they are shown: 32 hexadecimal digits."""
    if isinstance(value, tuple):
        return tuple(_run_id(each) for each in value)
    return None if value is None else _run_id(value)


def _run_id(value: str) -> UUID:
    if not re.fullmatch(r"[0-9a-f]{32}", value):
        raise click.BadParameter(f"{value!r} is not the id of a run")
    return UUID(value)


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


def trust(settings: Settings) -> None:
    """One authority file for every client: aiohttp, below the blob client, knows only SSL_CERT_FILE.

    It reads it when it is imported, and a file handed to the blob client would be parsed anew for every request.
    """
    if settings.ca_bundle is not None:
        os.environ["SSL_CERT_FILE"] = settings.ca_bundle


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What is refused is said in one line."""
    from runmirror.errors import RunmirrorError

    try:
        yield
    except RunmirrorError as error:
        raise click.ClickException(error.message) from error


@contextlib.contextmanager
def failing_with(code: int) -> Iterator[None]:
    """Whatever goes wrong ends with this code, where 1 says something else."""
    try:
        yield
    except click.ClickException as error:
        error.show()
        sys.exit(code)
    except Exception as error:
        logging.getLogger(__name__).debug("unexpected", exc_info=True)
        click.echo(f"Error: {type(error).__name__}: {error}", err=True)
        sys.exit(code)


@contextlib.contextmanager
def open_database(settings: Settings) -> Iterator[str]:
    if settings.database_url is not None:
        yield settings.database_url
        return
    from runmirror.embedded import embedded_postgres

    with embedded_postgres(settings.data_dir) as url:
        yield url


def bring_up_to_date(url: str) -> None:
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

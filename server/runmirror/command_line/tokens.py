"""Commands about who may call."""

import asyncio
import json
from datetime import timedelta
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


@click.group()
def token() -> None:
    """Tokens of users, for RUNMIRROR_AUTH=token."""


@token.command("create")
@click.argument("user")
@click.option("--name", default="", help="what it is for")
@click.option("--days", type=click.FloatRange(min=0, min_open=True, max=3660), help="for how long it can be used")
@click.option("--admin", is_flag=True, help="make the user an admin")
@click.option("--json", "as_json", is_flag=True, help="for programs")
@database_option
@data_dir_option
def create_token(user: str, *, name: str, days: float | None, admin: bool, as_json: bool, **flags: Any) -> None:
    """Make a token of USER, who is made too if there is no such user, and show it this once."""
    from runmirror.auth import commands

    settings = read_settings(flags)
    lifetime = None if days is None else timedelta(days=days)
    with open_database(settings) as url, refusals():
        bring_up_to_date(url)
        made = asyncio.run(commands.create_token(settings, url, user, name=name, lifetime=lifetime, is_admin=admin))
    click.echo(json.dumps(made.model_dump(mode="json")) if as_json else made.token)


@token.command("list")
@click.option("--user", help="only the tokens of this user")
@click.option("--json", "as_json", is_flag=True, help="for programs")
@database_option
@data_dir_option
def list_tokens(*, user: str | None, as_json: bool, **flags: Any) -> None:
    """Show tokens: whose they are and when they were last used, not the tokens themselves."""
    from runmirror.auth import commands

    settings = read_settings(flags)
    with open_database(settings) as url:
        bring_up_to_date(url)
        found = asyncio.run(commands.list_tokens(settings, url, user))
    shown = json.dumps([one.model_dump(mode="json") for one in found]) if as_json else commands.describe(found)
    click.echo(shown)


@token.command("revoke")
@click.argument("which")
@database_option
@data_dir_option
def revoke_token(which: str, **flags: Any) -> None:
    """Make a token useless at once, on all servers; name it by its id or by its prefix."""
    from runmirror.auth import commands

    settings = read_settings(flags)
    with open_database(settings) as url, refusals():
        bring_up_to_date(url)
        number = asyncio.run(commands.revoke_token(settings, url, which))
    click.echo(f"revoked token {number}")

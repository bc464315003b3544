"""The command line: `runmirror serve | worker | migrate | link | unlink | links | backfill | status | verify | …`."""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import uvicorn
from pydantic import ValidationError
from sqlalchemy import make_url

from runmirror import __version__, logs
from runmirror.settings import Settings

_GRACE_S = 25  # what a request in flight gets at SIGTERM

database_option = click.option(
    "--backend-store-uri", "database_url", metavar="URL", help="postgresql://…; default: embedded in the data directory"
)
data_dir_option = click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="where data lives")


def _run_ids(_context: click.Context, _option: click.Parameter, value: Any) -> Any:
    """Ids of runs as they are shown: 32 hexadecimal digits."""
    if isinstance(value, tuple):
        return tuple(_run_id(each) for each in value)
    return None if value is None else _run_id(value)


def _run_id(value: str) -> UUID:
    if not re.fullmatch(r"[0-9a-f]{32}", value):
        raise click.BadParameter(f"{value!r} is not the id of a run")
    return UUID(value)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="runmirror")
def main() -> None:
    """MLflow-compatible tracking server that mirrors every run into your Azure ML workspace."""


@main.command()
@click.option("--host", help="address to listen on (default 127.0.0.1)")
@click.option("--port", type=int, help="port to listen on (default 5000)")
@click.option("--workers", type=int, help="API processes (default 1)")
@click.option("--ssl-certfile", metavar="FILE", help="speak TLS with this certificate (PEM)")
@click.option("--ssl-keyfile", metavar="FILE", help="its key, if it is in a file of its own")
@click.option("--ssl-ca-certs", metavar="FILE", help="serve only clients with a certificate of these authorities")
@click.option("--static-prefix", help="path below which everything is served, e.g. /mlflow")
@click.option("--allowed-hosts", metavar="HOSTS", help="names the server is called by, with commas (default: private)")
@click.option("--cors-allowed-origins", metavar="ORIGINS", help="other origins whose pages may call, with commas")
@click.option("--x-frame-options", help="who may show the pages in a frame: SAMEORIGIN (default), DENY or NONE")
@click.option(
    "--expose-prometheus", metavar="FOLDER", help="where API processes share their counts (default: a temporary folder)"
)
@database_option
@data_dir_option
@click.option("--artifacts-destination", help="a folder, or wasbs://container@account.blob.core.windows.net/path")
@click.option("--azureml-workspace", help="ARM id of the workspace to mirror into, or the path of its config.json")
@click.option("--mirror/--no-mirror", default=None, help="run the mirror worker too (default yes)")
@click.option("--insecure-no-auth", is_flag=True, default=None, help="listen beyond loopback without authentication")
def serve(**flags: Any) -> None:
    """Serve the tracking API, with the mirror worker beside it."""
    from runmirror.door.origins import who_may_call
    from runmirror.metrics.shared import shared_counts
    from runmirror.supervisor import worker_process
    from runmirror.webhooks.secrets import kept_key

    settings = read_settings(flags)
    try:
        who_may_call(settings)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    logs.configure(settings.log_format, logging.WARNING)
    _trust(settings)
    _end_in_order()
    several = settings.workers > 1 and settings.metrics
    folder = shared_counts(settings.expose_prometheus) if several else contextlib.nullcontext(dict[str, str]())
    with folder as counts, _database(settings) as url:
        _migrate(url)
        environment = settings_environment(flags, url) | counts
        if settings.database_url is None and settings.webhook_secret_key is None:
            # The database is in the data directory, so what it holds can be encrypted with a key that is there too.
            environment["RUNMIRROR_WEBHOOK_SECRET_KEY"] = kept_key(settings.data_dir)
        os.environ.update(environment)  # uvicorn's processes and the worker read their settings from here
        scheme = "http" if settings.ssl_certfile is None else "https"
        click.echo(f"runmirror {__version__} on {scheme}://{settings.host}:{settings.port}", err=True)
        with worker_process(os.environ) if settings.mirror else contextlib.nullcontext():
            uvicorn.run(
                "runmirror.asgi:create",
                factory=True,
                host=settings.host,
                port=settings.port,
                workers=settings.workers,
                log_level="warning",
                log_config=None,  # its lines go where ours go
                access_log=False,
                timeout_graceful_shutdown=_GRACE_S,
                server_header=False,
                ws="none",
                ssl_certfile=settings.ssl_certfile,
                ssl_keyfile=settings.ssl_keyfile,
                ssl_ca_certs=None if settings.ssl_ca_certs is None else str(settings.ssl_ca_certs),
                ssl_cert_reqs=ssl.CERT_NONE if settings.ssl_ca_certs is None else ssl.CERT_REQUIRED,
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
    from runmirror.mirror.loop import fast_loop
    from runmirror.mirror.worker import run_worker
    from runmirror.supervisor import stop_with_parent

    logs.configure(settings.log_format, logging.INFO)
    stop_with_parent()
    with _database(settings) as url, asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(run_worker(settings, url))


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
    with _database(settings) as url:
        _migrate(url)
        try:
            asyncio.run(link_workspace(settings, url, click.echo, wish))
        except LinkFailedError as error:
            raise click.ClickException(str(error)) from error


@main.command()
@click.argument("name")
@database_option
@data_dir_option
def unlink(name: str, **flags: Any) -> None:
    """Unlink a workspace by its name or ARM id: what stands there stays, its runs go where the routes lead now."""
    from runmirror.mirror.link_commands import LinkFailedError, unlink_workspace

    settings = read_settings(flags)
    with _database(settings) as url:
        _migrate(url)
        try:
            gone = asyncio.run(unlink_workspace(settings, url, name))
        except LinkFailedError as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"unlinked {gone.name} ({gone.workspace_id})")


@main.command()
@database_option
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="for programs")
def links(*, as_json: bool, **flags: Any) -> None:
    """Show the linked workspaces, which runs go to each, and how far it is."""
    from runmirror.mirror.link_commands import describe_links, read_workspaces

    settings = read_settings(flags)
    with _database(settings) as url:
        _migrate(url)
        linked = asyncio.run(read_workspaces(settings, url))
    told = json.dumps([one.model_dump(mode="json") for one in linked]) if as_json else describe_links(linked)
    click.echo(told or "no workspace is linked")


@main.command()
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
    with _database(settings) as url:
        _migrate(url)
        number = asyncio.run(put_behind(settings, url, experiment, since))
        linked = asyncio.run(read_workspaces(settings, url))
    click.echo(f"{number} waiting runs put behind live ones")
    click.echo(describe_links(linked))


@main.command()
@database_option
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="for programs")
def status(*, as_json: bool, **flags: Any) -> None:
    """Show the linked workspaces, what is behind, and why."""
    from runmirror.mirror.commands import describe, read_status
    from runmirror.mirror.link_commands import describe_links

    settings = read_settings(flags)
    with _database(settings) as url:
        _migrate(url)
        current = asyncio.run(read_status(settings, url))
    if as_json:
        click.echo(json.dumps(current.model_dump(mode="json")))
        return
    click.echo(describe(current))
    if len(current.workspaces) > 1 or any(one.backfill_runs for one in current.workspaces):
        click.echo("\n" + describe_links(current.workspaces))


@main.command()
@click.option("--run", "run_ids", metavar="ID", multiple=True, callback=_run_ids, help="this run; may be repeated")
@click.option("--experiment", metavar="NAME_OR_ID", help="the runs of this experiment")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="the N runs verified longest ago, or never")
@click.option("--after", metavar="RUN_ID", callback=_run_ids, help="go on behind this run, where an earlier call ended")
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
    with _failing_with(2):
        settings = read_settings(flags)
        _trust(settings)
        with _database(settings) as url:
            _migrate(url)
            check = verify_workspace(
                settings, url, selection, deep=deep, repair=repair, ignore_surplus=ignore_surplus, as_json=as_json
            )
            sys.exit(asyncio.run(check))


@main.command()
@click.option("--run", "run_ids", metavar="ID", multiple=True, callback=_run_ids, help="this run; may be repeated")
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
    with _database(settings) as url:
        _migrate(url)
        how: dict[str, Any] = {"dry_run": dry_run, "as_json": as_json, "tell": click.echo}
        told = []
        if not models:
            count = asyncio.run(replay_runs(settings, url, run_ids=run_ids, experiments=experiments, **how))
            told.append(f"{count} runs")
        if models or everything:
            replayed = asyncio.run(replay_models(settings, url, names=models, **how))
            told += [f"{replayed} registered models"] if models or replayed else []
    click.echo(f"{' and '.join(told)} {'would go' if dry_run else 'are'} back in the queue", err=True)


@main.group()
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
    with _database(settings) as url, _refusals():
        _migrate(url)
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
    with _database(settings) as url:
        _migrate(url)
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
    with _database(settings) as url, _refusals():
        _migrate(url)
        number = asyncio.run(commands.revoke_token(settings, url, which))
    click.echo(f"revoked token {number}")


@main.command()
@click.option("--older-than", default="30d", show_default=True, help="only what was deleted so long ago: 30d, 1d12h …")
@click.option("--run", "run_ids", metavar="ID", multiple=True, callback=_run_ids, help="this run; may be repeated")
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
    _trust(settings)
    with _database(settings) as url:
        _migrate(url)
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


@main.command()
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
    with _database(settings) as url:
        _migrate(url)
        asyncio.run(show(settings, url, since=since, action=action, as_json=as_json, tell=click.echo))


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
def _refusals() -> Iterator[None]:
    """What is refused is said in one line."""
    from runmirror.errors import RunmirrorError

    try:
        yield
    except RunmirrorError as error:
        raise click.ClickException(error.message) from error


@contextlib.contextmanager
def _failing_with(code: int) -> Iterator[None]:
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

"""What `runmirror link`, `unlink`, `links` and `backfill` do, apart from the command line itself."""

from collections.abc import Callable
from datetime import datetime

from runmirror.db import create_engine
from runmirror.mirror import link, link_queries
from runmirror.mirror.commands import read_status
from runmirror.mirror.link import LinkRefused, Wish
from runmirror.mirror.link_queries import Link
from runmirror.mirror.target import TargetError
from runmirror.mirror.wire import WorkspaceAnswer
from runmirror.settings import Settings


class LinkFailedError(Exception):
    """The workspace could not be used, or the wish makes no sense; nothing was changed."""


async def link_workspace(
    settings: Settings, database_url: str, report: Callable[[str], None], wish: Wish | None = None
) -> None:
    """Prove that the workspace can be used and link it. Raises `LinkFailedError`."""
    if settings.azureml_workspace is None:
        raise LinkFailedError("no workspace was given")
    report(f"asking for a token and for {settings.azureml_workspace} ...")
    engine = create_engine(settings, database_url)
    try:
        linked = await link.link(engine, settings, settings.azureml_workspace, wish or Wish())
    except TargetError as error:
        raise LinkFailedError(f"{error} (nothing was changed; docs/azureml.md lists what is needed)") from error
    except LinkRefused as error:
        raise LinkFailedError(f"{error} (nothing was changed)") from error
    finally:
        await engine.dispose()
    report(f"linked {linked.workspace_id}")
    report(f"  as {linked.name!r}{', the default' if linked.is_default else ''}")
    report(f"  {linked.portal_base}")
    if linked.relinked:
        report("  another workspace was linked before: every run will be mirrored to this one")
    report(f"{linked.runs_behind} runs to mirror: `runmirror serve` or `runmirror worker` does it")


async def unlink_workspace(settings: Settings, database_url: str, name: str) -> Link:
    """Raises `LinkFailedError`."""
    engine = create_engine(settings, database_url)
    try:
        return await link.unlink(engine, name)
    except LinkRefused as error:
        raise LinkFailedError(f"{error} (nothing was changed)") from error
    finally:
        await engine.dispose()


async def read_workspaces(settings: Settings, database_url: str) -> list[WorkspaceAnswer]:
    return (await read_status(settings, database_url)).workspaces


async def put_behind(settings: Settings, database_url: str, experiment: str | None, since: datetime | None) -> int:
    """How many runs that wait are mirrored behind the live ones from now on."""
    engine = create_engine(settings, database_url)
    since_ms = None if since is None else round(since.timestamp() * 1000)
    try:
        async with engine.begin() as connection:
            return await link_queries.put_behind(connection, experiment=experiment, since_ms=since_ms)
    finally:
        await engine.dispose()


def describe_links(linked: list[WorkspaceAnswer]) -> str:
    """The workspaces for people, in the order of their routes."""
    return "\n".join("\n  ".join([link.name, *_lines(link)]) for link in linked)


def _lines(link: WorkspaceAnswer) -> list[str]:
    routes = [*link.experiments, *(["everything else"] if link.is_default else [])]
    lines = [
        link.workspace_id,
        f"takes         {', '.join(routes) or 'what names it by a tag'}",
        f"state         {link.state}{f': {link.last_error}' if link.last_error else ''}",
        f"runs behind   {link.runs_behind}, quarantined {link.runs_quarantined}",
    ]
    if link.backfill_runs:
        lines.append(f"the past      {link.backfill_runs} runs left, {_estimate(link.backfill_seconds)}")
    return lines


def _estimate(seconds: float | None) -> str:
    if seconds is None:
        return "paused (RUNMIRROR_MIRROR_BACKFILL_RATE is 0)"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min at least" if minutes else f"{rest} s at least"

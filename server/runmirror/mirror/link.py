"""Linking workspaces: the rows of `mirror_links`, by which every worker goes."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror import audit
from runmirror.mirror import link_queries
from runmirror.mirror.azureml import AzureMLTarget
from runmirror.mirror.azureml_http import AzureClient
from runmirror.mirror.azureml_workspace import Workspace, parse_tracking_uri, resolve, workspace_at
from runmirror.mirror.credentials import Tokens
from runmirror.mirror.link_queries import Link, read_links
from runmirror.settings import Settings

log = logging.getLogger(__name__)

_NAME = re.compile(r"[\w][\w.\-]{0,99}")


class LinkRefused(Exception):
    """What was asked of the links makes no sense; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What `runmirror link` was told about the link itself; None: not a word."""

    name: str | None = None
    experiments: tuple[str, ...] | None = None
    is_default: bool | None = None

    @property
    def is_silent(self) -> bool:
        return self == Wish()


@dataclass(frozen=True, slots=True)
class LinkReport:
    """What linking did. `relinked`: it took the place of another workspace, so all its runs are mirrored anew."""

    workspace_id: str
    tracking_uri: str
    portal_base: str
    relinked: bool
    runs_behind: int
    name: str = ""
    is_default: bool = True


async def read_link(connection: AsyncConnection) -> Link | None:
    """The default link, else the first."""
    linked = await read_links(connection)
    return next((link for link in linked if link.is_default), linked[0] if linked else None)


async def write_link(connection: AsyncConnection, link: Link, wish: Wish = Wish()) -> bool:
    """Link a workspace; True when it takes the place of another one.

    Without a wish there is one workspace: the only link is replaced. With one, the link is added, or changed if the
    workspace is linked already. Raises `LinkRefused`.
    """
    linked = await link_queries.begin_changes(connection)
    _check(linked, link, wish)
    same = _of_workspace(linked, link.workspace_id)
    if same is not None:
        await _update(connection, same, link, wish)
        return False
    replaced = linked[0] if wish.is_silent and linked else None
    if replaced is not None:
        await link_queries.remove(connection, replaced.link_id)
    is_default = (not linked or replaced is not None) if wish.is_default is None else wish.is_default
    made = replace(link, name=wish.name or link.own_name, experiments=wish.experiments or (), is_default=is_default)
    await link_queries.add(connection, made)
    return replaced is not None


def _check(linked: Sequence[Link], link: Link, wish: Wish) -> None:
    if wish.name is not None and not _NAME.fullmatch(wish.name):
        raise LinkRefused(f"{wish.name!r} is not a name of letters, digits, dots, dashes and underscores")
    if any(not pattern for pattern in wish.experiments or ()):
        raise LinkRefused("a pattern of experiment names is empty")
    if _of_workspace(linked, link.workspace_id) is None:
        if wish.is_silent and len(linked) > 1:
            raise LinkRefused(
                f"{len(linked)} workspaces are linked: say --name to add this one, or unlink one of them first"
            )
        replaced = linked[:1] if wish.is_silent else ()
        others = [other for other in linked if other not in replaced]
    else:
        others = [other for other in linked if other.workspace_id.lower() != link.workspace_id.lower()]
    name = wish.name or (link.own_name if _of_workspace(linked, link.workspace_id) is None else None)
    if name is not None and (taken := next((o for o in others if o.name.lower() == name.lower()), None)):
        raise LinkRefused(f"the name {name!r} belongs to {taken.workspace_id}: say another --name, or unlink it first")


async def _update(connection: AsyncConnection, same: Link, link: Link, wish: Wish) -> None:
    """The workspace is linked already: take over what is said of it and what is known of its addresses."""
    if link.tracking_uri is not None:
        await link_queries.save_resolution(connection, replace(link, link_id=same.link_id))
    wished = replace(
        same,
        name=same.name if wish.name is None else wish.name,
        experiments=same.experiments if wish.experiments is None else wish.experiments,
        is_default=same.is_default if wish.is_default is None else wish.is_default,
    )
    if wished != same:
        await link_queries.change(connection, wished)


def _of_workspace(linked: Sequence[Link], workspace_id: str) -> Link | None:
    return next((link for link in linked if link.workspace_id.lower() == workspace_id.lower()), None)


async def unlink(engine: AsyncEngine, name: str) -> Link:
    """Unlink the workspace of that name or ARM id. Raises `LinkRefused`."""
    async with engine.begin() as connection:
        linked = await link_queries.begin_changes(connection)
        found = [link for link in linked if name.lower() in {link.name.lower(), link.workspace_id.lower()}]
        if not found:
            known = ", ".join(link.name for link in linked) or "none"
            raise LinkRefused(f"no workspace is linked as {name!r}; linked: {known}")
        await link_queries.remove(connection, found[0].link_id)
        await audit.record(connection, "workspace.unlink", found[0].workspace_id)
    return found[0]


def link_of_settings(settings: Settings) -> Link | None:
    """The workspace that the settings name. Raises `ValueError` when they contradict themselves."""
    if settings.azureml_tracking_uri is None:
        return None if settings.azureml_workspace is None else Link(settings.azureml_workspace)
    _, workspace_id = parse_tracking_uri(settings.azureml_tracking_uri)
    named = settings.azureml_workspace
    if named is not None and named.lower() != workspace_id.lower():
        raise ValueError("RUNMIRROR_AZUREML_WORKSPACE and RUNMIRROR_AZUREML_TRACKING_URI name different workspaces")
    return Link(workspace_id, settings.azureml_tracking_uri)


async def adopt_settings(connection: AsyncConnection, settings: Settings) -> None:
    """Make what the settings name the default link, if they name one; what is known of it already is kept.

    Another default link is replaced: with one workspace that is all there is to it, of several the others stay.
    """
    wanted = link_of_settings(settings)
    if wanted is None:
        return
    linked = await link_queries.begin_changes(connection)
    same = _of_workspace(linked, wanted.workspace_id)
    default = next((link for link in linked if link.is_default), linked[0] if len(linked) == 1 else None)
    if same is not None:
        known = same if wanted.tracking_uri is None or same.tracking_uri is not None else wanted
        await _update(connection, same, known, Wish(is_default=True))
        return
    if default is not None:
        log.warning("another workspace is linked: %s takes the place of %s", wanted.workspace_id, default.workspace_id)
        await link_queries.remove(connection, default.link_id)
    taken = {link.name.lower() for link in linked if link is not default}
    name = wanted.own_name if wanted.own_name.lower() not in taken else wanted.workspace_id
    await link_queries.add(connection, replace(wanted, name=name))


async def open_target(settings: Settings, link: Link) -> tuple[AzureMLTarget, Link]:
    """The linked workspace, and the link with its addresses. Raises `TargetOutage`."""
    tokens = Tokens(settings)
    client = AzureClient(settings, tokens)
    try:
        workspace = await _workspace(client, tokens, settings, link)
    except BaseException:
        await client.close()
        raise
    known = replace(link, tracking_uri=workspace.tracking_uri, portal_base=workspace.portal_base)
    return AzureMLTarget(client, workspace, settings), known


async def _workspace(client: AzureClient, tokens: Tokens, settings: Settings, link: Link) -> Workspace:
    if link.tracking_uri is None:
        return await resolve(client, tokens, settings, link.workspace_id)
    host, _ = parse_tracking_uri(link.tracking_uri)
    if link.portal_base is not None:
        return Workspace(link.workspace_id, f"https://{host}", link.portal_base)
    return workspace_at(host, link.workspace_id, await tokens.tenant_id())


async def link(
    engine: AsyncEngine, settings: Settings, workspace_id: str, wish: Wish = Wish()
) -> LinkReport:  # fmt: skip
    """Link a workspace after proving that it can be used.

    Raises `TargetError` or `LinkRefused`, and then nothing has changed.
    """
    wanted = Link(workspace_id)
    if (uri := settings.azureml_tracking_uri) and parse_tracking_uri(uri)[1].lower() == workspace_id.lower():
        wanted = Link(workspace_id, uri)
    async with engine.connect() as connection:
        _check(await read_links(connection), wanted, wish)  # before Azure is asked
    target, known = await open_target(settings, wanted)
    try:
        await target.probe()
    finally:
        await target.close()
    async with engine.begin() as connection:
        relinked = await write_link(connection, known, wish)
        await audit.record(connection, "workspace.link", workspace_id)
        made = _of_workspace(await read_links(connection), workspace_id) or known
        behind = await link_queries.count_behind(connection)
    return LinkReport(
        workspace_id, known.tracking_uri or "", known.portal_base or "", relinked, behind, made.name, made.is_default
    )

"""Which workspace is linked: one row, by which every worker goes."""

import logging
from dataclasses import dataclass, replace

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.mirror.azureml import AzureMLTarget
from runmirror.mirror.azureml_http import AzureClient
from runmirror.mirror.azureml_workspace import Workspace, parse_tracking_uri, resolve, workspace_at
from runmirror.mirror.credentials import Tokens
from runmirror.mirror.queue import CHANNEL, PORTAL_TAG, REMOTE_RUN_TAG, STATUS_TAG
from runmirror.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Link:
    """`tracking_uri` and `portal_base` once they are known: with them Resource Manager is not asked again."""

    workspace_id: str
    tracking_uri: str | None = None
    portal_base: str | None = None


@dataclass(frozen=True, slots=True)
class LinkReport:
    """What linking did. `relinked`: another workspace was linked before, so all runs are mirrored anew."""

    workspace_id: str
    tracking_uri: str
    portal_base: str
    relinked: bool
    runs_behind: int


_READ = text("SELECT workspace_id, tracking_uri, portal_base FROM mirror_links WHERE link_id = 1")

_LOCK = text("SELECT workspace_id FROM mirror_links WHERE link_id = 1 FOR UPDATE")

_WRITE = text("""
    INSERT INTO mirror_links AS link (link_id, workspace_id, tracking_uri, portal_base)
    VALUES (1, :workspace_id, :tracking_uri, :portal_base)
    ON CONFLICT (link_id) DO UPDATE SET
        workspace_id = excluded.workspace_id, tracking_uri = excluded.tracking_uri, portal_base = excluded.portal_base,
        linked_at = CASE WHEN :is_other THEN now() ELSE link.linked_at END, last_error = NULL, last_error_at = NULL,
        last_contact_at = CASE WHEN :is_other THEN NULL ELSE link.last_contact_at END
""")

_RESOLVED = text("""
    UPDATE mirror_links SET tracking_uri = :tracking_uri, portal_base = :portal_base
    WHERE link_id = 1 AND workspace_id = :workspace_id
""")

# Leases go too: who works for the old workspace is fenced off.
_RESET_MIRRORS = text("""
    UPDATE mirrors SET
        state = 'due', due_at = now(), behind_since = COALESCE(behind_since, now()), watermark = 0, info_watermark = 0,
        sent_upto = 0, attempt = 0, lease_token = NULL, lease_expires_at = NULL, remote_experiment_id = NULL,
        remote_run_id = NULL, portal_url = NULL, last_error = NULL, last_error_at = NULL, mirrored_at = NULL,
        partial = false, waiting = false, overflow_seq = 0, overflow_told = 0, overflow_at = NULL, points = '{}',
        points_upto = 0
""")
_FORGET_OVERFLOWS = text("DELETE FROM mirror_overflows")
_FORGET_LIMITS = text("DELETE FROM mirror_limits")
_RESET_MODELS = text("""
    UPDATE mirrored_models SET
        state = 'due', due_at = now(), behind_since = COALESCE(behind_since, now()), watermark = 0, attempt = 0,
        waits_run_id = NULL, waits_seq = NULL, lease_token = NULL, lease_expires_at = NULL, remote_name = NULL,
        told = '{}', problems = '[]', last_error = NULL, last_error_at = NULL, mirrored_at = NULL
""")
_RESET_VERSIONS = text("DELETE FROM mirrored_versions")
_RESET_STATUS = text("UPDATE tags SET value = 'pending' WHERE seq = 0 AND key = :key")
_RESET_TAGS = text("DELETE FROM tags WHERE seq = 0 AND key = ANY(:keys)")
_RESET_EXPERIMENTS = text("DELETE FROM mirrored_experiments")
_COUNT_BEHIND = text("SELECT count(*) FROM mirrors WHERE behind_since IS NOT NULL")
_NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', '')")


async def read_link(connection: AsyncConnection) -> Link | None:
    """The linked workspace."""
    row = (await connection.execute(_READ)).one_or_none()
    return None if row is None else Link(*row)


async def write_link(connection: AsyncConnection, link: Link) -> bool:
    """Link a workspace; when it is another one than before, all runs are due again. True then."""
    before = await connection.scalar(_LOCK)
    is_other = before is not None and before.lower() != link.workspace_id.lower()
    await connection.execute(
        _WRITE,
        {
            "workspace_id": link.workspace_id,
            "tracking_uri": link.tracking_uri,
            "portal_base": link.portal_base,
            "is_other": is_other,
        },
    )
    if is_other:
        await connection.execute(_RESET_MIRRORS)
        await connection.execute(_FORGET_OVERFLOWS)
        await connection.execute(_FORGET_LIMITS)
        await connection.execute(_RESET_MODELS)
        await connection.execute(_RESET_VERSIONS)
        await connection.execute(_RESET_STATUS, {"key": STATUS_TAG})
        await connection.execute(_RESET_TAGS, {"keys": [REMOTE_RUN_TAG, PORTAL_TAG]})
        await connection.execute(_RESET_EXPERIMENTS)
    await connection.execute(_NOTIFY)
    return is_other


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
    """Link what the settings name, if they name one; what is known of that workspace already is kept."""
    wanted = link_of_settings(settings)
    linked = await read_link(connection)
    if wanted is None:
        return
    same = linked is not None and linked.workspace_id.lower() == wanted.workspace_id.lower()
    is_complete = wanted.tracking_uri is None or (linked is not None and linked.tracking_uri is not None)
    if not (same and is_complete) and await write_link(connection, wanted):
        log.warning("another workspace is linked: all runs will be mirrored to %s", wanted.workspace_id)


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


async def save_resolution(connection: AsyncConnection, link: Link) -> None:
    """Keep the addresses of the linked workspace."""
    await connection.execute(
        _RESOLVED,
        {"workspace_id": link.workspace_id, "tracking_uri": link.tracking_uri, "portal_base": link.portal_base},
    )


async def link(engine: AsyncEngine, settings: Settings, workspace_id: str) -> LinkReport:
    """Link a workspace after proving that it can be used. Raises `TargetError`, and then nothing has changed."""
    wanted = Link(workspace_id)
    if (named := link_of_settings(settings)) is not None and named.workspace_id.lower() == workspace_id.lower():
        wanted = named
    target, known = await open_target(settings, wanted)
    try:
        await target.probe()
    finally:
        await target.close()
    async with engine.begin() as connection:
        relinked = await write_link(connection, known)
        behind = await connection.scalar(_COUNT_BEHIND)
    return LinkReport(workspace_id, known.tracking_uri or "", known.portal_base or "", relinked, int(behind or 0))

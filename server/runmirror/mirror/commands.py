"""What `runmirror link` and `runmirror status` do, apart from the command line itself."""

from collections.abc import Callable

from runmirror.db import create_engine
from runmirror.mirror import link, status
from runmirror.mirror.model_wire import ModelMirrorAnswer
from runmirror.mirror.target import TargetError
from runmirror.mirror.wire import MirrorStatusAnswer
from runmirror.settings import Settings


class LinkFailedError(Exception):
    """The workspace could not be used; nothing was changed."""


async def link_workspace(settings: Settings, database_url: str, report: Callable[[str], None]) -> None:
    """Prove that the workspace can be used and make it the linked one. Raises `LinkFailedError`."""
    if settings.azureml_workspace is None:
        raise LinkFailedError("no workspace was given")
    report(f"asking for a token and for {settings.azureml_workspace} ...")
    engine = create_engine(settings, database_url)
    try:
        linked = await link.link(engine, settings, settings.azureml_workspace)
    except TargetError as error:
        raise LinkFailedError(
            f"{error} (nothing was changed; README, 'Link a workspace', lists what is needed)"
        ) from error
    finally:
        await engine.dispose()
    report(f"linked {linked.workspace_id}")
    report(f"  {linked.portal_base}")
    if linked.relinked:
        report("  another workspace was linked before: every run will be mirrored to this one")
    report(f"{linked.runs_behind} runs to mirror: `runmirror serve` or `runmirror worker` does it")


async def read_status(settings: Settings, database_url: str) -> MirrorStatusAnswer:
    engine = create_engine(settings, database_url)
    try:
        async with engine.connect() as connection:
            return MirrorStatusAnswer.of(await status.mirror_status(connection))
    finally:
        await engine.dispose()


def describe(current: MirrorStatusAnswer) -> str:
    """The status for people, a fact a line."""
    if current.workspace_id is None:
        return (
            f"no workspace is linked; {current.runs_behind} runs would be mirrored\n"
            "link one: runmirror link /subscriptions/…/workspaces/…"
        )
    lag = "-" if current.lag_seconds is None else f"{current.lag_seconds:.0f} s"
    contact = "never" if current.last_contact_at is None else f"{current.last_contact_at:%Y-%m-%d %H:%M:%S} UTC"
    partial = current.models_partial
    lines = [
        f"workspace     {current.workspace_id}",
        f"state         {current.state}",
        f"runs behind   {current.runs_behind} (oldest for {lag})",
        f"quarantined   {current.runs_quarantined}",
        f"partial       {current.runs_partial} (with an overflow file)",
        f"models        {current.models_behind} behind, {current.models_quarantined} quarantined, {partial} partial",
        f"throughput    {current.points_per_second:.1f} points/s, {current.runs_per_minute:.1f} runs/min",
        f"last contact  {contact}",
    ]
    if current.last_error:
        lines.append(f"last error    {current.last_error}")
    lines += [f"model {model.name!r}: {_trouble_of(model)}" for model in current.models_in_trouble]
    return "\n".join(lines)


def _trouble_of(model: ModelMirrorAnswer) -> str:
    of_versions = [f"version {version.version}: {version.problem}" for version in model.versions if version.problem]
    told = [*([model.last_error] if model.last_error else []), *model.problems, *of_versions]
    return told[0] + (f" (and {len(told) - 1} more)" if len(told) > 1 else "")

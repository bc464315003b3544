"""What `runmirror status` does, apart from the command line itself."""

from runmirror.db import create_engine
from runmirror.mirror import status
from runmirror.mirror.model_wire import ModelMirrorAnswer
from runmirror.mirror.verify import records
from runmirror.mirror.verify.wire import VerificationAnswer
from runmirror.mirror.wire import MirrorStatusAnswer
from runmirror.settings import Settings


async def read_status(settings: Settings, database_url: str) -> MirrorStatusAnswer:
    engine = create_engine(settings, database_url)
    try:
        async with engine.connect() as connection:
            answer = MirrorStatusAnswer.of(await status.mirror_status(connection, settings.mirror_backfill_rate))
            answer.verification = VerificationAnswer.of(await records.summary(connection))
            return answer
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
        f"kept out      {current.runs_off} off, {current.runs_unrouted} with no workspace to go to",
        f"models        {current.models_behind} behind, {current.models_quarantined} quarantined, {partial} partial",
        f"throughput    {current.points_per_second:.1f} points/s, {current.runs_per_minute:.1f} runs/min",
        f"last contact  {contact}",
    ]
    if (checked := current.verification) is not None and checked.last_verified_at is not None:
        lines.append(
            f"verified      {checked.runs_verified} runs in the last day, {checked.runs_different} differ "
            f"(last at {checked.last_verified_at:%Y-%m-%d %H:%M:%S} UTC)"
        )
    if current.last_error:
        lines.append(f"last error    {current.last_error}")
    lines += [f"model {model.name!r}: {trouble_of(model)}" for model in current.models_in_trouble]
    return "\n".join(lines)


def trouble_of(model: ModelMirrorAnswer) -> str:
    """The first of what is wrong with it, and how much more there is."""
    of_versions = [f"version {version.version}: {version.problem}" for version in model.versions if version.problem]
    told = [*([model.last_error] if model.last_error else []), *model.problems, *of_versions]
    return told[0] + (f" (and {len(told) - 1} more)" if len(told) > 1 else "")

"""HTTP of this slice: how the mirror is doing, as a whole and for one run."""

from fastapi import APIRouter, Request

from runmirror.db import ReadConnection
from runmirror.errors import RegisteredModelNotFound, RunNotFound
from runmirror.mirror import model_status, overflow_queries, status
from runmirror.mirror.model_wire import ModelMirrorAnswer, ModelMirrorsAnswer
from runmirror.mirror.verify import records
from runmirror.mirror.verify.wire import RunVerificationAnswer, VerificationAnswer
from runmirror.mirror.wire import MirrorStatusAnswer, RunMirrorAnswer
from runmirror.routing import Permission, route
from runmirror.runs.writes import parse_run_id
from runmirror.settings import Settings

router = APIRouter(tags=["mirror"])

_MOST_LISTED = 1000


@route(router, "GET", "/api/runmirror/v1/mirror", permission=Permission.READ)
async def get_mirror(request: Request, connection: ReadConnection) -> MirrorStatusAnswer:
    """The linked workspaces, how far behind the mirror is, and what is wrong if something is."""
    settings: Settings = request.app.state.settings
    answer = MirrorStatusAnswer.of(await status.mirror_status(connection, settings.mirror_backfill_rate))
    answer.verification = VerificationAnswer.of(await records.summary(connection))
    return answer


@route(router, "GET", "/api/runmirror/v1/mirror/registered-models", permission=Permission.READ)
async def get_mirrored_models(
    connection: ReadConnection, name: str | None = None, in_trouble: bool = False
) -> ModelMirrorsAnswer:
    """How far registered models are mirrored and what of them is not: all, the one of that `name`, those in trouble."""
    found = await model_status.model_mirrors(connection, name=name, in_trouble=in_trouble, most=_MOST_LISTED)
    if name is not None and not found and not in_trouble:
        raise RegisteredModelNotFound(name)
    return ModelMirrorsAnswer(registered_models=[ModelMirrorAnswer.of(model) for model in found])


@route(router, "GET", "/api/runmirror/v1/runs/{run_id}/mirror", permission=Permission.READ)
async def get_run_mirror(run_id: str, connection: ReadConnection) -> RunMirrorAnswer:
    """How far one run is mirrored, where it stands in the workspace, what did not fit, and its last error."""
    found = await status.run_status(connection, parse_run_id(run_id))
    if found is None:
        raise RunNotFound(run_id)
    report = await overflow_queries.report(connection, found.run_id, _MOST_LISTED) if found.partial else None
    answer = RunMirrorAnswer.of(found, report)
    if (record := await records.of_run(connection, found.run_id)) is not None:
        answer.verification = RunVerificationAnswer.of(record)
    return answer

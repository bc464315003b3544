"""HTTP of this slice: how the mirror is doing, as a whole and for one run."""

from fastapi import APIRouter

from runmirror.db import ReadConnection
from runmirror.errors import RegisteredModelNotFound, RunNotFound
from runmirror.mirror import model_status, overflow_queries, status
from runmirror.mirror.model_wire import ModelMirrorAnswer, ModelMirrorsAnswer
from runmirror.mirror.wire import MirrorStatusAnswer, RunMirrorAnswer
from runmirror.routing import Permission, route
from runmirror.runs.writes import parse_run_id

router = APIRouter(tags=["mirror"])

_MOST_LISTED = 1000


@route(router, "GET", "/api/runmirror/v1/mirror", permission=Permission.READ)
async def get_mirror(connection: ReadConnection) -> MirrorStatusAnswer:
    """The linked workspace, how far behind the mirror is, and what is wrong if something is."""
    return MirrorStatusAnswer.of(await status.mirror_status(connection))


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
    if not found.partial:
        return RunMirrorAnswer.of(found)
    return RunMirrorAnswer.of(found, await overflow_queries.report(connection, found.run_id, _MOST_LISTED))

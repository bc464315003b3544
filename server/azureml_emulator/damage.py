"""Changes that no client can make: what stands in the workspace is rewritten behind everybody's back."""

from collections import Counter

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import artifact_store, fields, runs
from azureml_emulator.blob_store import receive
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import Json
from azureml_emulator.run_logging import read_point
from azureml_emulator.state import Run, Tag


async def rewrite_run(emulator: Emulator, request: Request) -> Response:
    """Replace the members of a run that the body names, in the words of `state_view`."""
    run = runs.find(emulator, request.path_params["run_id"])
    body = await fields.read_json(request)
    run.status = body.get("status", run.status)
    run.name = body.get("run_name", run.name)
    run.end_ms = body.get("end_time", run.end_ms)
    run.lifecycle_stage = body.get("lifecycle_stage", run.lifecycle_stage)
    run.experiment_id = body.get("experiment_id", run.experiment_id)
    run.params = body.get("params", run.params)
    run.inputs = body.get("inputs", run.inputs)
    if "tags" in body:
        run.tags = {key: Tag(value) for key, value in body["tags"].items()}
    if "metrics" in body:
        _replace_points(run, body)
    return JSONResponse({})


def _replace_points(run: Run, body: Json) -> None:
    points = [read_point(entry) for entry in body["metrics"]]
    run.points, run.point_counts, run.latest = [], Counter(), {}
    run.add_points(points)


async def lose_run(emulator: Emulator, request: Request) -> Response:
    """A run that was never there, as after a purge."""
    run = runs.find(emulator, request.path_params["run_id"])
    for artifact in emulator.state.artifacts_of(artifact_store.RUN_ORIGIN, run.container):
        artifact_store.remove(emulator, artifact)
    del emulator.state.runs[run.run_id]
    return JSONResponse({})


async def rewrite_file(emulator: Emulator, request: Request) -> Response:
    """Other bytes for a file that is there, or a new file."""
    run = runs.find(emulator, request.path_params["run_id"])
    path = request.path_params["path"]
    place = (artifact_store.RUN_ORIGIN, run.container, path)
    held = emulator.state.artifacts.get("/".join(place)) or artifact_store.register(emulator, *place)
    emulator.state.blobs[held.artifact_id] = await receive(emulator.blob_dir, request)
    return JSONResponse({})


async def lose_file(emulator: Emulator, request: Request) -> Response:
    """Forget a file, or with `?blob=1` only its bytes: the path stays registered."""
    run = runs.find(emulator, request.path_params["run_id"])
    found = artifact_store.find(emulator, artifact_store.RUN_ORIGIN, run.container, request.path_params["path"])
    if request.query_params.get("blob") == "1":
        emulator.state.blobs.pop(found.artifact_id).file.unlink()
    else:
        artifact_store.remove(emulator, found)
    return JSONResponse({})


async def rename_experiment(emulator: Emulator, request: Request) -> Response:
    body = await fields.read_json(request)
    emulator.state.experiments[request.path_params["experiment_id"]].name = fields.text(body, "name")
    return JSONResponse({})


ROUTES = [
    ("PATCH", "/runs/{run_id}", rewrite_run),
    ("DELETE", "/runs/{run_id}", lose_run),
    ("PUT", "/runs/{run_id}/files/{path:path}", rewrite_file),
    ("DELETE", "/runs/{run_id}/files/{path:path}", lose_file),
    ("PATCH", "/experiments/{experiment_id}", rename_experiment),
]

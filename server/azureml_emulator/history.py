"""Run history: experiments and runs as azureml-core writes and reads them."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import experiments, fields, history_artifacts, history_filter, limits, runs, tokens
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import InvalidParameter, Json
from azureml_emulator.history_paths import find_experiment, find_run
from azureml_emulator.history_wire import (
    MLFLOW_STATUS_OF,
    is_hidden,
    read_time,
    write_details,
    write_experiment,
    write_run,
    write_token,
)
from azureml_emulator.limits import Limits
from azureml_emulator.paging import page_of
from azureml_emulator.service import RouteRow
from azureml_emulator.state import Experiment, Run, Tag, now_ms

EVENTS = {
    "Start": "RUNNING",
    "Completed": "FINISHED",
    "Failed": "FAILED",
    "Canceled": "KILLED",
}
ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})
EXTRA = ("description", "runType", "runTypeV2", "scriptName", "target", "runDefinition", "primaryMetricName", "options")


async def get_experiment(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(write_experiment(emulator, find_experiment(emulator, request)))


async def create_experiment(emulator: Emulator, request: Request) -> Response:
    name = request.path_params["experiment"]
    return JSONResponse(write_experiment(emulator, experiments.make(emulator, name, {})))


async def update_experiment(emulator: Emulator, request: Request) -> Response:
    body = await fields.read_json(request)
    experiment = find_experiment(emulator, request)
    for key, value in fields.text_map(body, "tags").items():
        limits.check_experiment_tag(emulator.settings.limits, key, value or "")
        experiment.tags[key] = value or ""
    experiment.description = fields.optional_text(body, "description") or experiment.description
    if "archive" in body:
        experiment.lifecycle_stage = "deleted" if body["archive"] else "active"
    experiment.updated_ms = now_ms()
    return JSONResponse(write_experiment(emulator, experiment))


async def query_experiments(emulator: Emulator, request: Request) -> Response:
    body = await fields.read_json(request)
    view = body.get("viewType") or "ActiveOnly"
    hidden = {"ActiveOnly": "deleted", "ArchivedOnly": "active"}.get(view)
    written = [
        write_experiment(emulator, e) for e in emulator.state.experiments.values() if e.lifecycle_stage != hidden
    ]
    found = [experiment for experiment in written if history_filter.fits(body.get("filter"), experiment)]
    return JSONResponse(_page(body, found))


def _page(body: Json, found: list[Json]) -> Json:
    size = fields.optional_integer(body, "top") or 500
    page, following = page_of(found, size, fields.optional_text(body, "continuationToken"))
    return {"value": page, "continuationToken": following, "nextLink": None}


async def query_runs(emulator: Emulator, request: Request) -> Response:
    body = await fields.read_json(request)
    wanted = find_experiment(emulator, request).experiment_id if "experiment" in request.path_params else None
    return JSONResponse(_select(emulator, body, lambda run: wanted in (None, run.experiment_id)))


async def list_children(emulator: Emulator, request: Request) -> Response:
    parent = find_run(emulator, request)
    body: Json = {"filter": request.query_params.get("$filter"), "top": request.query_params.get("$top")}
    body["continuationToken"] = request.query_params.get("$continuationToken")
    return JSONResponse(_select(emulator, body, lambda run: run.parent_run_id == parent.run_id))


def _select(emulator: Emulator, body: Json, belongs: Callable[[Run], bool]) -> Json:
    newest = sorted(emulator.state.runs.values(), key=lambda run: run.start_ms or run.created_ms, reverse=True)
    written = [write_run(emulator, run) for run in newest if not is_hidden(run) and belongs(run)]
    if str(body.get("orderby") or "").lower().endswith(" asc"):
        written.reverse()
    return _page(body, [run for run in written if history_filter.fits(body.get("filter"), run)])


async def get_run(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(write_run(emulator, find_run(emulator, request)))


async def get_details(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(write_details(emulator, find_run(emulator, request)))


async def patch_run(emulator: Emulator, request: Request) -> Response:
    """Create the run under the caller's id or change it: the same request again is harmless."""
    experiment = find_experiment(emulator, request)
    body = await fields.read_json(request)
    return JSONResponse(write_run(emulator, _patch(emulator, experiment, request.path_params["run_id"], body)))


async def patch_runs(emulator: Emulator, request: Request) -> Response:
    experiment = find_experiment(emulator, request)
    bodies = fields.objects(await fields.read_json(request), "runs")
    patched = [_patch(emulator, experiment, fields.text(body, "runId"), body) for body in bodies]
    return JSONResponse({"runs": {run.run_id: write_run(emulator, run) for run in patched}, "errors": {}})


def _patch(emulator: Emulator, experiment: Experiment, run_id: str, body: Json) -> Run:
    if not Limits.RUN_ID.fullmatch(run_id):
        raise InvalidParameter(f"Run id '{run_id}' is invalid")
    held = emulator.state.runs.get(run_id)
    tags = {key: value or "" for key, value in fields.text_map(body, "tags").items()}
    runs.check_tags(emulator, held.tags if held else {}, tags)
    properties = {key: value or "" for key, value in fields.text_map(body, "properties").items()}
    size = len((held.properties if held else {}).keys() | properties.keys())
    limits.at_most(emulator.settings.limits.run_properties, size, "Properties")
    status = fields.optional_text(body, "status")
    if status is not None and status not in MLFLOW_STATUS_OF:
        raise InvalidParameter(f"Invalid run status '{status}'")
    start_ms, end_ms = read_time(body.get("startTimeUtc")), read_time(body.get("endTimeUtc"))
    name = fields.optional_text(body, "displayName") or fields.optional_text(body, "name")
    limits.at_most(emulator.settings.limits.run_name, len(name or ""), "DisplayName")

    run = held
    if run is None:
        run = runs.make(emulator, experiment.experiment_id, {}, name or run_id, run_id)
        run.status = "SCHEDULED"
        run.parent_run_id = fields.optional_text(body, "parentRunId")
        run.tags[runs.ROOT_TAG] = Tag(runs.root_of(emulator, run))
    run.name = name or run.name
    run.tags.update({key: Tag(value) for key, value in tags.items()})
    run.properties.update(properties)
    run.status = MLFLOW_STATUS_OF[status] if status else run.status
    run.start_ms = start_ms if start_ms is not None else run.start_ms
    run.end_ms = end_ms if end_ms is not None else run.end_ms
    if "hidden" in body:
        run.hidden = bool(body["hidden"])
        if emulator.settings.hidden_is_deleted or not run.hidden:
            run.lifecycle_stage = "deleted" if run.hidden else "active"
    run.extra.update({key: body[key] for key in EXTRA if body.get(key) is not None})
    return run


async def post_event(emulator: Emulator, request: Request) -> Response:
    run = find_run(emulator, request)
    _happen(run, await fields.read_json(request))
    return JSONResponse({})


async def post_events(emulator: Emulator, request: Request) -> Response:
    find_experiment(emulator, request)
    for event in fields.objects(await fields.read_json(request), "events"):
        _happen(runs.find(emulator, fields.text(event.get("data") or {}, "RunId")), event)
    return JSONResponse({"errors": []})


def _happen(run: Run, event: Json) -> None:
    """Events are how azureml-core changes a status; those without one are only noted."""
    name = fields.text(event, "name").rpartition(".")[2]
    details = event.get("data") or {}
    run.events.append(name)
    if name == "Error":
        run.error = {"error": details.get("ErrorDetails") or details}
    if name not in EVENTS:
        return
    run.status = EVENTS[name]
    if name == "Start":
        run.start_ms = read_time(details.get("StartTime")) or now_ms()
    if run.status in ENDED:
        run.end_ms = read_time(details.get("EndTime")) or now_ms()


async def get_token(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(write_token(emulator, find_run(emulator, request), tokens.RUN_AUDIENCE))


async def delete_tags(emulator: Emulator, request: Request) -> Response:
    run = find_run(emulator, request)
    for key in fields.texts({"keys": await fields.read_any(request)}, "keys"):
        run.tags.pop(key, None)
    return JSONResponse(write_run(emulator, run))


async def wait_for_metrics(emulator: Emulator, request: Request) -> Response:
    """Metrics are there as soon as they are sent."""
    find_run(emulator, request)
    return JSONResponse({})


RUN = "/runs/{run_id}"
IN_EXPERIMENT: list[RouteRow] = [
    ("GET", "", get_experiment),
    ("POST", "", create_experiment),
    ("PATCH", "", update_experiment),
    ("POST", "/runs:query", query_runs),
    ("PATCH", "/batch/runs", patch_runs),
    ("POST", "/batch/events", post_events),
    ("GET", RUN, get_run),
    ("PATCH", RUN, patch_run),
    ("GET", RUN + "/details", get_details),
    ("GET", RUN + "/children", list_children),
    ("POST", RUN + "/events", post_event),
    ("GET", RUN + "/token", get_token),
    ("DELETE", RUN + "/tags", delete_tags),
    ("GET", RUN + "/metricsingest/wait", wait_for_metrics),
    *((method, RUN + path, handler) for method, path, handler in history_artifacts.ROUTES),
]
ROUTES: list[RouteRow] = [
    ("POST", "/experiments:query", query_experiments),
    ("POST", "/runs:query", query_runs),
    ("GET", RUN, get_run),
    ("GET", RUN + "/details", get_details),
    ("GET", RUN + "/token", get_token),
    *(
        (method, slot + path, handler)
        for slot in ("/experiments/{experiment}", "/experimentids/{experiment}")
        for method, path, handler in IN_EXPERIMENT
    ),
]

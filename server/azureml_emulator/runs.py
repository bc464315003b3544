"""MLflow runs: create, read, update, search."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import fields, limits, search
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import InvalidParameter, Json, NotFound
from azureml_emulator.experiments import find as find_experiment
from azureml_emulator.experiments import read
from azureml_emulator.mlflow_wire import write_run, write_run_info
from azureml_emulator.paging import page_of
from azureml_emulator.search import Clause
from azureml_emulator.state import Run, Tag
from azureml_emulator.workspace import new_guid

STATUSES = frozenset({"RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"})
# The service adds this one itself, so it does not count against the caller's limit.
ROOT_TAG = "mlflow.rootRunId"


def find(emulator: Emulator, run_id: str) -> Run:
    run = emulator.state.runs.get(run_id)
    if run is None:
        raise NotFound(f"Run with id '{run_id}' was not found")
    return run


def find_active(emulator: Emulator, body: Json) -> Run:
    """The run that a body names, as long as it is not deleted."""
    run = find(emulator, fields.text({"run_id": body.get("run_id") or body.get("run_uuid")}, "run_id"))
    if run.lifecycle_stage != "active":
        raise InvalidParameter(f"The run {run.run_id} must be in the 'active' state. Current state is deleted.")
    return run


def read_tags(body: Json, key: str = "tags") -> dict[str, str]:
    return {fields.text(tag, "key"): fields.optional_text(tag, "value") or "" for tag in fields.objects(body, key)}


def check_tags(emulator: Emulator, held: dict[str, Tag], new: dict[str, str]) -> None:
    """Hold new tags against lengths and number before any is written."""
    current = emulator.settings.limits
    for key, value in new.items():
        limits.check_tag(current, key, value)
    keys = (held.keys() | new.keys()) - {ROOT_TAG}
    limits.at_most(current.tags_per_run, len(keys), "Tags")


def make(emulator: Emulator, experiment_id: str, tags: dict[str, str], name: str, run_id: str | None = None) -> Run:
    """Create a run: each call makes another, as the service has no idempotency key."""
    check_tags(emulator, {}, tags)
    limits.at_most(emulator.settings.limits.run_name, len(name), "DisplayName")
    number = 1 + sum(run.experiment_id == experiment_id for run in emulator.state.runs.values())
    run = Run(run_id=run_id or new_guid(), experiment_id=experiment_id, name=name, number=number)
    run.tags = {key: Tag(value) for key, value in tags.items()}
    run.parent_run_id = tags.get("mlflow.parentRunId")
    run.tags[ROOT_TAG] = Tag(root_of(emulator, run))
    emulator.state.runs[run.run_id] = run
    return run


def root_of(emulator: Emulator, run: Run) -> str:
    """Follow parents up to the run that has none."""
    seen = {run.run_id}
    while run.parent_run_id is not None and run.parent_run_id not in seen:
        parent = emulator.state.runs.get(run.parent_run_id)
        if parent is None:
            return run.parent_run_id
        seen.add(parent.run_id)
        run = parent
    return run.run_id


async def create(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    experiment = find_experiment(emulator, fields.text(body, "experiment_id"))
    if experiment.lifecycle_stage != "active":
        raise InvalidParameter(f"The experiment {experiment.experiment_id} must be in the 'active' state.")
    tags = read_tags(body)
    start_ms = fields.optional_integer(body, "start_time")
    user = fields.optional_text(body, "user_id") or ""
    name = fields.optional_text(body, "run_name") or tags.get("mlflow.runName") or ""
    run = make(emulator, experiment.experiment_id, tags, name or f"run_{new_guid()[:8]}")
    run.start_ms, run.user_id = start_ms or run.created_ms, user
    emulator.recorder.changed(run.run_id, "created", tags)
    return JSONResponse({"run": write_run(emulator.workspace, run)})


async def get(emulator: Emulator, request: Request) -> Response:
    query = request.query_params
    run = find(emulator, query.get("run_id") or query.get("run_uuid") or "")
    return JSONResponse({"run": write_run(emulator.workspace, run)})


async def update(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    run = find_active(emulator, body)
    status = fields.optional_text(body, "status") or run.status
    if status not in STATUSES:
        raise InvalidParameter(f"Invalid run status '{status}'")
    name = fields.optional_text(body, "run_name")
    end_ms = fields.optional_integer(body, "end_time")
    if name:
        limits.at_most(emulator.settings.limits.run_name, len(name), "DisplayName")
        run.name = name
        if "mlflow.runName" in run.tags:
            run.tags["mlflow.runName"] = Tag(name)
    run.status = status
    run.end_ms = end_ms if end_ms is not None else run.end_ms
    emulator.recorder.changed(run.run_id, "state", {"status": status, "name": run.name, "end_time": run.end_ms})
    return JSONResponse({"run_info": write_run_info(emulator.workspace, run)})


async def delete(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    find(emulator, fields.text(body, "run_id")).lifecycle_stage = "deleted"
    return JSONResponse({})


async def restore(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    run = find(emulator, fields.text(body, "run_id"))
    run.lifecycle_stage = "active"
    run.hidden = run.hidden and not emulator.settings.hidden_is_deleted
    return JSONResponse({})


async def search_runs(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    clauses = search.parse_filter(fields.optional_text(body, "filter") or "", search.RUN_FIELDS)
    shown = search.stages(fields.optional_text(body, "run_view_type"))
    wanted = set(fields.texts(body, "experiment_ids"))
    found = [
        run
        for run in emulator.state.runs.values()
        if run.experiment_id in wanted and run.lifecycle_stage in shown and _fits(emulator, run, clauses)
    ]
    found.sort(key=lambda run: run.start_ms or run.created_ms, reverse=True)
    for name, descending in reversed(search.parse_order(fields.texts(body, "order_by"))):
        found.sort(key=lambda run, name=name: _order_key(run, name), reverse=descending)  # type: ignore[misc]
    size = fields.optional_integer(body, "max_results") or 1000
    page, token = page_of(found, size, fields.optional_text(body, "page_token"))
    answer: Json = {"runs": [write_run(emulator.workspace, run) for run in page]}
    return JSONResponse(answer | ({"next_page_token": token} if token else {}))


def _fits(emulator: Emulator, run: Run, clauses: list[Clause]) -> bool:
    lag = emulator.settings.read_lag_seconds
    uri = emulator.workspace.artifact_uri(run.experiment_id, run.run_id)
    return not search.is_too_young(run.written, lag) and all(search.fits_run(c, run, uri, lag) for c in clauses)


def _order_key(run: Run, name: str) -> tuple[bool, Any]:
    value = {
        "run_id": run.run_id,
        "run_name": run.name,
        "status": run.status,
        "start_time": run.start_ms,
        "created": run.created_ms,
        "end_time": run.end_ms,
        "user_id": run.user_id,
        "artifact_uri": run.run_id,
    }[name]
    return value is None, 0 if value is None else value


ROUTES = [
    ("POST", "/runs/create", create),
    ("GET", "/runs/get", get),
    ("POST", "/runs/update", update),
    ("POST", "/runs/delete", delete),
    ("POST", "/runs/restore", restore),
    ("POST", "/runs/search", search_runs),
]

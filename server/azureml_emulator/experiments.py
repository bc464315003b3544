"""MLflow experiments."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import fields, limits, search
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AlreadyExists, InvalidParameter, Json, NotFound
from azureml_emulator.mlflow_wire import write_experiment
from azureml_emulator.paging import page_of
from azureml_emulator.state import Experiment, now_ms
from azureml_emulator.workspace import new_guid


def find(emulator: Emulator, experiment_id: str) -> Experiment:
    experiment = emulator.state.experiments.get(experiment_id)
    if experiment is None:
        raise NotFound(f"Experiment with id '{experiment_id}' does not exist")
    return experiment


def make(emulator: Emulator, name: str, tags: dict[str, str], artifact_location: str = "") -> Experiment:
    """Create an experiment: names are unique, deleted experiments included."""
    held = emulator.settings.limits
    limits.check_experiment_name(held, name)
    limits.at_most(held.experiment_tags, len(tags), "Tags")
    for key, value in tags.items():
        limits.check_experiment_tag(held, key, value)
    if emulator.state.experiment_named(name) is not None:
        raise AlreadyExists(f"Experiment with name '{name}' already exists")
    experiment = Experiment(experiment_id=new_guid(), name=name, artifact_location=artifact_location, tags=tags)
    emulator.state.experiments[experiment.experiment_id] = experiment
    return experiment


async def read(emulator: Emulator, request: Request) -> Json:
    """A request body within the service's size."""
    return await fields.read_json(request, emulator.settings.limits.request_body)


async def create(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    tags = {fields.text(tag, "key"): tag.get("value", "") for tag in fields.objects(body, "tags")}
    location = fields.optional_text(body, "artifact_location") or ""
    return JSONResponse({"experiment_id": make(emulator, fields.text(body, "name"), tags, location).experiment_id})


async def get(emulator: Emulator, request: Request) -> Response:
    experiment_id = request.query_params.get("experiment_id", "")
    return JSONResponse({"experiment": write_experiment(find(emulator, experiment_id))})


async def get_by_name(emulator: Emulator, request: Request) -> Response:
    name = request.query_params.get("experiment_name", "")
    experiment = emulator.state.experiment_named(name)
    if experiment is None:
        raise NotFound(f"Could not find experiment with name '{name}'")
    return JSONResponse({"experiment": write_experiment(experiment)})


async def search_experiments(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request) if request.method == "POST" else dict(request.query_params)
    clauses = search.parse_filter(fields.optional_text(body, "filter") or "", search.EXPERIMENT_FIELDS)
    stages = search.stages(fields.optional_text(body, "view_type"))
    found = [
        experiment
        for experiment in emulator.state.experiments.values()
        if experiment.lifecycle_stage in stages
        and not search.is_too_young(experiment.written, emulator.settings.read_lag_seconds)
        and all(search.fits_experiment(clause, experiment) for clause in clauses)
    ]
    found.sort(key=lambda experiment: experiment.updated_ms, reverse=True)
    size = fields.optional_integer(body, "max_results") or 1000
    page, token = page_of(found, size, fields.optional_text(body, "page_token"))
    answer: Json = {"experiments": [write_experiment(experiment) for experiment in page]}
    return JSONResponse(answer | ({"next_page_token": token} if token else {}))


async def update(_emulator: Emulator, _request: Request) -> Response:
    raise InvalidParameter("Renaming an experiment is not supported")


async def delete(emulator: Emulator, request: Request) -> Response:
    return await _set_stage(emulator, request, "deleted")


async def restore(emulator: Emulator, request: Request) -> Response:
    return await _set_stage(emulator, request, "active")


async def _set_stage(emulator: Emulator, request: Request, stage: str) -> Response:
    body = await read(emulator, request)
    experiment = find(emulator, fields.text(body, "experiment_id"))
    experiment.lifecycle_stage, experiment.updated_ms = stage, now_ms()
    for run in emulator.state.runs.values():
        if run.experiment_id == experiment.experiment_id:
            run.lifecycle_stage = stage
    return JSONResponse({})


async def set_tag(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    experiment = find(emulator, fields.text(body, "experiment_id"))
    key, value = fields.text(body, "key"), fields.optional_text(body, "value") or ""
    held = emulator.settings.limits
    limits.check_experiment_tag(held, key, value)
    limits.at_most(held.experiment_tags, len(experiment.tags | {key: value}), "Tags")
    experiment.tags[key] = value
    return JSONResponse({})


ROUTES = [
    ("POST", "/experiments/create", create),
    ("GET", "/experiments/get", get),
    ("GET", "/experiments/get-by-name", get_by_name),
    ("POST", "/experiments/search", search_experiments),
    ("GET", "/experiments/search", search_experiments),
    ("POST", "/experiments/update", update),
    ("POST", "/experiments/delete", delete),
    ("POST", "/experiments/restore", restore),
    ("POST", "/experiments/set-experiment-tag", set_tag),
]

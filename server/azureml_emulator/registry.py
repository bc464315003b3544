"""MLflow's model registry: registered models and their versions."""

import re
import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import fields, runs, search
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AlreadyExists, InvalidParameter, Json, NotFound, UnknownRoute
from azureml_emulator.experiments import read
from azureml_emulator.limits import Limits
from azureml_emulator.mlflow_wire import latest_versions, write_model, write_version
from azureml_emulator.paging import page_of
from azureml_emulator.state import Artifact, ModelVersion, RegisteredModel, now_ms

_OF_RUN = re.compile(r"/runs/(?P<run>[^/]+)/artifacts(?:/(?P<path>.+))?$")
STAGES = ("None", "Staging", "Production", "Archived")


def find(emulator: Emulator, name: str) -> RegisteredModel:
    model = emulator.state.models.get(name)
    if model is None:
        raise NotFound(f"Registered Model with name={name} not found")
    return model


def find_version(emulator: Emulator, name: str, version: str) -> ModelVersion:
    found = find(emulator, name).versions.get(int(version)) if version.isdigit() else None
    if found is None:
        raise NotFound(f"Model Version (name={name}, version={version}) not found")
    return found


def make(emulator: Emulator, name: str) -> RegisteredModel:
    if not Limits.MODEL_NAME.fullmatch(name):
        raise InvalidParameter(f"Model name '{name}' is invalid")
    if name in emulator.state.models:
        raise AlreadyExists(f"Registered Model (name={name}) already exists.")
    model = emulator.state.models[name] = RegisteredModel(name)
    return model


def make_version(model: RegisteredModel, source: str, run_id: str | None) -> ModelVersion:
    version = ModelVersion(name=model.name, version=model.next_version, source=source, run_id=run_id)
    model.versions[version.version] = version
    model.next_version, model.updated_ms = model.next_version + 1, now_ms()
    return version


async def arguments(emulator: Emulator, request: Request) -> Json:
    """What a call says, in its query or in its body: clients differ for DELETE."""
    return {**request.query_params, **await read(emulator, request)}


async def create(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    tags = runs.read_tags(body)
    model = make(emulator, fields.text(body, "name"))
    model.tags, model.description = tags, fields.optional_text(body, "description")
    return JSONResponse({"registered_model": write_model(model)})


async def get(emulator: Emulator, request: Request) -> Response:
    return JSONResponse({"registered_model": write_model(find(emulator, request.query_params.get("name", "")))})


async def search_models(emulator: Emulator, request: Request) -> Response:
    query = dict(request.query_params)
    clauses = search.parse_filter(query.get("filter", ""), frozenset({"name"}))
    found = [
        model
        for name, model in sorted(emulator.state.models.items())
        if all(clause.kind == "attributes" and clause.holds(name) for clause in clauses)
    ]
    page, token = page_of(found, fields.optional_integer(dict(query), "max_results") or 100, query.get("page_token"))
    answer: Json = {"registered_models": [write_model(model) for model in page]} if page else {}
    return JSONResponse(answer | ({"next_page_token": token} if token else {}))


async def update(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    model = find(emulator, fields.text(body, "name"))
    model.description, model.updated_ms = fields.optional_text(body, "description"), now_ms()
    return JSONResponse({"registered_model": write_model(model)})


async def unsupported(_emulator: Emulator, _request: Request) -> Response:
    raise InvalidParameter("Renaming or deleting a registered model is not supported by the service")


async def get_latest_versions(emulator: Emulator, request: Request) -> Response:
    body = await arguments(emulator, request)
    model = find(emulator, fields.text(body, "name"))
    wanted = body.get("stages") or STAGES
    found = [version for version in latest_versions(model) if version.stage in wanted]
    return JSONResponse({"model_versions": [write_version(version, model.aliases) for version in found]})


async def set_model_tag(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    model = find(emulator, fields.text(body, "name"))
    model.tags[fields.text(body, "key")] = fields.optional_text(body, "value") or ""
    return JSONResponse({})


async def delete_model_tag(emulator: Emulator, request: Request) -> Response:
    body = await arguments(emulator, request)
    find(emulator, fields.text(body, "name")).tags.pop(fields.text(body, "key"), None)
    return JSONResponse({})


async def set_alias(emulator: Emulator, request: Request) -> Response:
    if not emulator.settings.aliases:
        raise UnknownRoute("No route for POST /registered-models/alias")
    body = await read(emulator, request)
    name, number = fields.text(body, "name"), str(fields.integer(body, "version"))
    find(emulator, name).aliases[fields.text(body, "alias")] = find_version(emulator, name, number).version
    return JSONResponse({})


async def delete_alias(emulator: Emulator, request: Request) -> Response:
    body = await arguments(emulator, request)
    find(emulator, fields.text(body, "name")).aliases.pop(fields.text(body, "alias"), None)
    return JSONResponse({})


async def get_by_alias(emulator: Emulator, request: Request) -> Response:
    model = find(emulator, request.query_params.get("name", ""))
    alias = request.query_params.get("alias", "")
    if alias not in model.aliases:
        raise NotFound(f"Registered model alias {alias} not found.", status=400)
    version = model.versions[model.aliases[alias]]
    return JSONResponse({"model_version": write_version(version, model.aliases)})


def _make_asset(emulator: Emulator, version: ModelVersion) -> None:
    """What azureml-core finds a version's files by."""
    source = _OF_RUN.search(version.source)
    if source is None:
        return
    prefix = f"ExperimentRun/dcid.{source['run']}/{source['path'] or ''}".rstrip("/")
    asset_id = secrets.token_hex(16)
    emulator.state.assets[asset_id] = {"id": asset_id, "name": version.name, "artifacts": [{"prefix": prefix}]}
    version.extra["url"] = f"aml://asset/{asset_id}"


def files_of(emulator: Emulator, version: ModelVersion) -> list[Artifact]:
    """What a version is made of, whoever registered it."""
    asset = emulator.state.assets.get(str(version.extra.get("url", "")).removeprefix("aml://asset/"))
    prefixes = [str(each.get("prefix") or each.get("id")) for each in (asset or {}).get("artifacts") or ()]
    return [
        artifact
        for artifact in emulator.state.artifacts.values()
        if any(artifact.artifact_id == prefix or artifact.artifact_id.startswith(f"{prefix}/") for prefix in prefixes)
    ]


async def create_version(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    model = find(emulator, fields.text(body, "name"))
    run_id = fields.optional_text(body, "run_id") or None
    if run_id is not None:
        runs.find(emulator, run_id)
    tags = runs.read_tags(body)
    version = make_version(model, fields.text(body, "source"), run_id)
    version.tags, version.description = tags, fields.optional_text(body, "description")
    _make_asset(emulator, version)
    return JSONResponse({"model_version": write_version(version, model.aliases)})


async def get_version(emulator: Emulator, request: Request) -> Response:
    name = request.query_params.get("name", "")
    version = find_version(emulator, name, request.query_params.get("version", ""))
    return JSONResponse({"model_version": write_version(version, find(emulator, name).aliases)})


async def get_download_uri(emulator: Emulator, request: Request) -> Response:
    query = request.query_params
    version = find_version(emulator, query.get("name", ""), query.get("version", ""))
    return JSONResponse({"artifact_uri": version.source})


async def search_versions(emulator: Emulator, request: Request) -> Response:
    query = dict(request.query_params)
    clauses = search.parse_filter(query.get("filter", ""), search.MODEL_FIELDS)
    found = [
        (model, version)
        for _, model in sorted(emulator.state.models.items())
        for _, version in sorted(model.versions.items(), reverse=True)
        if all(clause.holds(_version_value(clause, version)) for clause in clauses)
    ]
    page, token = page_of(found, fields.optional_integer(dict(query), "max_results") or 10_000, query.get("page_token"))
    answer: Json = {"model_versions": [write_version(v, m.aliases) for m, v in page]} if page else {}
    return JSONResponse(answer | ({"next_page_token": token} if token else {}))


def _version_value(clause: search.Clause, version: ModelVersion) -> object:
    if clause.kind == "tags":
        return version.tags.get(clause.key)
    attributes = {
        "name": version.name,
        "run_id": version.run_id,
        "source_path": version.source,
        "version_number": version.version,
    }
    return attributes.get(clause.key)


async def _named_version(emulator: Emulator, body: Json) -> ModelVersion:
    return find_version(emulator, fields.text(body, "name"), str(fields.integer(body, "version")))


async def update_version(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    version = await _named_version(emulator, body)
    version.description, version.updated_ms = fields.optional_text(body, "description"), now_ms()
    return JSONResponse({"model_version": write_version(version, find(emulator, version.name).aliases)})


async def transition_stage(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    version = await _named_version(emulator, body)
    stage = fields.text(body, "stage").capitalize()
    if stage not in STAGES:
        raise InvalidParameter(f"Invalid Model Version stage: {stage}")
    version.stage, version.updated_ms = stage, now_ms()
    return JSONResponse({"model_version": write_version(version, find(emulator, version.name).aliases)})


async def delete_version(emulator: Emulator, request: Request) -> Response:
    body = await arguments(emulator, request)
    version = await _named_version(emulator, body)
    del find(emulator, version.name).versions[version.version]
    return JSONResponse({})


async def set_version_tag(emulator: Emulator, request: Request) -> Response:
    body = await read(emulator, request)
    version = await _named_version(emulator, body)
    version.tags[fields.text(body, "key")] = fields.optional_text(body, "value") or ""
    return JSONResponse({})


async def delete_version_tag(emulator: Emulator, request: Request) -> Response:
    body = await arguments(emulator, request)
    (await _named_version(emulator, body)).tags.pop(fields.text(body, "key"), None)
    return JSONResponse({})


ROUTES = [
    ("POST", "/registered-models/create", create),
    ("GET", "/registered-models/get", get),
    ("GET", "/registered-models/search", search_models),
    ("PATCH", "/registered-models/update", update),
    ("POST", "/registered-models/rename", unsupported),
    ("DELETE", "/registered-models/delete", unsupported),
    ("POST", "/registered-models/get-latest-versions", get_latest_versions),
    ("GET", "/registered-models/get-latest-versions", get_latest_versions),
    ("POST", "/registered-models/set-tag", set_model_tag),
    ("DELETE", "/registered-models/delete-tag", delete_model_tag),
    ("POST", "/registered-models/alias", set_alias),
    ("DELETE", "/registered-models/alias", delete_alias),
    ("GET", "/registered-models/alias", get_by_alias),
    ("POST", "/model-versions/create", create_version),
    ("GET", "/model-versions/get", get_version),
    ("GET", "/model-versions/get-download-uri", get_download_uri),
    ("GET", "/model-versions/search", search_versions),
    ("PATCH", "/model-versions/update", update_version),
    ("POST", "/model-versions/transition-stage", transition_stage),
    ("DELETE", "/model-versions/delete", delete_version),
    ("POST", "/model-versions/set-tag", set_version_tag),
    ("DELETE", "/model-versions/delete-tag", delete_version_tag),
]

"""Model management, as azureml-core registers and lists models: the same registry that MLflow sees."""

import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import fields, registry
from azureml_emulator.artifact_store import iso
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import Json, NotFound
from azureml_emulator.paging import page_of
from azureml_emulator.state import ModelVersion, now_ms
from azureml_emulator.workspace import Workspace

KEPT = ("framework", "frameworkVersion", "experimentName", "mimeType", "unpack", "url", "datasets", "sampleInputData",
        "sampleOutputData", "resourceRequirements", "properties")  # fmt: skip


def _user(workspace: Workspace) -> Json:
    return {
        "userObjectId": workspace.client_id,
        "userPuId": None,
        "userIdp": None,
        "userAltSecId": None,
        "userIss": f"https://sts.windows.net/{workspace.tenant_id}/",
        "userTenantId": workspace.tenant_id,
        "userName": "emulated principal",
    }


def write_model(workspace: Workspace, version: ModelVersion) -> Json:
    return {
        "id": f"{version.name}:{version.version}",
        "name": version.name,
        "version": version.version,
        "description": version.description,
        "createdTime": iso(version.created_ms),
        "modifiedTime": iso(version.updated_ms),
        "createdBy": _user(workspace),
        "kvTags": version.tags,
        "properties": {},
        "url": version.source,
        "mimeType": "application/json",
        "unpack": False,
        "datasets": [],
        "derivedModelIds": [],
        "runId": version.run_id,
        "stage": version.stage,
        **version.extra,
    }


async def create_asset(emulator: Emulator, request: Request) -> Response:
    """An asset names the artifacts that a model is made of."""
    body = await fields.read_json(request)
    asset = {
        "id": secrets.token_hex(16),
        "name": fields.text(body, "name"),
        "artifacts": fields.objects(body, "artifacts"),
        "runid": body.get("runid"),
        "kvTags": body.get("kvTags") or {},
        "properties": body.get("properties") or {},
        "createdTime": iso(now_ms()),
    }
    emulator.state.assets[str(asset["id"])] = asset
    return JSONResponse(asset)


async def get_asset(emulator: Emulator, request: Request) -> Response:
    asset = emulator.state.assets.get(request.path_params["asset_id"])
    if asset is None:
        raise NotFound(f"No asset {request.path_params['asset_id']}")
    return JSONResponse(asset)


async def create_model(emulator: Emulator, request: Request) -> Response:
    body = await fields.read_json(request)
    name, url = fields.text(body, "name"), fields.text(body, "url")
    tags = {key: value or "" for key, value in fields.text_map(body, "kvTags").items()}
    model = emulator.state.models.get(name) or registry.make(emulator, name)
    version = registry.make_version(model, url, fields.optional_text(body, "runId"))
    version.description, version.tags = fields.optional_text(body, "description"), tags
    version.extra = {key: body[key] for key in KEPT if body.get(key) is not None}
    return JSONResponse(write_model(emulator.workspace, version))


def _listed(emulator: Emulator, wanted: dict[str, Any]) -> list[ModelVersion]:
    models = [model for name, model in sorted(emulator.state.models.items()) if wanted.get("name") in (None, name)]
    newest_only = str(wanted.get("latestVersionOnly", "false")).lower() == "true"
    found = []
    for model in models:
        versions = [version for _, version in sorted(model.versions.items(), reverse=True)]
        found += versions[:1] if newest_only else versions
    run_id = wanted.get("runId")
    return [version for version in found if run_id in (None, version.run_id)]


async def list_models(emulator: Emulator, request: Request) -> Response:
    wanted: Json = dict(request.query_params)
    if request.method == "POST":
        wanted |= await fields.read_json(request)
    token = wanted.get("$skipToken")
    page, following = page_of(_listed(emulator, wanted), fields.optional_integer(wanted, "count") or 255, token)
    path = f"/modelmanagement/v1.0{emulator.workspace.arm_id}/models"
    others = "&".join(
        f"{key}={wanted[key]}" for key in ("name", "count", "latestVersionOnly", "runId") if key in wanted
    )
    link = f"{emulator.workspace.api_url}{path}?{others}&$skipToken={following}" if following else None
    value = [write_model(emulator.workspace, version) for version in page]
    return JSONResponse({"value": value, "nextLink": link, "continuationToken": following})


def _find(emulator: Emulator, request: Request) -> ModelVersion:
    name, _, version = request.path_params["model_id"].rpartition(":")
    return registry.find_version(emulator, name, version)


async def get_model(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(write_model(emulator.workspace, _find(emulator, request)))


async def delete_model(emulator: Emulator, request: Request) -> Response:
    version = _find(emulator, request)
    del emulator.state.models[version.name].versions[version.version]
    return Response(status_code=200)


ROUTES = [
    ("POST", "/assets", create_asset),
    ("GET", "/assets/{asset_id}", get_asset),
    ("POST", "/models", create_model),
    ("GET", "/models", list_models),
    ("POST", "/models/list", list_models),
    ("GET", "/models/{model_id}", get_model),
    ("DELETE", "/models/{model_id}", delete_model),
]

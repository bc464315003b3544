"""Managed online endpoints and the workspace's computes, as Resource Manager shows them."""

import re
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import fields, long_running, registry
from azureml_emulator.arm import WORKSPACES, ResourceNotFound, workspace_named
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AzureError, InvalidParameter, Json
from azureml_emulator.long_running import LongRunning
from azureml_emulator.services import CLUSTER
from azureml_emulator.state import ModelVersion, OnlineDeployment, OnlineEndpoint
from azureml_emulator.workspace import ARM_HOST, new_guid

_MODEL = re.compile(r"(?P<workspace>.+)/models/(?P<name>[^/]+)/versions/(?P<version>\d+)", re.IGNORECASE)
_AUTH_MODES = ("Key", "AMLToken", "AADToken")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]")


class Busy(AzureError):
    """It is being changed."""

    status, code = 409, "Conflict"


class Refused(AzureError):
    status, code = 400, "BadRequest"


def _sweep(emulator: Emulator) -> None:
    """What was being deleted long enough is gone."""
    for name, endpoint in list(emulator.state.endpoints.items()):
        if endpoint.operation.kind == "Deleting" and endpoint.operation.is_over:
            del emulator.state.endpoints[name]
            continue
        for of, deployment in list(endpoint.deployments.items()):
            if deployment.operation.kind == "Deleting" and deployment.operation.is_over:
                del endpoint.deployments[of]


def _provisioning(operation: LongRunning) -> str:
    return operation.state(operation.kind) if operation.kind != "Deleting" else "Deleting"


def _endpoint(emulator: Emulator, request: Request) -> OnlineEndpoint:
    _sweep(emulator)
    found = emulator.state.endpoints.get(request.path_params["endpoint"])
    if found is None:
        raise ResourceNotFound(f"The endpoint {request.path_params['endpoint']} was not found.")
    return found


def _deployment(emulator: Emulator, request: Request) -> tuple[OnlineEndpoint, OnlineDeployment]:
    endpoint = _endpoint(emulator, request)
    found = endpoint.deployments.get(request.path_params["deployment"])
    if found is None:
        raise ResourceNotFound(f"The deployment {request.path_params['deployment']} was not found.")
    return endpoint, found


def _id(emulator: Emulator, endpoint: OnlineEndpoint) -> str:
    return f"{emulator.workspace.arm_id}/onlineEndpoints/{endpoint.name}"


def _write(emulator: Emulator, endpoint: OnlineEndpoint) -> Json:
    host = f"https://{endpoint.name.lower()}.{emulator.workspace.region}.inference.ml.azure.com"
    return {
        "id": _id(emulator, endpoint),
        "name": endpoint.name,
        "type": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints",
        "location": endpoint.location,
        "tags": endpoint.tags,
        "kind": "Managed",
        "identity": {"type": "SystemAssigned", "principalId": new_guid(), "tenantId": emulator.workspace.tenant_id},
        "properties": {
            "authMode": endpoint.auth_mode,
            "provisioningState": _provisioning(endpoint.operation),
            "scoringUri": f"{host}/score",
            "swaggerUri": f"{host}/swagger.json",
            "traffic": endpoint.traffic,
            "properties": {},
            "publicNetworkAccess": "Enabled",
        },
    }


def _write_deployment(emulator: Emulator, endpoint: OnlineEndpoint, deployment: OnlineDeployment) -> Json:
    return {
        "id": f"{_id(emulator, endpoint)}/deployments/{deployment.name}",
        "name": deployment.name,
        "type": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments",
        "location": deployment.location,
        "tags": deployment.tags,
        "sku": deployment.sku,
        "kind": "Managed",
        "properties": {
            "scaleSettings": {"scaleType": "Default"},
            **deployment.properties,
            "provisioningState": _provisioning(deployment.operation),
        },
    }


def _answer(emulator: Emulator, body: Json | None, status: int, operation: LongRunning) -> Response:
    """With the address of the operation, also where it is over at once."""
    emulator.state.operations[operation.id] = operation
    workspace = emulator.workspace
    url = (
        f"https://{ARM_HOST}/subscriptions/{workspace.subscription}/providers/Microsoft.MachineLearningServices"
        f"/locations/{workspace.region}/mfeOperationsStatus/{workspace.name}:{operation.id}?api-version=2023-10-01"
    )
    headers = {"Azure-AsyncOperation": url, "Retry-After": "0"}
    return Response(status_code=status, headers=headers) if body is None else JSONResponse(body, status, headers)


async def get_operation(emulator: Emulator, request: Request) -> Response:
    name, _, operation_id = request.path_params["operation"].partition(":")
    of = next((each for each in emulator if each.workspace.name == name), emulator)
    operation = of.state.operations.get(operation_id)
    if operation is None:
        raise ResourceNotFound("There is no such operation.")
    answer: Json = {"id": operation.id, "name": operation.id, "status": operation.state("InProgress")}
    return JSONResponse(answer | ({"error": operation.error} if operation.error else {}))


async def put_endpoint(emulator: Emulator, request: Request) -> Response:
    emulator = workspace_named(emulator, request)
    body = await fields.read_json(request)
    _sweep(emulator)
    name = request.path_params["endpoint"]
    if not _NAME.fullmatch(name):
        raise Refused(f"The endpoint's name {name} is invalid")
    properties = body.get("properties") or {}
    auth_mode, location = properties.get("authMode"), fields.text(body, "location")
    if auth_mode not in _AUTH_MODES:
        raise Refused(f"authMode must be one of {', '.join(_AUTH_MODES)}")
    before = emulator.state.endpoints.get(name)
    if before is not None and not before.operation.is_over:
        raise Busy(f"The endpoint {name} is {_provisioning(before.operation)}")
    kind = "Creating" if before is None else "Updating"
    endpoint = before or OnlineEndpoint(name, long_running.begin(kind, name, 0))
    endpoint.traffic = _traffic(endpoint, properties.get("traffic") or {})
    endpoint.location, endpoint.auth_mode = location, auth_mode
    endpoint.tags = {key: value or "" for key, value in fields.text_map(body, "tags").items()}
    endpoint.operation = long_running.begin(kind, name, emulator.settings.deploy_seconds)
    emulator.state.endpoints[name] = endpoint
    return _answer(emulator, _write(emulator, endpoint), 201 if before is None else 200, endpoint.operation)


def _traffic(endpoint: OnlineEndpoint, wanted: Json) -> dict[str, int]:
    for name, share in wanted.items():
        if name not in endpoint.deployments:
            raise Refused(f"traffic names the deployment {name}, which does not exist")
        if not isinstance(share, int) or not 0 <= share <= 100:
            raise Refused("traffic is in percent")
    if sum(wanted.values()) not in (0, 100):
        raise Refused("traffic must add up to 0 or 100")
    return dict(wanted)


async def patch_endpoint(emulator: Emulator, request: Request) -> Response:
    emulator = workspace_named(emulator, request)
    endpoint = _endpoint(emulator, request)
    body = await fields.read_json(request)
    traffic = (body.get("properties") or {}).get("traffic")
    if traffic is not None:
        endpoint.traffic = _traffic(endpoint, traffic)
    return JSONResponse(_write(emulator, endpoint))


async def get_endpoint(emulator: Emulator, request: Request) -> Response:
    emulator = workspace_named(emulator, request)
    return JSONResponse(_write(emulator, _endpoint(emulator, request)))


async def list_endpoints(emulator: Emulator, request: Request) -> Response:
    emulator = workspace_named(emulator, request)
    _sweep(emulator)
    value = [_write(emulator, endpoint) for _, endpoint in sorted(emulator.state.endpoints.items())]
    return JSONResponse({"value": value, "nextLink": None})


async def delete_endpoint(emulator: Emulator, request: Request) -> Response:
    emulator = workspace_named(emulator, request)
    _sweep(emulator)
    endpoint = emulator.state.endpoints.get(request.path_params["endpoint"])
    if endpoint is None:
        return Response(status_code=204)
    if endpoint.operation.kind != "Deleting" and not endpoint.operation.is_over:
        raise Busy(f"The endpoint {endpoint.name} is {_provisioning(endpoint.operation)}")
    endpoint.operation = long_running.begin("Deleting", endpoint.name, emulator.settings.deploy_seconds)
    return _answer(emulator, None, 202, endpoint.operation)


def _model(emulator: Emulator, said: object) -> ModelVersion:
    """The registered model that a deployment names; without a script, it must be one that MLflow logged."""
    match = _MODEL.fullmatch(str(said))
    if match is None or match["workspace"].lower() != emulator.workspace.arm_id.lower():
        raise Refused(f"The model {said} is not one of this workspace")
    try:
        version = registry.find_version(emulator, match["name"], match["version"])
    except AzureError:
        raise Refused(f"The model {match['name']}:{match['version']} was not found") from None
    if not any(file.path.rpartition("/")[2] == "MLmodel" for file in registry.files_of(emulator, version)):
        raise Refused("codeConfiguration is missing, and the model is not of type mlflow_model")
    return version


async def put_deployment(emulator: Emulator, request: Request) -> Response:
    emulator = workspace_named(emulator, request)
    endpoint = _endpoint(emulator, request)
    body = await fields.read_json(request)
    if endpoint.operation.kind == "Deleting" or not endpoint.operation.is_over:
        raise Busy(f"The endpoint {endpoint.name} is {_provisioning(endpoint.operation)}")
    properties = body.get("properties")
    if not isinstance(properties, dict) or properties.get("endpointComputeType") != "Managed":
        raise Refused("endpointComputeType must be Managed")
    if not fields.optional_text(properties, "instanceType"):
        raise Refused("instanceType is missing")
    sku = body.get("sku")
    if not isinstance(sku, dict) or not isinstance(sku.get("capacity"), int) or sku["capacity"] < 1:
        raise Refused("sku.capacity is missing")
    _model(emulator, properties.get("model"))
    name = request.path_params["deployment"]
    before = endpoint.deployments.get(name)
    if before is not None and not before.operation.is_over:
        raise Busy(f"The deployment {name} is {_provisioning(before.operation)}")
    settings = emulator.settings
    kind = "Creating" if before is None else "Updating"
    operation = long_running.begin(kind, name, settings.deploy_seconds, fails=settings.deployments_fail)
    tags = {key: value or "" for key, value in fields.text_map(body, "tags").items()}
    deployment = OnlineDeployment(name, fields.text(body, "location"), tags, sku, properties, operation)
    endpoint.deployments[name] = deployment
    told = _write_deployment(emulator, endpoint, deployment)
    return _answer(emulator, told, 201 if before is None else 200, operation)


async def get_deployment(emulator: Emulator, request: Request) -> Response:
    emulator = workspace_named(emulator, request)
    return JSONResponse(_write_deployment(emulator, *_deployment(emulator, request)))


async def list_deployments(emulator: Emulator, request: Request) -> Response:
    emulator = workspace_named(emulator, request)
    endpoint = _endpoint(emulator, request)
    value = [_write_deployment(emulator, endpoint, one) for _, one in sorted(endpoint.deployments.items())]
    return JSONResponse({"value": value, "nextLink": None})


async def delete_deployment(emulator: Emulator, request: Request) -> Response:
    emulator = workspace_named(emulator, request)
    endpoint, deployment = _deployment(emulator, request)
    if endpoint.traffic.get(deployment.name):
        raise InvalidParameter(f"The deployment {deployment.name} has traffic and cannot be deleted")
    deployment.operation = long_running.begin("Deleting", deployment.name, emulator.settings.deploy_seconds)
    return _answer(emulator, None, 202, deployment.operation)


async def list_keys(emulator: Emulator, request: Request) -> Response:
    keys = _endpoint(workspace_named(emulator, request), request).keys
    return JSONResponse({"primaryKey": keys[0], "secondaryKey": keys[1]})


async def token(emulator: Emulator, request: Request) -> Response:
    endpoint = _endpoint(workspace_named(emulator, request), request)
    until = int((datetime.now(UTC) + timedelta(hours=12)).timestamp())
    answer = {
        "accessToken": endpoint.token,
        "tokenType": "Bearer",
        "expiryTimeUtc": until,
        "refreshAfterTimeUtc": until,
    }
    return JSONResponse(answer)


async def get_compute(emulator: Emulator, request: Request) -> Response:
    emulator = workspace_named(emulator, request)
    name = request.path_params["compute"]
    if name != CLUSTER:
        raise ResourceNotFound(f"The compute {name} was not found.")
    group = emulator.workspace.group_id
    return JSONResponse(
        {
            "id": f"{emulator.workspace.arm_id}/computes/{name}",
            "name": name,
            "location": emulator.workspace.region,
            "tags": {},
            "properties": {
                "computeType": "AKS",
                "computeLocation": emulator.workspace.region,
                "description": "",
                "resourceId": f"{group}/Microsoft.ContainerService/managedClusters/{name}",
                "provisioningState": "Succeeded",
                "provisioningErrors": None,
                "isAttachedCompute": True,
                "properties": None,
            },
        }
    )


_ENDPOINTS = WORKSPACES + "/{workspace}/onlineendpoints"
_ONE = _ENDPOINTS + "/{endpoint}"
_DEPLOYMENTS = _ONE + "/deployments"
_OPERATION = (
    "/subscriptions/{subscription}/providers/microsoft.machinelearningservices/locations/{location}"
    "/mfeoperationsstatus/{operation}"
)
ROUTES = [
    ("GET", _ENDPOINTS, list_endpoints),
    ("PUT", _ONE, put_endpoint),
    ("PATCH", _ONE, patch_endpoint),
    ("GET", _ONE, get_endpoint),
    ("DELETE", _ONE, delete_endpoint),
    ("POST", _ONE + "/listkeys", list_keys),
    ("POST", _ONE + "/token", token),
    ("GET", _DEPLOYMENTS, list_deployments),
    ("PUT", _DEPLOYMENTS + "/{deployment}", put_deployment),
    ("GET", _DEPLOYMENTS + "/{deployment}", get_deployment),
    ("DELETE", _DEPLOYMENTS + "/{deployment}", delete_deployment),
    ("GET", _OPERATION, get_operation),
]
# azureml-core asks the region, not Resource Manager, below this.
COMPUTES = "/rp/workspaces"
COMPUTE_ROUTES = [("GET", WORKSPACES + "/{workspace}/computes/{compute}", get_compute)]

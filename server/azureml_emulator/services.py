"""Web services of model management, on container instances and on AKS, as azureml-core makes and reads them."""

import re
import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import fields, long_running, registry
from azureml_emulator.artifact_store import iso
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AzureError, InvalidParameter, Json, NotFound
from azureml_emulator.long_running import LongRunning
from azureml_emulator.state import WebService, now_ms

CLUSTER = "aks"  # the one AKS compute that every workspace has
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_ASSET = "aml://artifact/"
# What a client wants to find, of what was asked or not.
_OF_ACI = (
    "appInsightsEnabled", "authEnabled", "cname", "containerResourceRequirements", "sslCertificate", "sslEnabled",
    "sslKey", "dnsNameLabel",
)  # fmt: skip
_OF_AKS = (
    "appInsightsEnabled", "authEnabled", "aadAuthEnabled", "autoScaler", "computeName", "containerResourceRequirements",
    "dataCollection", "livenessProbeRequirements", "maxConcurrentRequestsPerContainer", "maxQueueWaitMs", "numReplicas",
    "scoringTimeoutMs", "namespace",
)  # fmt: skip
# What the service says of AKS where nothing was asked.
_DEFAULTS: Json = {
    "autoScaler": {
        "autoscaleEnabled": True, "minReplicas": 1, "maxReplicas": 10, "refreshPeriodInSeconds": 1,
        "targetUtilization": 70,
    },
    "dataCollection": {"eventHubEnabled": False, "storageEnabled": False},
}  # fmt: skip


class NoSuchService(NotFound):
    code = "NoSuchService"


class ServiceExists(AzureError):
    status, code, inner = 409, "ServiceAlreadyExists", "ConflictError"


def _sweep(emulator: Emulator) -> None:
    """Services whose deletion is over are gone."""
    for name, service in list(emulator.state.services.items()):
        if service.operation.kind == "Delete" and service.operation.is_over:
            del emulator.state.services[name]


def find(emulator: Emulator, name: str) -> WebService:
    _sweep(emulator)
    service = emulator.state.services.get(name)
    if service is None:
        raise NoSuchService(f"NoSuchService: the service {name} does not exist")
    return service


def _state(operation: LongRunning) -> str:
    if operation.kind == "Delete":
        return "Deleting"
    return "Transitioning" if not operation.is_over else "Failed" if operation.fails else "Healthy"


def write(emulator: Emulator, service: WebService) -> Json:
    asked, operation = service.asked, service.operation
    kept = _OF_ACI if asked["computeType"] == "ACI" else _OF_AKS
    workspace = emulator.workspace
    is_up = _state(operation) == "Healthy"
    return {
        "id": service.name,
        "name": service.name,
        "description": asked.get("description"),
        "kvTags": asked.get("kvTags") or {},
        "properties": asked.get("properties") or {},
        "computeType": asked["computeType"],
        "deploymentType": "HttpRealtimeEndpoint",
        "createdTime": iso(service.created_ms),
        "updatedTime": iso(now_ms()),
        "createdBy": {"userName": "emulated principal", "userTenantId": workspace.tenant_id},
        "state": _state(operation),
        "error": operation.error,
        "environmentImageRequest": asked["environmentImageRequest"],
        "modelIds": asked["environmentImageRequest"].get("modelIds") or [],
        "location": asked.get("location") or workspace.region,
        "publicIp": "20.0.0.1" if is_up else None,
        "scoringUri": service.scoring_uri if is_up else None,
        **{name: _DEFAULTS.get(name) if asked.get(name) is None else asked[name] for name in kept},
    }


def _refusal(emulator: Emulator, name: str, *, overwrite: bool) -> AzureError | None:
    _sweep(emulator)
    if not 3 <= len(name) <= 32 or not _NAME.fullmatch(name):
        return InvalidParameter(f"Service name {name} is invalid")
    if name in emulator.state.services and not overwrite:
        return ServiceExists(f"Service {name} with the same name already exists, please use a different service name")
    return None


async def validate_name(emulator: Emulator, request: Request) -> Response:
    refusal = _refusal(emulator, request.path_params["name"], overwrite=False)
    return JSONResponse({} if refusal is None else {"error": {"code": refusal.code, "message": refusal.message}})


async def validate(_emulator: Emulator, request: Request) -> Response:
    await fields.read_json(request)
    return JSONResponse({})


def _check_image(emulator: Emulator, image: Json) -> None:
    """Everything the image is made of must be there: models, driver and script."""
    for model_id in fields.texts(image, "modelIds"):
        name, _, version = model_id.rpartition(":")
        registry.find_version(emulator, name, version)
    assets = fields.objects(image, "assets")
    if fields.text(image, "driverProgram") not in {asset.get("id") for asset in assets}:
        raise InvalidParameter("driverProgram is none of the assets")
    for asset in assets:
        if artifact_of(asset) not in emulator.state.blobs:
            raise InvalidParameter(f"The asset {asset.get('url')} was not uploaded")
    environment = image.get("environment")
    if not isinstance(environment, dict) or "azureml-defaults" not in str(environment.get("python")):
        raise InvalidParameter("The environment lacks azureml-defaults, without which no service can be deployed")


def artifact_of(asset: Json) -> str:
    return str(asset.get("url", "")).removeprefix(_ASSET)


async def create(emulator: Emulator, request: Request) -> Response:
    asked = await fields.read_json(request)
    name, kind = fields.text(asked, "name"), fields.text(asked, "computeType")
    refusal = _refusal(emulator, name, overwrite=bool(asked.get("overwrite")))
    if refusal is not None:
        raise refusal
    if kind not in ("ACI", "AKS"):
        raise InvalidParameter(f"Compute type {kind} is not supported")
    if kind == "AKS" and asked.get("computeName") != CLUSTER:
        raise NotFound(f"Compute {asked.get('computeName')} was not found")
    image = asked.get("environmentImageRequest")
    if not isinstance(image, dict):
        raise InvalidParameter("environmentImageRequest is missing")
    _check_image(emulator, image)
    settings, region = emulator.settings, emulator.workspace.region
    operation = long_running.begin("Create", name, settings.deploy_seconds, fails=settings.deployments_fail)
    host = f"{secrets.token_hex(8)}.{region}.azurecontainer.io"
    uri = f"http://{host}/score"
    if kind == "AKS":
        uri = f"http://{CLUSTER}.{region}.cloudapp.azure.com:80/api/v1/service/{name}/score"
    emulator.state.services[name] = WebService(name, asked, operation, uri)
    return _accepted(emulator, operation)


def _accepted(emulator: Emulator, operation: LongRunning) -> Response:
    emulator.state.operations[operation.id] = operation
    workspace = emulator.workspace
    location = f"{workspace.api_url}/modelmanagement/v1.0{workspace.arm_id}/operations/{operation.id}"
    return Response(status_code=202, headers={"Operation-Location": location})


async def get(emulator: Emulator, request: Request) -> Response:
    return JSONResponse(write(emulator, find(emulator, request.path_params["name"])))


async def list_services(emulator: Emulator, _request: Request) -> Response:
    _sweep(emulator)
    value = [write(emulator, service) for _, service in sorted(emulator.state.services.items())]
    return JSONResponse({"value": value, "nextLink": None})


async def get_operation(emulator: Emulator, request: Request) -> Response:
    operation = emulator.state.operations.get(request.path_params["operation_id"])
    if operation is None:
        raise NotFound("No such operation")
    step = "BuildEnvironment" if not operation.is_over else "DeployService"
    return JSONResponse(
        {
            "id": operation.id,
            "operationType": "Service",
            "state": operation.state("Running"),
            "createdTime": iso(now_ms()),
            "endTime": iso(now_ms()) if operation.is_over else None,
            "resourceLocation": f"/services/{operation.of}",
            "error": operation.error,
            "operationDetails": {"subOperationType": step, "subOperationState": operation.state("Running")},
        }
    )


async def delete(emulator: Emulator, request: Request) -> Response:
    _sweep(emulator)
    service = emulator.state.services.get(request.path_params["name"])
    if service is None:
        return Response(status_code=204)
    service.operation = long_running.begin("Delete", service.name, emulator.settings.deploy_seconds)
    if emulator.settings.deploy_seconds == 0:
        _sweep(emulator)
        return Response(status_code=200)
    return _accepted(emulator, service.operation)


async def list_keys(emulator: Emulator, request: Request) -> Response:
    keys = find(emulator, request.path_params["name"]).keys
    return JSONResponse({"primaryKey": keys[0], "secondaryKey": keys[1]})


async def logs(emulator: Emulator, request: Request) -> Response:
    service = find(emulator, request.path_params["name"])
    content = "Traceback (most recent call last):\nexit code 3\n" if service.operation.has_failed else "started\n"
    return JSONResponse({"content": content})


ROUTES = [
    ("POST", "/services/validate/name/{name}", validate_name),
    ("POST", "/services/validate", validate),
    ("POST", "/services/validate/resource", validate),
    ("POST", "/services", create),
    ("GET", "/services", list_services),
    ("GET", "/services/{name}", get),
    ("DELETE", "/services/{name}", delete),
    ("POST", "/services/{name}/listkeys", list_keys),
    ("GET", "/services/{name}/logs", logs),
    ("GET", "/operations/{operation_id}", get_operation),
]

"""Resource Manager: the cloud's metadata, the subscriptions and the workspace resource."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import Json, NotFound
from azureml_emulator.workspace import ARM_HOST, LOGIN_HOST, STUDIO_HOST, Workspace

METADATA = "/metadata/endpoints"


class ResourceNotFound(NotFound):
    """ARM's word for it."""

    code = "ResourceNotFound"


async def metadata(_emulator: Emulator, _request: Request) -> Response:
    """Endpoints of the clouds; the emulator knows the public one."""
    cloud = {
        "name": "AzureCloud",
        "portal": "https://portal.azure.com",
        "authentication": {
            "loginEndpoint": f"https://{LOGIN_HOST}/",
            "audiences": ["https://management.core.windows.net/", "https://management.azure.com/"],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "media": "https://rest.media.azure.net",
        "graphAudience": "https://graph.windows.net/",
        "graph": "https://graph.windows.net/",
        "suffixes": {
            "storage": "core.windows.net",
            "keyVaultDns": "vault.azure.net",
            "sqlServerHostname": "database.windows.net",
            "azureDataLakeStoreFileSystem": "azuredatalakestore.net",
            "azureDataLakeAnalyticsCatalogAndJob": "azuredatalakeanalytics.net",
            "acrLoginServer": "azurecr.io",
        },
        "batch": "https://batch.core.windows.net/",
        "resourceManager": f"https://{ARM_HOST}/",
        "vmImageAliasDoc": f"https://{STUDIO_HOST}/aliases.json",
        "activeDirectoryDataLake": "https://datalake.azure.net/",
        "sqlManagement": "https://management.core.windows.net:8443/",
        "gallery": "https://gallery.azure.com/",
    }
    return JSONResponse([cloud])


def _subscription(workspace: Workspace) -> Json:
    return {
        "id": f"/subscriptions/{workspace.subscription}",
        "subscriptionId": workspace.subscription,
        "tenantId": workspace.tenant_id,
        "displayName": "Emulated subscription",
        "state": "Enabled",
        "authorizationSource": "RoleBased",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "EnterpriseAgreement_2014-09-01",
        },
        "managedByTenants": [],
    }


async def subscriptions(emulator: Emulator, _request: Request) -> Response:
    return JSONResponse({"value": [_subscription(emulator.workspace)], "count": {"type": "Total", "value": 1}})


async def tenants(emulator: Emulator, _request: Request) -> Response:
    tenant = emulator.workspace.tenant_id
    return JSONResponse({"value": [{"id": f"/tenants/{tenant}", "tenantId": tenant, "displayName": "Emulated tenant"}]})


def workspace_resource(workspace: Workspace) -> Json:
    """The workspace as ARM shows it."""
    group = workspace.group_id
    return {
        "id": workspace.arm_id,
        "name": workspace.name,
        "type": "Microsoft.MachineLearningServices/workspaces",
        "location": workspace.region,
        "tags": {},
        "kind": "Default",
        "etag": None,
        "sku": {"name": "Basic", "tier": "Basic"},
        "identity": {
            "type": "SystemAssigned",
            "principalId": workspace.guid,
            "tenantId": workspace.tenant_id,
        },
        "properties": {
            "workspaceId": workspace.guid,
            "friendlyName": workspace.name,
            "description": "",
            "discoveryUrl": workspace.discovery_url,
            "mlFlowTrackingUri": workspace.tracking_uri,
            "storageAccount": f"{group}/Microsoft.Storage/storageAccounts/{workspace.account}",
            "keyVault": f"{group}/Microsoft.Keyvault/vaults/{workspace.name}kv",
            "applicationInsights": f"{group}/Microsoft.insights/components/{workspace.name}ai",
            "containerRegistry": None,
            "hbiWorkspace": False,
            "imageBuildCompute": None,
            "provisioningState": "Succeeded",
            "v1LegacyMode": False,
            "tenantId": workspace.tenant_id,
            "sdkTelemetryAppInsightsKey": workspace.guid,
            "creationTime": "2024-01-01T00:00:00.0000000Z",
            "publicNetworkAccess": "Enabled",
            "storageHnsEnabled": False,
            "privateEndpointConnections": [],
            "notebookInfo": None,
        },
    }


def _is_named(workspace: Workspace, request: Request) -> bool:
    path = request.path_params
    wanted = (path["subscription"], path["group"], path.get("workspace", workspace.name))
    ours = (workspace.subscription, workspace.resource_group, workspace.name)
    return [part.lower() for part in wanted] == [part.lower() for part in ours]


def _named(emulator: Emulator, request: Request) -> list[Json]:
    return [workspace_resource(each.workspace) for each in emulator if _is_named(each.workspace, request)]


def workspace_named(emulator: Emulator, request: Request) -> Emulator:
    """The workspace that a path is below."""
    for each in emulator:
        if _is_named(each.workspace, request):
            return each
    raise ResourceNotFound(f"The Resource '{request.url.path}' was not found.")


async def get_workspace(emulator: Emulator, request: Request) -> Response:
    if not request.query_params.get("api-version"):
        raise NotFound("The api-version query parameter is required", code="MissingApiVersionParameter", status=400)
    found = _named(emulator, request)
    if not found:
        raise ResourceNotFound(f"The Resource '{request.url.path}' was not found.")
    return JSONResponse(found[0])


async def list_workspaces(emulator: Emulator, request: Request) -> Response:
    return JSONResponse({"value": _named(emulator, request)})


WORKSPACES = (
    "/subscriptions/{subscription}/resourcegroups/{group}/providers/microsoft.machinelearningservices/workspaces"
)
KEYWORDS = frozenset(
    [segment for segment in WORKSPACES.split("/") if segment and "{" not in segment]
    + ["onlineendpoints", "deployments", "computes", "locations", "mfeoperationsstatus", "listkeys"]
)


def canonical(path: str) -> str:
    """ARM compares its keywords without regard to case; routes are written in lower case."""
    return "/".join(part.lower() if part.lower() in KEYWORDS else part for part in path.split("/"))


ROUTES = [
    ("GET", METADATA, metadata),
    ("GET", "/subscriptions", subscriptions),
    ("GET", "/tenants", tenants),
    ("GET", WORKSPACES, list_workspaces),
    ("GET", WORKSPACES + "/{workspace}", get_workspace),
]

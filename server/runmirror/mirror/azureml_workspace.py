"""Which hosts a workspace has: from Resource Manager, or from an `azureml://` tracking URI."""

import re
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from runmirror.mirror.azureml_http import AzureClient, Refused
from runmirror.mirror.credentials import Tokens
from runmirror.mirror.target import TargetUnauthorized, TargetUnavailable
from runmirror.settings import WORKSPACE_ID, Settings

_API_VERSION = "2022-05-01"
_TRACKING_URI = re.compile(
    r"^azureml://(?P<host>[a-z0-9.\-]+)/mlflow/v[\d.]+(?P<workspace>/subscriptions/[^?#]+?)/?(?:\?.*)?$", re.IGNORECASE
)
# Data plane and studio of each cloud; no other host is ever given a token.
_STUDIOS = {
    ".azureml.ms": "https://ml.azure.com",
    ".azureml.cn": "https://studio.ml.azure.cn",
    ".ml.azure.cn": "https://studio.ml.azure.cn",
    ".azureml.us": "https://ml.azure.us",
    ".ml.azure.us": "https://ml.azure.us",
}
_CLOUD_OF_ARM = {
    "management.chinacloudapi.cn": ".api.ml.azure.cn",
    "management.usgovcloudapi.net": ".api.ml.azure.us",
}


@dataclass(frozen=True, slots=True)
class Workspace:
    """`portal_base` is the workspace's home in the studio, `https://…/?wsid=…&tid=…`."""

    workspace_id: str
    api_url: str
    portal_base: str

    @property
    def tracking_uri(self) -> str:
        return f"azureml://{urlsplit(self.api_url).netloc}/mlflow/v2.0{self.workspace_id}"

    def portal_url(self, remote_run_id: str) -> str:
        home = urlsplit(self.portal_base)
        return f"{home.scheme}://{home.netloc}/runs/{remote_run_id}?{home.query}"


def parse_tracking_uri(uri: str) -> tuple[str, str]:
    """Host and ARM id in an `azureml://` URI. Raises `ValueError` unless both are of Azure's form."""
    match = _TRACKING_URI.match(uri)
    if match is None or not WORKSPACE_ID.match(match["workspace"]):
        raise ValueError(
            "the tracking URI is not azureml://<region>.api.azureml.ms/mlflow/v1.0/subscriptions/…/resourceGroups/…"
            "/providers/Microsoft.MachineLearningServices/workspaces/…"
        )
    return check_host(match["host"].lower()), match["workspace"]


def check_host(host: str) -> str:
    """Raises `ValueError` for a host that is not Azure ML's."""
    if not host.endswith(tuple(_STUDIOS)):
        raise ValueError(f"{host!r} is not a host of Azure ML ({', '.join('*' + suffix for suffix in _STUDIOS)})")
    return host


def workspace_at(host: str, workspace_id: str, tenant_id: str | None) -> Workspace:
    """The workspace whose data plane is at `host`."""
    studio = next(address for suffix, address in _STUDIOS.items() if host.endswith(suffix))
    id_of = WORKSPACE_ID.match(workspace_id)
    if id_of is None:
        raise ValueError(f"{workspace_id!r} is not the ARM id of an Azure ML workspace")
    subscription, group, name = id_of["subscription"], id_of["resource_group"], id_of["workspace"]
    wsid = f"/subscriptions/{subscription}/resourcegroups/{group}/workspaces/{name}"
    query = urlencode({"wsid": wsid} | ({"tid": tenant_id} if tenant_id else {}), safe="/")
    return Workspace(workspace_id, f"https://{host}", f"{studio}/?{query}")


async def resolve(client: AzureClient, tokens: Tokens, settings: Settings, workspace_id: str) -> Workspace:
    """Ask Resource Manager where a workspace lives. Raises `TargetOutage`: while it cannot be found nothing works."""
    url = f"{settings.azureml_arm_endpoint.rstrip('/')}{workspace_id}"
    try:
        found = await client.call(lambda: None, "GET", url, params={"api-version": _API_VERSION})
    except Refused as error:
        raise TargetUnauthorized(f"the workspace cannot be read: {error}") from None
    properties = found.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    host = urlsplit(str(properties.get("mlFlowTrackingUri") or properties.get("discoveryUrl") or "")).hostname
    if host is None:
        arm_host = urlsplit(settings.azureml_arm_endpoint).hostname or ""
        host = f"{found.get('location')}{_CLOUD_OF_ARM.get(arm_host, '.api.azureml.ms')}"
    identity = found.get("identity")
    tenant_id = properties.get("tenantId") or (identity.get("tenantId") if isinstance(identity, dict) else None)
    try:
        return workspace_at(check_host(host.lower()), workspace_id, tenant_id or await tokens.tenant_id())
    except ValueError as error:
        raise TargetUnavailable(f"Resource Manager's answer about the workspace: {error}") from None
